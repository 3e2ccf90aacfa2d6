"""What a gradient of W tells: against numpy, and against the steps and losses that it predicts."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from lora_lab.analysis import chance_level, gradient_overlap, overlap_of, rank_advice, weight_gradient
from lora_lab.errors import AdapterError, SpecError
from lora_lab.lowrank import LowRank

SHAPES = [(20, 14), (14, 20), (16, 16)]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


@shapes
@pytest.mark.parametrize("r", [1, 4, 14])
@pytest.mark.parametrize("share", [0.5, 0.9, 1.0])
def test_energies_and_ranks_are_numpy_s(draw_base: Callable[..., Tensor], shape: tuple[int, int], r: int, share: float) -> None:
    g = draw_base(*shape)
    found = weight_gradient("q", g, r=r, share=share)
    s = np.linalg.svd(g.double().numpy(), compute_uv=False)
    energy = np.cumsum(s**2) / (s**2).sum()
    assert found.singular_values == pytest.approx(s.tolist(), rel=1e-9)
    assert found.frobenius == pytest.approx(np.linalg.norm(g.double().numpy()), rel=1e-10)
    assert found.per_parameter == pytest.approx(np.sqrt((g.double().numpy() ** 2).mean()), rel=1e-10)
    assert found.stable_rank == pytest.approx((s**2).sum() / s[0] ** 2, rel=1e-9)
    assert found.share_in_r == pytest.approx(energy[r - 1], rel=1e-9)
    assert found.rank_for_share == (len(s) if share == 1 else int(np.argmax(energy >= share)) + 1)


@pytest.mark.parametrize("r", [1, 3])
def test_the_share_is_what_the_best_step_of_that_rank_lowers_the_loss_by(draw_base: Callable[..., Tensor], r: int) -> None:
    """Of all ΔW of rank r and length 1 the one along −G's top r has ⟨G, ΔW⟩ = −√share · ‖G‖; drawn ones do not reach it."""
    g = draw_base(20, 14).double()
    found = weight_gradient("q", g, r=r)
    best = found.share_in_r**0.5 * found.frobenius
    u, s, vh = torch.linalg.svd(g, full_matrices=False)
    step = -(u[:, :r] * s[:r]) @ vh[:r]
    assert -float((g * step).sum() / step.norm()) == pytest.approx(best, rel=1e-6)
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        other = step + 0.3 * step.norm() / 20 * torch.randn(20, r, generator=generator, dtype=torch.float64) @ torch.randn(
            r, 14, generator=generator, dtype=torch.float64
        )
        u, s, vh = torch.linalg.svd(other, full_matrices=False)
        other = (u[:, :r] * s[:r]) @ vh[:r]
        assert -float((g * other).sum() / other.norm()) < best


def test_leading_singular_values_alone_tell_what_they_can(draw_base: Callable[..., Tensor]) -> None:
    g = draw_base(20, 14)
    whole, part = weight_gradient("q", g, r=3, share=0.5), weight_gradient("q", g, r=3, share=0.5, k=1)
    assert (len(part.singular_values), part.is_complete) == (3, False)  # no fewer than r
    assert part.share_in_r == pytest.approx(whole.share_in_r, rel=1e-9)
    assert part.stable_rank == pytest.approx(whole.stable_rank, rel=1e-9)
    assert weight_gradient("q", g, r=1, share=0.999, k=2).rank_for_share is None


def test_a_zero_gradient_asks_for_nothing(draw: Callable[..., LowRank]) -> None:
    found = weight_gradient("q", torch.zeros(8, 6))
    assert (found.frobenius, found.stable_rank, found.share_in_r, found.rank_for_share) == (0.0, None, None, None)
    overlap = gradient_overlap("q", torch.zeros(8, 6), draw(8, 6, 2))
    assert (overlap.input_side, overlap.output_side, overlap.descent_cosine) == (None, None, None)


def test_advice_puts_the_largest_gradient_per_parameter_first_whatever_the_sizes() -> None:
    """A small matrix with large entries comes before a large one with more norm in all."""
    gradients = {"large": torch.full((100, 100), 0.01), "none": torch.zeros(4, 4), "small": torch.full((2, 3), 0.1)}
    advice = rank_advice(gradients, r=2, share=0.95)
    assert [one.name for one in advice] == ["small", "large", "none"]
    assert advice[1].frobenius > advice[0].frobenius
    assert [one.per_parameter for one in advice] == pytest.approx([0.1, 0.01, 0], rel=1e-6)
    assert [(one.r, one.share, one.rank_for_share) for one in advice] == [(2, 0.95, 1), (2, 0.95, 1), (2, 0.95, None)]


@shapes
def test_overlap_with_an_update_is_phi_of_both_sides(
    draw: Callable[..., LowRank], draw_base: Callable[..., Tensor], dense: Callable[..., np.ndarray], shape: tuple[int, int]
) -> None:
    g, delta = draw_base(*shape), draw(*shape, 5)
    found = gradient_overlap("q", g, delta, k=3)
    for side, leading in (("in", found.input_side), ("out", found.output_side)):
        phi = overlap_of("q", LowRank.of_dense(g), delta, side=side).phi[2][2]
        d = {"in": shape[1], "out": shape[0]}[side]
        assert (leading.i, leading.phi, leading.chance) == (3, pytest.approx(phi, rel=1e-8), chance_level(3, 3, d))
    change = dense(delta)
    product = (g.double().numpy() * change).sum() / np.linalg.norm(g.double().numpy()) / np.linalg.norm(change)
    assert found.descent_cosine == pytest.approx(-product, rel=1e-8)


def test_a_step_down_the_gradient_points_where_it_points(draw_base: Callable[..., Tensor]) -> None:
    g = draw_base(20, 14).double()
    down = gradient_overlap("q", g, LowRank.of_dense(-0.1 * g))
    assert (down.descent_cosine, down.input_side.phi, down.output_side.phi) == pytest.approx((1, 1, 1), rel=1e-9)
    assert gradient_overlap("q", g, LowRank.of_dense(0.1 * g)).descent_cosine == pytest.approx(-1, rel=1e-9)


def test_fewer_directions_are_compared_where_there_are_fewer(
    draw: Callable[..., LowRank], draw_base: Callable[..., Tensor]
) -> None:
    assert gradient_overlap("q", draw_base(20, 14), draw(20, 14, 2), k=4).input_side.i == 2
    zero = LowRank(torch.zeros(20, 2, dtype=torch.float64), draw(20, 14, 2).lora_a, 1.0)
    assert gradient_overlap("q", draw_base(20, 14), zero).descent_cosine is None


def test_what_cannot_be_asked_is_refused(draw: Callable[..., LowRank]) -> None:
    g = torch.ones(4, 4)
    with pytest.raises(SpecError, match=r"r parameter of weight_gradient must be an int of at least 1\. Got 0\."):
        weight_gradient("q", g, r=0)
    with pytest.raises(SpecError, match=r"share parameter of weight_gradient must be above 0 and at most 1\. Got 1\.5\."):
        weight_gradient("q", g, share=1.5)
    with pytest.raises(AdapterError, match=r"q must have one shape"):
        gradient_overlap("q", g, draw(8, 6, 2))
