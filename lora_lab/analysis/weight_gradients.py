"""What the gradient of W knows before LoRA starts: where an update would go, how much rank it asks for, and of which matrix."""

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor

from lora_lab.analysis.base_matrix import base_matrix
from lora_lab.analysis.base_records import GradientOverlap, WeightGradient
from lora_lab.analysis.base_spectra import base_spectrum
from lora_lab.analysis.chance import chance_level, chance_sd
from lora_lab.analysis.records import LeadingOverlap
from lora_lab.analysis.subspaces import subspace_similarity
from lora_lab.errors import SpecError, out_of_range
from lora_lab.lowrank import LowRank


def weight_gradient(
    name: str, g: Float[Tensor, "d_out d_in"], *, r: int = 8, share: float = 0.9, k: int | None = None
) -> WeightGradient:
    """The spectrum of G = ∂L/∂W at the base, the mean over some batches, and what an update of rank r can take of it.

    To first order a step ΔW changes the loss by ⟨G, ΔW⟩, and among those of rank r and one size the steepest is −G cut to
    its first r singular directions.

    Args:
        name: of the matrix.
        g: the gradient, in nats per unit of weight.
        r: the rank in question.
        share: of ‖G‖_F², for which `rank_for_share` is found.
        k: how many leading singular values to find; None for all, which takes the whole SVD of G.

    Raises:
        SpecError: r, share or k is out of range.

    Source: the best approximation of rank r, Eckart and Young 1936; as a start of LoRA, Wang et al. 2024, "LoRA-GA".
    """
    if not 0 < share <= 1:
        raise SpecError(out_of_range("share", "weight_gradient", "above 0 and at most 1", share))
    if r < 1:
        raise SpecError(out_of_range("r", "weight_gradient", "an int of at least 1", r))
    found = base_spectrum(g, None if k is None else max(k, r))
    energy, total = found.singular_values.square().cumsum(0), found.frobenius**2
    d_out, d_in = found.shape
    return WeightGradient(
        name=name,
        shape=found.shape,
        frobenius=found.frobenius,
        per_parameter=found.frobenius / (d_out * d_in) ** 0.5,
        singular_values=tuple(found.singular_values.tolist()),
        is_complete=found.is_complete,
        stable_rank=total / found.spectral**2 if total > 0 else None,
        r=r,
        share_in_r=min(float(energy[min(r, found.k) - 1]) / total, 1.0) if total > 0 else None,
        share=share,
        rank_for_share=_rank_for(energy, share * total, is_complete=found.is_complete) if total > 0 else None,
    )


def _rank_for(energy: Float[Tensor, " k"], wanted: float, *, is_complete: bool) -> int | None:
    below = int((energy < wanted).sum())
    if below < len(energy):
        return below + 1
    return below if is_complete else None  # the whole is there, but for rounding


def rank_advice(
    gradients: Mapping[str, Float[Tensor, "d_out d_in"]], *, r: int = 8, share: float = 0.9, k: int | None = None
) -> tuple[WeightGradient, ...]:
    """Every matrix with the rank that its gradient asks for, the one with the largest gradient per parameter first.

    Per parameter is ‖G‖_F / √(d_out · d_in), the root mean square of G's entries, so that a large matrix does not come first
    for its size. It says where the loss falls fastest at the start, not where training ends.

    Args:
        gradients: ∂L/∂W by module name.
        r: the rank in question.
        share: of ‖G‖_F² that the rank should keep.
        k: how many leading singular values to find; None for all.

    Raises:
        SpecError: r, share or k is out of range.
    """
    found = [weight_gradient(name, g, r=r, share=share, k=k) for name, g in gradients.items()]
    return tuple(sorted(found, key=lambda one: -one.per_parameter))


def gradient_overlap(name: str, g: Float[Tensor, "d_out d_in"], delta: LowRank, *, k: int = 4) -> GradientOverlap:
    """How much of a ΔW the gradient at the base already pointed to: φ of the leading k directions of both, and their cosine.

    Args:
        name: of the matrix.
        g: the gradient of the loss at the base.
        delta: what was learned.
        k: how many directions of each, at most what ΔW and G have.

    Raises:
        AdapterError: the two have different shapes.
        SpecError: k is below 1.

    Source: φ as in Hu et al. 2021, section 7.2, equation 4.
    """
    g = base_matrix(name, delta, g)
    top = base_spectrum(g, k)
    u, s, vh = delta.compact_svd()
    i = min(len(s), int((top.singular_values > 0).sum()))
    if i == 0:
        return GradientOverlap(name, None, None, None)
    descent = -float(((g @ vh.mT) * (u * s)).sum()) / (top.frobenius * float(s.norm()))
    return GradientOverlap(
        name,
        input_side=_leading(top.vh[:i].mT, vh[:i].mT),
        output_side=_leading(top.u[:, :i], u[:, :i]),
        descent_cosine=max(-1.0, min(1.0, descent)),
    )


def _leading(u: Float[Tensor, "d i"], v: Float[Tensor, "d i"]) -> LeadingOverlap:
    d, i = u.shape
    return LeadingOverlap(i, min(subspace_similarity(u, v), 1.0), chance_level(i, i, d), chance_sd(i, i, d))
