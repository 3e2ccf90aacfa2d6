"""Bases with tasks, ready to run."""

from lora_lab.benches.bench import Bench, Defaults, Retention, Split, Splits
from lora_lab.benches.catalogue import BENCH_NAMES, find_bench

__all__ = ["BENCH_NAMES", "Bench", "Defaults", "Retention", "Split", "Splits", "find_bench"]
