"""What a run still does when every ΔW is cut to its strongest directions after training."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from lora_lab.benches import Split, find_bench
from lora_lab.errors import SpecError, out_of_range
from lora_lab.inference.open_run import open_run
from lora_lab.lowrank import LowRank
from lora_lab.specs import METHODS, PLAIN_LORA, RunSpec
from lora_lab.training import evaluate, threads_for
from lora_lab.training.devices import pinned_threads

_ADAPTER = "default"


@dataclass(frozen=True, slots=True)
class TruncatedScore:
    """The test score with the best part of rank `kept` of every ΔW; None where the task has no metric."""

    kept: int
    score: float | None


def truncated_scores(spec: RunSpec, adapter_dir: Path, kept: Sequence[int]) -> tuple[TruncatedScore, ...]:
    """Score a run anew for each number of directions, on the whole test split; a task head stays as it was trained.

    It is not what training at that rank gives: nothing is learned after the cut.

    Args:
        spec: the run's, of LoRA or its kin with plain factors.
        adapter_dir: what it saved.
        kept: each in 1..r; where a matrix has fewer directions, it keeps them all.

    Raises:
        SpecError: a number of directions out of range, or a method whose ΔW is no plain product.
        LabError: the base cannot be had.

    Source: Eckart and Young 1936, "The approximation of one matrix by another of lower rank".
    """
    if spec.tuning.method not in PLAIN_LORA or spec.tuning.virtual_tokens:
        label = METHODS[spec.tuning.method].label
        raise SpecError(out_of_range("spec", "truncated_scores", "of LoRA alone, whose ΔW is B A", label))
    wrong = next((k for k in kept if not 1 <= k <= spec.tuning.r), None)
    if wrong is not None:
        raise SpecError(out_of_range("kept", "truncated_scores", f"ints in 1..r={spec.tuning.r}", wrong))
    bench = find_bench(spec.bench, spec.data)
    with pinned_threads(threads_for(bench.defaults.threads)):
        model, split = open_run(spec, adapter_dir), bench.splits().test
        return tuple(_scored(model, split, k) for k in kept)


def _scored(model: nn.Module, split: Split, k: int) -> TruncatedScore:
    with truncated(model, k):
        return TruncatedScore(k, evaluate(model, split).value)


@contextmanager
def truncated(model: nn.Module, k: int) -> Iterator[None]:
    """A block in which every ΔW of a live PEFT model has its k strongest directions alone; then it is as it was, to the bit."""
    factors = [(layer, layer.lora_A[_ADAPTER].weight, layer.lora_B[_ADAPTER].weight) for layer in _layers(model)]
    before = [(lora_a.data, lora_b.data) for _, lora_a, lora_b in factors]
    try:
        for layer, lora_a, lora_b in factors:
            lora_a.data, lora_b.data = _cut(lora_a.data, lora_b.data, float(layer.scaling[_ADAPTER]), k)
        yield
    finally:
        for (_, lora_a, lora_b), (a, b) in zip(factors, before, strict=True):
            lora_a.data, lora_b.data = a, b


def _layers(model: nn.Module) -> Iterator[LoraLayer]:
    return (module for module in model.modules() if isinstance(module, LoraLayer) and _ADAPTER in module.lora_A)


def _cut(lora_a: Tensor, lora_b: Tensor, scaling: float, k: int) -> tuple[Tensor, Tensor]:
    """Factors of rank k in the shape of those of rank r, the rest zero, so that the layer stays what it is."""
    whole = LowRank(lora_b, lora_a, scaling)
    part = whole.truncated(min(k, *whole.shape))
    cut_a, cut_b = torch.zeros_like(lora_a), torch.zeros_like(lora_b)
    cut_a[: part.r], cut_b[:, : part.r] = part.lora_a.to(lora_a), (part.lora_b / scaling).to(lora_b)
    return cut_a, cut_b
