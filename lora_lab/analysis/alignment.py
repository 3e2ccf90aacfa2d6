"""How alike are two ΔW? Their cosine, their factors after the best rotation, and how far their subspaces are apart."""

from collections.abc import Mapping

import torch
from torch import Tensor

from lora_lab.analysis.distances import closeness
from lora_lab.analysis.records import Likeness
from lora_lab.errors import AdapterError
from lora_lab.lowrank import LowRank


def cosine(first: LowRank, second: LowRank) -> float | None:
    """⟨ΔW, ΔW'⟩ / (‖ΔW‖_F ‖ΔW'‖_F), from −1 to 1; None where one of them is 0.

    Raises:
        AdapterError: the two have different shapes.
    """
    return _cosine(first, second) if first.numerical_rank and second.numerical_rank else None


def _cosine(first: LowRank, second: LowRank) -> float:
    return max(-1.0, min(1.0, first.inner(second) / (first.frobenius() * second.frobenius())))


def procrustes_similarity(first: LowRank, second: LowRank) -> float | None:
    """‖ZᵀZ'‖_* / (‖Z‖_F ‖Z'‖_F) of the balanced factors Z = [U√S; V√S] of ΔW = U S Vᵀ, from 0 to 1; None where one is 0.

    Balanced factors are fixed by ΔW up to a rotation of their r columns, and the nuclear norm is the largest ⟨Z, Z'R⟩ over
    all rotations R: it compares two adapters factor by factor without asking how either was factored, nor how large it is.
    It is 1 where one ΔW is a positive multiple of the other, and 0 between ΔW and −ΔW, which share no balanced factor. With
    different ranks the smaller Z counts as filled up with zero columns.

    Raises:
        AdapterError: the two have different shapes.

    Source: Tu et al. 2016, "Low-rank solutions of linear matrix equations via Procrustes flow", for the balanced
    factors and their distance min_R ‖Z − Z'R‖_F; Williams et al. 2021, "Generalized shape metrics on neural
    representations", for the cosine of the same alignment.
    """
    if first.shape != second.shape:
        raise AdapterError(f"Both ΔW of a likeness need one shape. Got {first.shape} and {second.shape}.")
    return _procrustes(first.compact_svd(), second.compact_svd())


def _procrustes(first: tuple[Tensor, Tensor, Tensor], second: tuple[Tensor, Tensor, Tensor]) -> float | None:
    (u1, s1, vh1), (u2, s2, vh2) = first, second
    if len(s1) == 0 or len(s2) == 0:
        return None
    shared = s1.sqrt()[:, None] * (u1.mT @ u2 + vh1 @ vh2.mT) * s2.sqrt()
    nuclear = torch.linalg.svdvals(shared).sum()
    return min(float(nuclear / (2 * (s1.sum() * s2.sum()).sqrt())), 1.0)  # ‖Z‖_F² = 2 Σσ


def likeness(first: Mapping[str, LowRank], second: Mapping[str, LowRank]) -> tuple[Likeness, ...]:
    """The likeness of every matrix that both adapters adapt, in the first one's order.

    Raises:
        AdapterError: the adapters share no matrix, or one with two shapes.
    """
    shared = [name for name in first if name in second]
    if not shared:
        raise AdapterError("The two adapters must adapt at least one matrix in common. They share none.")
    return tuple(likeness_of(name, first[name], second[name]) for name in shared)


def likeness_of(name: str, first: LowRank, second: LowRank) -> Likeness:
    """Two ΔW of one matrix beside each other, each decomposed once.

    Raises:
        AdapterError: the two have different shapes.
    """
    if first.shape != second.shape:
        raise AdapterError(f"{name} must have one shape in both adapters. Got {first.shape} and {second.shape}.")
    one, other = first.compact_svd(), second.compact_svd()
    if len(one[1]) == 0 or len(other[1]) == 0:
        return Likeness(name, None, None, None, None)
    sides = closeness(one[2].mT, other[2].mT), closeness(one[0], other[0])
    return Likeness(name, cosine(first, second), _procrustes(one, other), *sides)
