"""Where ΔW lies in W: in its strong directions, in its weak ones, or where it has none."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from lora_lab.analysis.base_records import Band, Location
from lora_lab.analysis.base_spectra import BaseSpectrum
from lora_lab.analysis.records import Side
from lora_lab.errors import AdapterError, SpecError, out_of_range
from lora_lab.lowrank import LowRank


def location_of(name: str, delta: LowRank, base: BaseSpectrum, *, k: int | None = None) -> Location:
    """The share of ‖ΔW‖_F² in the span of W's top k singular directions, of its last k, and of those between, on either side.

    The share of a band S of left directions X_S is ‖X_Sᵀ ΔW‖_F² / ‖ΔW‖_F², of right ones ‖ΔW Y_S‖_F² / ‖ΔW‖_F². What the
    longer side has beyond min(d_out, d_in) is `outside`. From a spectrum that is not complete come the top k and the `rest`.

    Args:
        name: of the matrix.
        delta: the update.
        base: the singular vectors of W.
        k: width of top and tail, at most half of min(d_out, d_in); None for a tenth of it, at least 1.

    Raises:
        AdapterError: ΔW and W have different shapes.
        SpecError: k is out of range.
    """
    if base.shape != delta.shape:
        raise AdapterError(f"{name} must have one shape in adapter and base. Got {delta.shape} and {base.shape}.")
    edges = _edges(base, _width(base, k))
    u, s, vh = delta.compact_svd()
    sides: tuple[tuple[Side, Tensor, Tensor], ...] = (("out", base.u, u), ("in", base.vh.mT, vh.mT))
    return Location(name, tuple(band for side, x, y in sides for band in _bands(side, edges, x, _shares(x, y, s))))


def _width(base: BaseSpectrum, k: int | None) -> int:
    half = max(min(base.shape) // 2, 1)
    most = half if base.is_complete else min(half, base.k)
    if k is None:
        return min(max(min(base.shape) // 10, 1), most)
    if not 1 <= k <= most:
        raise SpecError(out_of_range("k", "location_of", f"an int in 1..{most}", k))
    return k


def _edges(base: BaseSpectrum, k: int) -> dict[str, int]:
    """The last direction of every band, in order."""
    if not base.is_complete:
        return {"top": k}
    return {"top": k, "middle": max(base.k - k, k), "tail": base.k}


def _shares(x: Float[Tensor, "d m"], y: Float[Tensor, "d k"], s: Float[Tensor, " k"]) -> Float[Tensor, " m"] | None:
    """The share of ‖ΔW‖_F² along each direction of W; None for ΔW = 0."""
    if len(s) == 0:
        return None
    weights = (s / s[0]).square()
    return ((x.mT @ y).square() @ weights) / weights.sum()


def _bands(side: Side, edges: dict[str, int], x: Tensor, shares: Tensor | None) -> Iterator[Band]:
    dimension, known = x.shape
    before = 0
    for name, last in edges.items():
        if last > before:
            share = None if shares is None else min(float(shares[before:last].sum()), 1.0)
            yield Band(side, name, before + 1, last, share, (last - before) / dimension)
        before = last
    if before < dimension:
        beyond = "outside" if before == known else "rest"
        share = None if shares is None else max(1.0 - float(torch.sum(shares[:before])), 0.0)
        yield Band(side, beyond, before + 1, dimension, share, (dimension - before) / dimension)
