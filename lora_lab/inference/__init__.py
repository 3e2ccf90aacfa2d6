"""Running what was trained: merging an adapter into its base, and several adapters on one base, switched by name."""

from lora_lab.inference.costs import MergeCost, merge_costs, on_unquantized
from lora_lab.inference.latency import latency_by_shape, measure_latency
from lora_lab.inference.merged_logits import differences_of_random, differences_of_run, logit_differences
from lora_lab.inference.merging import Merge, merge, unload_merged
from lora_lab.inference.open_run import open_run
from lora_lab.inference.report import MergeReport, export_merged, merge_report
from lora_lab.inference.rule import chain_rule_of
from lora_lab.inference.shelf import AdapterShelf
from lora_lab.inference.subject import Subject, default_shapes, find_subject
from lora_lab.inference.switching import measure_switching

__all__ = [
    "AdapterShelf",
    "Merge",
    "MergeCost",
    "MergeReport",
    "Subject",
    "chain_rule_of",
    "default_shapes",
    "differences_of_random",
    "differences_of_run",
    "export_merged",
    "find_subject",
    "latency_by_shape",
    "logit_differences",
    "measure_latency",
    "measure_switching",
    "merge",
    "merge_costs",
    "merge_report",
    "on_unquantized",
    "open_run",
    "unload_merged",
]
