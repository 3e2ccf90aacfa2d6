"""Running what was trained: merging an adapter into its base, and several adapters on one base, switched by name."""

from lora_lab.inference.costs import MergeCost, merge_costs, on_unquantized
from lora_lab.inference.merging import Merge, merge, unload_merged
from lora_lab.inference.open_run import open_run
from lora_lab.inference.report import MergeReport, export_merged, merge_report
from lora_lab.inference.rule import chain_rule_of
from lora_lab.inference.shelf import AdapterShelf

__all__ = [
    "AdapterShelf",
    "Merge",
    "MergeCost",
    "MergeReport",
    "chain_rule_of",
    "export_merged",
    "merge",
    "merge_costs",
    "merge_report",
    "on_unquantized",
    "open_run",
    "unload_merged",
]
