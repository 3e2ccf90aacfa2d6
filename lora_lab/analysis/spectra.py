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


def participation_ratio(singular_values: Float[Tensor, " k"]) -> float | None:
    """(Σσ²)² / Σσ⁴: k for k equal values, 1 for a single one; at least the stable rank. None for ΔW = 0.

    Source: Bell and Dean 1970, "Atomic vibrations in vitreous silica", there of amplitudes; here of the energies σ².

    >>> participation_ratio(torch.tensor([2.0, 2.0, 0.0]))
    2.0
    """
    largest = float(singular_values[0])
    if largest == 0:
        return None
    energy = (singular_values / largest).square()
    return float(energy.sum().square() / energy.square().sum())


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
    return tuple(spectrum_of(name, delta) for name, delta in adapter.items())


def spectrum_of(name: str, delta: LowRank) -> Spectrum:
    """The spectrum of one matrix. Where no singular value stands above rounding, ΔW counts as 0 and no rank is given."""
    s, k = delta.singular_values, delta.numerical_rank
    used = s if k else torch.zeros_like(s)
    return Spectrum(
        name=name,
        shape=delta.shape,
        r=delta.r,
        scaling=delta.scaling,
        frobenius=delta.frobenius(),
        spectral=delta.spectral(),
        singular_values=tuple(s.tolist()),
        numerical_rank=k,
        stable_rank=stable_rank(used),
        effective_rank=effective_rank(used),
        participation_ratio=participation_ratio(used),
        rank_for_90=rank_for_energy(used, 0.90),
        rank_for_95=rank_for_energy(used, 0.95),
        rank_for_99=rank_for_energy(used, 0.99),
    )
