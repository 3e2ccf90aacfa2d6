"""Does ΔW point where W is already strong? W projected on ΔW's directions, on its own, and on random ones."""

import math
from collections.abc import Mapping
from statistics import fmean, stdev

import torch
from jaxtyping import Float
from torch import Tensor

from lora_lab.analysis.base_matrix import NamedWeights, base_matrix
from lora_lab.analysis.base_records import Amplification
from lora_lab.analysis.base_spectra import base_spectrum
from lora_lab.analysis.random_subspaces import random_subspace
from lora_lab.errors import SpecError, out_of_range
from lora_lab.lowrank import LowRank


def amplification(
    adapter: Mapping[str, LowRank], base: NamedWeights, *, draws: int = 8, seed: int = 0
) -> tuple[Amplification, ...]:
    """The amplification of every adapted matrix, in the adapter's order, one W in memory at a time.

    Args:
        adapter: ΔW by module name.
        base: the W that each changes, by the same names.
        draws: how many pairs of random subspaces.
        seed: of these; the global stream is left alone.

    Raises:
        AdapterError: ΔW and W have different shapes.
        DataError: the base has no such matrix.
        SpecError: no draws.

    Source: Hu et al. 2021, section 7.3, table 7.
    """
    return tuple(amplification_of(name, delta, base.named(name), draws=draws, seed=seed) for name, delta in adapter.items())


def amplification_of(name: str, delta: LowRank, w: Float[Tensor, "d_out d_in"], *, draws: int = 8, seed: int = 0) -> Amplification:
    """‖UᵀWVᵀ‖_F with U and V from ΔW, of its numerical rank, beside as many of W's own directions and of random ones.

    Not whether ΔW is large: the factor compares it with what W does in the same directions.

    Raises:
        AdapterError: ΔW and W have different shapes.
        SpecError: no draws.

    Source: Hu et al. 2021, section 7.3, table 7.
    """
    if draws < 1:
        raise SpecError(out_of_range("draws", "amplification", "an int of at least 1", draws))
    w = base_matrix(name, delta, w)
    u, s, vh = delta.compact_svd()
    k, norm, base_norm = len(s), delta.frobenius(), float(torch.linalg.matrix_norm(w))
    if k == 0:
        return Amplification(name, 0, norm, base_norm, None, None, None, None, None, None, draws, None)
    own = base_spectrum(w, k)
    on_delta = _projected(w, u, vh.mT)
    random = [_projected(w, *_random_pair(w, k, name, seed, draw)) for draw in range(draws)]
    return Amplification(
        name=name,
        directions=k,
        frobenius=norm,
        base_frobenius=base_norm,
        on_delta=on_delta,
        on_base=float(own.singular_values.norm()),
        base_residual=own.relative_residual,
        on_random=fmean(random),
        on_random_sd=stdev(random) if draws > 1 else None,
        on_random_expected=expected_on_random(base_norm, *delta.shape, k),
        draws=draws,
        factor=_factor(norm, on_delta),
    )


def amplification_factor(name: str, delta: LowRank, w: Float[Tensor, "d_out d_in"]) -> float | None:
    """‖ΔW‖_F / ‖UᵀWVᵀ‖_F alone, which takes no SVD of W; None where ΔW = 0 or W has nothing in its directions.

    Raises:
        AdapterError: ΔW and W have different shapes.

    Source: Hu et al. 2021, section 7.3.
    """
    u, s, vh = delta.compact_svd()
    return _factor(delta.frobenius(), _projected(base_matrix(name, delta, w), u, vh.mT)) if len(s) else None


def _factor(norm: float, on_delta: float) -> float | None:
    return norm / on_delta if on_delta > 0 else None


def expected_on_random(base_norm: float, d_out: int, d_in: int, k: int) -> float:
    """Root mean square of ‖UᵀWVᵀ‖_F over independent uniform U and V of k directions each: k · ‖W‖_F / √(d_out · d_in).

    E UUᵀ = (k / d_out) · 1, and likewise for V. For the W_q of GPT-3 in table 7 of the paper:

    >>> round(expected_on_random(61.95, 12288, 12288, 4), 2), round(expected_on_random(61.95, 12288, 12288, 64), 2)
    (0.02, 0.32)
    """
    return k * base_norm / math.sqrt(d_out * d_in)


def _random_pair(w: Tensor, k: int, name: str, seed: int, draw: int) -> tuple[Tensor, Tensor]:
    d_out, d_in = w.shape
    key = ("amplification", name, seed, draw)
    return random_subspace(d_out, k, *key, "out"), random_subspace(d_in, k, *key, "in")


def _projected(w: Tensor, u: Tensor, v: Tensor) -> float:
    return float(torch.linalg.matrix_norm(u.mT @ (w @ v)))
