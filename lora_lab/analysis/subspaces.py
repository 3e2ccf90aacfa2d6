"""Two ΔW: how much of one's leading directions lies in the other's, and how much chance would give."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from lora_lab.analysis.chance import chance_level
from lora_lab.analysis.random_subspaces import random_subspace
from lora_lab.analysis.records import Of, Overlap, Side
from lora_lab.errors import AdapterError, SpecError, out_of_range
from lora_lab.lowrank import LowRank


def subspace_similarity(u: Float[Tensor, "d i"], v: Float[Tensor, "d j"]) -> float:
    """φ = ‖uᵀv‖²_F / min(i, j), in [0, 1]; columns orthonormal. 1 where the smaller span lies in the larger.

    Source: Hu et al. 2021, section 7.2, equation 4, and appendix G.
    """
    return float(torch.linalg.matrix_norm(u.mT @ v) ** 2 / min(u.shape[1], v.shape[1]))


def principal_angles(u: Float[Tensor, "d i"], v: Float[Tensor, "d j"]) -> Float[Tensor, " k"]:
    """Angles in radians between two subspaces, smallest first, k = min(i, j); columns orthonormal.

    Small angles come from the sine, not the cosine, whose rounding would turn 0 into 1e-8.

    Source: Björck and Golub 1973, "Numerical methods for computing angles between linear subspaces".
    """
    if u.shape[1] < v.shape[1]:
        u, v = v, u
    cosines = torch.linalg.svdvals(u.mT @ v).clamp(0, 1)
    sines = torch.linalg.svdvals(v - u @ (u.mT @ v)).clamp(0, 1).flip(0)
    angles: Tensor = torch.where(cosines > 0.5**0.5, sines.asin(), cosines.acos())
    return angles


def directions(delta: LowRank, *, of: Of = "delta", side: Side = "in") -> Float[Tensor, "d k"]:
    """Orthonormal singular directions as columns, strongest first; k = 0 where there is none.

    Args:
        delta: the update.
        of: `delta` for the singular vectors of ΔW; `a` for those of A, as section 7.2 of the paper takes them. Both
            span the same input space at full rank, but order it differently.
        side: `in` for right singular vectors (d = d_in), `out` for left ones (d = d_out).

    Raises:
        SpecError: `of="a"` with `side="out"`: the left vectors of A live in R^r and mean nothing.
    """
    if of == "a":
        if side == "out":
            raise SpecError(out_of_range("side", "directions", "'in' when of is 'a'", side))
        _, s, vh = torch.linalg.svd(delta.lora_a.detach().to("cpu", torch.float64), full_matrices=False)
        kept: Tensor = vh[s > s[0] * max(delta.lora_a.shape) * torch.finfo(torch.float32).eps]
        return kept.mT
    u, _, vh = delta.compact_svd()
    return vh.mT if side == "in" else u


def overlap(
    first: Mapping[str, LowRank],
    second: Mapping[str, LowRank],
    *,
    of: Of = "delta",
    side: Side = "in",
    module: str | None = None,
) -> tuple[Overlap, ...]:
    """φ for every matrix that both adapters adapt, or for the one named.

    Source: Hu et al. 2021, section 7.2, figures 3 and 4.

    Raises:
        AdapterError: the adapters share no matrix, not the one named, or one with two shapes.
    """
    shared = [name for name in first if name in second]
    if not shared:
        raise AdapterError("The two adapters must adapt at least one matrix in common. They share none.")
    if module is not None and module not in shared:
        raise AdapterError(out_of_range("module", "overlap", f"one of {', '.join(shared)}", module))
    return tuple(overlap_of(name, first[name], second[name], of=of, side=side) for name in ([module] if module else shared))


def overlap_of(
    name: str, first: LowRank, second: LowRank, *, of: Of = "delta", side: Side = "in", most: int | None = None
) -> Overlap:
    """φ of every pair of leading subspaces of one matrix in two adapters, all from one product.

    Args:
        name: of the matrix.
        first: its ΔW in the one adapter.
        second: and in the other.
        of: as of `directions`.
        side: as of `directions`.
        most: how many leading directions of either at most; None for all.

    Raises:
        AdapterError: the two updates have different shapes.
    """
    if first.shape != second.shape:
        raise AdapterError(f"{name} must have one shape in both adapters. Got {first.shape} and {second.shape}.")
    u, v = (directions(delta, of=of, side=side)[:, :most] for delta in (first, second))
    return _overlap(name, of, side, u, v)


def control_overlap(record: Overlap, *, seed: int = 0) -> Overlap:
    """The overlap of as many directions of two random matrices of these shapes: what there is where nothing was learned.

    The singular vectors of a matrix of independent normal entries, or of a product of two, span uniformly random subspaces.
    """
    if record.phi is None:
        return record
    u, v = (
        random_subspace(record.dimension, k, "control_overlap", record.name, record.side, seed, which)
        for which, k in enumerate((len(record.phi), len(record.phi[0])))
    )
    return _overlap(record.name, record.of, record.side, u, v)


def _overlap(name: str, of: Of, side: Side, u: Float[Tensor, "d i"], v: Float[Tensor, "d j"]) -> Overlap:
    d, i_max, j_max = u.shape[0], u.shape[1], v.shape[1]
    if i_max == 0 or j_max == 0:
        return Overlap(name, of, side, d, None, None)
    grid = _phi_grid(u, v)
    chance = tuple(tuple(chance_level(i, j, d) for j in range(1, j_max + 1)) for i in range(1, i_max + 1))
    return Overlap(name, of, side, d, tuple(map(tuple, grid.tolist())), chance)


def _phi_grid(u: Float[Tensor, "d i"], v: Float[Tensor, "d j"]) -> Float[Tensor, "i j"]:
    sums = (u.mT @ v).square().cumsum(0).cumsum(1)
    rows = torch.arange(1, u.shape[1] + 1)[:, None]
    columns = torch.arange(1, v.shape[1] + 1)[None, :]
    return (sums / torch.minimum(rows, columns)).clamp(0, 1)
