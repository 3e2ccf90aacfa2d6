"""What merging does to one run: its logits and its accuracy, as trained, merged in each way, and on the base as it was."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lora_lab.benches import find_bench
from lora_lab.benches.quiet import quiet_transformers
from lora_lab.errors import MergeError
from lora_lab.inference.costs import MergeCost, merge_costs, on_unquantized
from lora_lab.inference.merging import unload_merged
from lora_lab.inference.open_run import open_run
from lora_lab.specs import IN_PLACE, METHODS, RunSpec
from lora_lab.training import evaluate

_ROWS = 256


@dataclass(frozen=True, slots=True)
class MergeReport:
    """Scores by the task's metric on the same test rows; differences are relative, of logits.

    Attributes:
        rows: how many examples of the test split were read.
        metric: what the scores are.
        score: of the run as it was trained, its adapter beside the base.
        ways: the adapter merged into the base, in each way.
        unquantized: the same adapter on the base that was not quantized; None where the base was not.
    """

    rows: int
    metric: str
    score: float | None
    ways: tuple[MergeCost, ...]
    unquantized: MergeCost | None


def merge_report(spec: RunSpec, adapter_dir: Path) -> MergeReport:
    """Measure what merging does to a run, on at most 256 rows of the test split.

    Raises:
        MergeError: the method does not merge.
        LabError: the base cannot be had.
    """
    refuse_unmergeable(spec)
    held_out = find_bench(spec.bench, spec.data).splits().test
    split = held_out.take(torch.arange(min(_ROWS, len(held_out))))
    chunks = [split.batch(rows) for rows in torch.split(torch.arange(len(split)), split.task.rows_a_batch)]
    batches = [{name: column for name, column in chunk.items() if name != "labels"} for chunk in chunks]

    metric = split.task.metric

    def score(model: nn.Module) -> float | None:
        return evaluate(model, split).value

    model = open_run(spec, adapter_dir)
    ways = merge_costs(model, batches, score=score)
    if spec.quant == "none":
        return MergeReport(len(split), metric, score(model), ways, None)
    plain = open_run(spec, adapter_dir, quant="none")
    beside = MergeCost("unquantized", on_unquantized(model, plain, batches), score(plain))
    return MergeReport(len(split), metric, score(model), ways, beside)


def export_merged(spec: RunSpec, adapter_dir: Path, folder: Path) -> None:
    """Write the base with the run's adapter merged into it as a plain transformers model, dequantized where it was quantized.

    Raises:
        MergeError: the method cannot be merged; a run that trained the base's own weights is written as it stands.
        LabError: the base cannot be had.
    """
    if spec.tuning.method not in IN_PLACE:
        refuse_unmergeable(spec)
    model = open_run(spec, adapter_dir)
    merged: Any = model if spec.tuning.method in IN_PLACE else unload_merged(model)
    with quiet_transformers():
        merged.save_pretrained(folder)


def refuse_unmergeable(spec: RunSpec) -> None:
    """Nothing where the run's method merges.

    Raises:
        MergeError: it does not, with the reason.
    """
    label = METHODS[spec.tuning.method].label
    if spec.tuning.method in IN_PLACE:
        raise MergeError(f"{label} trains the base's own weights: there is nothing to merge.")
    if METHODS[spec.tuning.method].r_is == "bottleneck width":
        raise MergeError(f"{label} is a network of its own beside the base's: no weight can hold it.")
    if spec.tuning.virtual_tokens:
        raise MergeError(f"{label} puts tokens before the text: no weight can hold them.")
