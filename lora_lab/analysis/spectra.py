"""One ΔW: how large it is, and how many directions it uses."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from lora_lab.analysis.records import Spectrum
from lora_lab.lowrank import LowRank


def stable_rank(singular_values: Float[Tensor, " k"]) -> float | None:
    """‖ΔW‖_F² / ‖ΔW‖_2², between 1 and the rank; None for ΔW = 0.

    Source: Rudelson and Vershynin 2007, "Sampling from large matrices", section 1.

    >>> stable_rank(torch.tensor([2.0, 2.0, 1.0]))
    2.25
    """
    largest = float(singular_values[0])
    return float((singular_values / largest).square().sum()) if largest > 0 else None


def effective_rank(singular_values: Float[Tensor, " k"]) -> float | None:
    """exp of the entropy of σ / Σσ: k for k equal values, 1 for a single one; None for ΔW = 0.

    Source: Roy and Vetterli 2007, "The effective rank", equation 4.
    """
    total = float(singular_values.sum())
    if total == 0:
        return None
    p = singular_values / total
    return float(torch.special.entr(p).sum().exp())


def energy_curve(singular_values: Float[Tensor, " k"]) -> Float[Tensor, " k"] | None:
    """Share of ‖ΔW‖_F² in the first i directions, i = 1..k; None for ΔW = 0.

    >>> energy_curve(torch.tensor([4.0, 3.0, 0.0], dtype=torch.float64)).tolist()
    [0.64, 1.0, 1.0]
    """
    energy = singular_values.square().cumsum(0)
    return energy / energy[-1] if float(energy[-1]) > 0 else None


def rank_for_energy(singular_values: Float[Tensor, " k"], share: float) -> int | None:
    """The fewest directions that keep `share` of ‖ΔW‖_F²; None for ΔW = 0."""
    curve = energy_curve(singular_values)
    return None if curve is None else min(int((curve < share).sum()) + 1, len(curve))


def spectrum(adapter: Mapping[str, LowRank]) -> tuple[Spectrum, ...]:
    """The spectrum of every adapted matrix, in the adapter's order.

    Source: Hu et al. 2021, section 7.2.
    """
    return tuple(_one(name, delta) for name, delta in adapter.items())


def _one(name: str, delta: LowRank) -> Spectrum:
    s = delta.singular_values
    return Spectrum(
        name=name,
        shape=delta.shape,
        r=delta.r,
        scaling=delta.scaling,
        frobenius=delta.frobenius(),
        singular_values=tuple(s.tolist()),
        stable_rank=stable_rank(s),
        effective_rank=effective_rank(s),
        rank_for_95=rank_for_energy(s, 0.95),
    )
