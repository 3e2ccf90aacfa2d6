"""From what a method trains to its ΔW: tensors in, LowRank out, (d_out, d_in). Files and live models share it."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from lora_lab.lowrank import LowRank

NO_CHANGE = {
    "LN_TUNING": "LN tuning trains the gains and shifts of normalisations: it changes no matrix.",
    "PREFIX_TUNING": "Prefix tuning trains keys and values of virtual tokens: it changes no matrix.",
    "PROMPT_TUNING": "Prompt tuning trains embeddings of virtual tokens: it changes no matrix.",
    "P_TUNING": "P-tuning trains an encoder of virtual tokens: it changes no matrix.",
}


def adalora(
    lora_a: Float[Tensor, "r d_in"],
    lora_b: Float[Tensor, "d_out r"],
    lora_e: Float[Tensor, "r 1"],
    *,
    lora_alpha: float,
    init_r: float,
) -> LowRank:
    """ΔW = lora_alpha / init_r · B E A, E the singular values; those that were pruned in training are zeros, or left out.

    PEFT keeps dividing by the rank it began with, and by 1e-5 more.

    Source: Zhang et al. 2023 (AdaLoRA), equation 3; PEFT's `SVDLinear.get_delta_weight`.
    """
    if lora_a.shape[0] == 0:  # every rank of this matrix was pruned
        lora_a, lora_b, lora_e = lora_a.new_zeros(1, lora_a.shape[1]), lora_b.new_zeros(lora_b.shape[0], 1), lora_e.new_zeros(1, 1)
    return LowRank(lora_b, lora_a * lora_e, (lora_alpha if lora_alpha > 0 else init_r) / (init_r + 1e-5))


def vera(
    vera_a: Float[Tensor, "r widest_in"],
    vera_b: Float[Tensor, "widest_out r"],
    lambda_d: Float[Tensor, " r"],
    lambda_b: Float[Tensor, " d_out"],
    *,
    d_in: int,
) -> LowRank:
    """ΔW = Λ_b B Λ_d A, from the first rows of B and columns of A that fit the matrix: all matrices share the two.

    Source: Kopiczko et al. 2023 (VeRA), equation 2; PEFT's `vera.Linear.get_delta_weight`.
    """
    return LowRank(lambda_b[:, None] * vera_b[: len(lambda_b)], lambda_d[:, None] * vera_a[:, :d_in], 1.0)


def dora(weight: Float[Tensor, "d_out d_in"], direction: LowRank, magnitude: Float[Tensor, " d_out"]) -> LowRank:
    """ΔW = m / ‖W + sBA‖ · (W + sBA) − W, the norm being that of each row.

    A magnitude that is the norm to rounding is taken for it, so that ΔW is 0 at the start, not noise of full rank.

    Source: Liu et al. 2024 (DoRA), equation 5.
    """
    moved = weight.double() + direction.dense()
    gain = magnitude.double() / moved.norm(dim=1)
    rounding = 4 * max(torch.finfo(x.dtype).eps for x in (weight, magnitude))
    gain = torch.where((gain - 1).abs() <= rounding, 1.0, gain)
    return LowRank.of_dense((direction.dense() + (gain[:, None] - 1) * moved).float())


def ia3(weight: Float[Tensor, "d_out d_in"], gain: Float[Tensor, "rows columns"]) -> LowRank:
    """ΔW = (l − 1) ⊙ W: the gain scales rows (d_out, 1), or columns (1, d_in) where it acts on what comes in.

    Source: Liu et al. 2022 ((IA)³), section 3.3.
    """
    return LowRank.of_dense(((gain.double() - 1) * weight.double()).float())


def experts(
    lora_a: Float[Tensor, "rows d_in"], lora_b: Float[Tensor, "d_out rows"], *, count: int, scaling: float
) -> Iterator[LowRank]:
    """The ΔW of each expert of one parameter: the rows of A lie expert after expert, the columns of B rank after rank.

    A is (r · experts, d_in) and B (d_out, r · experts) whichever way the family stores the parameter.

    Source: PEFT's `ParamWrapper.get_delta_weight`.
    """
    r = lora_a.shape[0] // count
    for expert in range(count):
        yield LowRank(lora_b[:, expert::count], lora_a[expert * r : (expert + 1) * r], scaling)


def changed(weight: Float[Tensor, "d_out d_in"], original: Float[Tensor, "d_out d_in"]) -> LowRank | None:
    """W − W0 of a matrix that was trained in place; None where it is W0 still."""
    if torch.equal(weight.to(original.dtype), original):
        return None
    return LowRank.of_dense((weight.double() - original.double()).float())


def matrix_name(owner: str, parameter: str) -> str:
    """The name of the matrix that a parameter is: the module's own where it is its weight."""
    return owner if parameter == "weight" else f"{owner}.{parameter}"
