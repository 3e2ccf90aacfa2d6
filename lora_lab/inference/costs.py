"""What merging costs: how far the logits of a merged model are from those of the model that it was."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lora_lab.errors import MergeError, out_of_range
from lora_lab.inference.merging import Merge, active_adapter, merge, merge_requantized
from lora_lab.methods import quantized

Batch = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class MergeCost:
    """A way to merge and what it changed.

    Attributes:
        name: what the merged weights are kept in: `fp32`, `bf16`, or a format of few bits (`int8`, `nf4`, `nf4-dq`).
        difference: norm of the logits' change over the norm of the unmerged logits, over all batches; None where PEFT has no
            such merge.
        score: what the caller measured on the merged model; None where nothing was asked, or there is no such merge.
    """

    name: str
    difference: float | None
    score: float | None = None


Measure = Callable[[nn.Module], float | None]


def merge_costs(model: nn.Module, batches: Sequence[Batch], *, score: Measure | None = None) -> tuple[MergeCost, ...]:
    """How far merging moves the model's logits, measured on the batches; the model comes back as it was, to the bit.

    Merged in float32, on dequantized weights where they are quantized; the same with the merged weights rounded to bfloat16; and,
    on a quantized base, merged into as few bits again, as PEFT does it. All else stays as it is, so that a difference is the merged
    weights' own; a base in half precision is computed in float32 in the first two, and they carry its rounding too.

    Args:
        model: a live PEFT model.
        batches: keyword arguments of the model; logits of every position count.
        score: measured on each merged model too, such as its accuracy; None where it is not defined.

    Raises:
        MergeError: as `merge`, or there is no batch.
    """
    quantized.keep_exact(model)
    active_adapter(model)
    reference = logits_of(model, batches)
    ways: dict[str, Callable[[], Merge]] = {"fp32": lambda: _in_fp32(model), "bf16": lambda: _in_bf16(model)}
    costs = [_cost(name, model, batches, reference, way, score) for name, way in ways.items()]
    few_bits = _format(model)
    if few_bits is not None:
        costs.append(_requantized_cost(few_bits, model, batches, reference, score))
    return tuple(costs)


def on_unquantized(model: nn.Module, unquantized: nn.Module, batches: Sequence[Batch]) -> float:
    """How far a quantized base moves what the same adapter answers on the base that was quantized.

    Args:
        model: the adapter on the quantized base.
        unquantized: the adapter on the base as it was before.
        batches: keyword arguments of both.

    Returns:
        Norm of the difference of the logits over the norm of the unquantized model's.

    Raises:
        MergeError: there is no batch.
    """
    quantized.keep_exact(model)
    return relative_difference(logits_of(model, batches), logits_of(unquantized, batches))


def relative_difference(found: Sequence[Tensor], reference: Sequence[Tensor]) -> float:
    """‖found − reference‖ / ‖reference‖ over all tensors, in float64."""
    change = sum(float((a.double() - b.double()).square().sum()) for a, b in zip(found, reference, strict=True))
    whole = sum(float(b.double().square().sum()) for b in reference)
    return float((change / whole) ** 0.5)


@torch.no_grad()
def logits_of(model: nn.Module, batches: Sequence[Batch]) -> list[Tensor]:
    """The model's logits on each batch, on the CPU, without dropout; the model comes back in the mode it was in.

    Raises:
        MergeError: there is no batch.
    """
    if not batches:
        raise MergeError(out_of_range("batches", "merge_costs", "at least one batch", batches))
    device = next(model.parameters()).device
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        found = [model(**{name: column.to(device) for name, column in batch.items()}).logits.cpu() for batch in batches]
    finally:
        for module, training in modes:
            module.training = training
    return found


def _in_fp32(model: nn.Module) -> Merge:
    return merge(model, dtype=torch.float32)


def _in_bf16(model: nn.Module) -> Merge:
    merged = _in_fp32(model)
    merged.round_to(torch.bfloat16)
    return merged


def _cost(
    name: str,
    model: nn.Module,
    batches: Sequence[Batch],
    reference: list[Tensor],
    way: Callable[[], Merge],
    score: Measure | None,
) -> MergeCost:
    with _in_float32(model), way():
        difference = relative_difference(logits_of(model, batches), reference)
        return MergeCost(name, difference, score(model) if score else None)


def _requantized_cost(
    name: str, model: nn.Module, batches: Sequence[Batch], reference: list[Tensor], score: Measure | None
) -> MergeCost:
    try:
        merged = merge_requantized(model)
    except MergeError:
        return MergeCost(name, None)
    with merged:
        difference = relative_difference(logits_of(model, batches), reference)
        return MergeCost(name, difference, score(model) if score else None)


def _format(model: nn.Module) -> str | None:
    """How the first quantized layer keeps its weight; None where there is none."""
    return next((quantized.format_of(module) for module in model.modules() if quantized.bits_of(module) is not None), None)


@contextmanager
def _in_float32(model: nn.Module) -> Iterator[None]:
    """Parameters and buffers of half precision in float32 for a while; their own tensors are put back."""
    tensors: list[Any] = [*model.parameters(), *model.buffers()]
    halves = [(tensor, tensor.data) for tensor in tensors if tensor.dtype in (torch.float16, torch.bfloat16)]
    try:
        for tensor, data in halves:
            tensor.data = data.float()
        yield
    finally:
        for tensor, data in halves:
            tensor.data = data
