"""Running what was trained: merging an adapter into its base, several on one base, one prompt answered by many side by side."""

from lora_lab.inference.answering import Judged, Said, judge, latest, stream_answers
from lora_lab.inference.costs import MergeCost, merge_costs, on_unquantized
from lora_lab.inference.first_steps import first_gradients_of
from lora_lab.inference.latency import latency_by_shape, measure_latency
from lora_lab.inference.live_models import BASE, Answerer, LiveModels, base_quant
from lora_lab.inference.merged_logits import differences_of_random, differences_of_run, logit_differences
from lora_lab.inference.merging import Merge, merge, unload_merged
from lora_lab.inference.open_run import open_run
from lora_lab.inference.questions import Question, answer_kind, inputs_of, question_of, test_split, written_prompt
from lora_lab.inference.report import MergeReport, export_merged, merge_report
from lora_lab.inference.rule import chain_rule_of
from lora_lab.inference.shelf import AdapterShelf
from lora_lab.inference.subject import Subject, default_shapes, find_subject
from lora_lab.inference.switching import measure_switching
from lora_lab.inference.truncation import TruncatedScore, truncated_scores

__all__ = [
    "BASE",
    "AdapterShelf",
    "Answerer",
    "Judged",
    "LiveModels",
    "Merge",
    "MergeCost",
    "MergeReport",
    "Question",
    "Said",
    "Subject",
    "TruncatedScore",
    "answer_kind",
    "base_quant",
    "chain_rule_of",
    "default_shapes",
    "differences_of_random",
    "differences_of_run",
    "export_merged",
    "find_subject",
    "first_gradients_of",
    "inputs_of",
    "judge",
    "latency_by_shape",
    "latest",
    "logit_differences",
    "measure_latency",
    "measure_switching",
    "merge",
    "merge_costs",
    "merge_report",
    "on_unquantized",
    "open_run",
    "question_of",
    "stream_answers",
    "test_split",
    "truncated_scores",
    "unload_merged",
    "written_prompt",
]
