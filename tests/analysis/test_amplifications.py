"""Table 7's projections against dense matrices, by hand, and against what random subspaces must give."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lora_lab.analysis import amplification, amplification_factor, amplification_of, expected_on_random
from lora_lab.errors import AdapterError, SpecError
from lora_lab.lowrank import LowRank

CASES = [(20, 14, 1), (14, 20, 3), (20, 14, 14), (16, 16, 16), (600, 520, 4)]


class Base(dict[str, Tensor]):
    """Matrices by name; `asked` are the names that were read, in order."""

    def __init__(self, **matrices: Tensor) -> None:
        super().__init__(matrices)
        self.asked: list[str] = []

    def named(self, name: str) -> Tensor:
        self.asked.append(name)
        return self[name]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_projections_are_those_of_the_dense_matrices(
    draw: Callable[..., LowRank], draw_base: Callable[..., Tensor], dense: Callable[..., np.ndarray], case: tuple[int, int, int]
) -> None:
    delta, w, r = draw(*case), draw_base(*case[:2]), case[2]
    found = amplification_of("q", delta, w)
    change, base = dense(delta), w.double().numpy()
    u, _, vh = np.linalg.svd(change, full_matrices=False)
    on_delta = np.linalg.norm(u[:, :r].T @ base @ vh[:r].T)
    assert found.directions == r
    assert found.on_delta == pytest.approx(on_delta, rel=1e-8)
    assert found.on_base == pytest.approx(np.linalg.norm(np.linalg.svd(base, compute_uv=False)[:r]), rel=1e-8)
    assert found.frobenius == pytest.approx(np.linalg.norm(change), rel=1e-10)
    assert found.base_frobenius == pytest.approx(np.linalg.norm(base), rel=1e-10)
    assert found.factor == pytest.approx(np.linalg.norm(change) / on_delta, rel=1e-8)
    assert found.base_residual < 1e-5


def test_by_hand_on_coordinate_axes() -> None:
    """ΔW reads input 2 and writes output 0; W has 6 there, and 10 and 7 as its strongest."""
    w = torch.diag(torch.tensor([10.0, 7.0, 1.0]))
    w[0, 2] = 6.0
    delta = LowRank(torch.tensor([[1.0], [0.0], [0.0]]), torch.tensor([[0.0, 0.0, 3.0]]), 4.0)
    found = amplification_of("q", delta, w)
    assert (found.frobenius, found.on_delta, found.factor) == (pytest.approx(12), pytest.approx(6), pytest.approx(2))


def test_an_update_along_what_is_strong_in_w_is_amplified_least(draw_base: Callable[..., Tensor]) -> None:
    w = draw_base(24, 18)
    u, s, vh = torch.linalg.svd(w.double(), full_matrices=False)
    along = amplification_of("q", LowRank(u[:, :3], vh[:3], 2.0), w)
    assert along.on_delta == pytest.approx(along.on_base, rel=1e-9)
    assert along.factor == pytest.approx(2 * math.sqrt(3) / float(s[:3].norm()), rel=1e-6)
    across = amplification_of("q", LowRank(u[:, -3:], vh[-3:], 2.0), w)
    assert across.factor == pytest.approx(2 * math.sqrt(3) / float(s[-3:].norm()), rel=1e-6)
    assert along.on_random < along.on_base


def test_nothing_of_w_in_the_directions_of_delta_w_is_no_infinite_factor() -> None:
    w = torch.zeros(6, 5)
    w[0, 0] = 1.0
    found = amplification_of("q", LowRank(torch.eye(6)[:, 1:2], torch.eye(5)[1:2], 1.0), w)
    assert (found.on_delta, found.factor) == (0.0, None)


@pytest.mark.parametrize(("d_out", "d_in", "k"), [(20, 14, 1), (14, 20, 3), (12, 12, 12)])
def test_random_subspaces_give_what_is_expected_of_them(
    draw: Callable[..., LowRank], draw_base: Callable[..., Tensor], d_out: int, d_in: int, k: int
) -> None:
    w, draws = draw_base(d_out, d_in), 500
    squares = torch.tensor([amplification_of("q", draw(d_out, d_in, k), w, draws=1, seed=i).on_random for i in range(draws)]) ** 2
    expected = expected_on_random(float(w.norm()), d_out, d_in, k) ** 2
    error = float(squares.std()) / draws**0.5
    assert abs(float(squares.mean()) - expected) <= 4 * error + 1e-5 * expected


def test_draws_are_summed_up_by_mean_and_sd(draw: Callable[..., LowRank], draw_base: Callable[..., Tensor]) -> None:
    delta, w = draw(20, 14, 3), draw_base(20, 14)
    many, one = amplification_of("q", delta, w, draws=200), amplification_of("q", delta, w, draws=1)
    assert one.on_random_sd is None
    # mean of squares = square of mean + variance, which is near the expected square
    mean_square = many.on_random**2 + many.on_random_sd**2
    assert mean_square == pytest.approx(many.on_random_expected**2, rel=0.15)
    assert many == amplification_of("q", delta, w, draws=200)
    assert many.on_random != amplification_of("q", delta, w, draws=200, seed=1).on_random


def test_a_zero_update_has_no_projection(draw: Callable[..., LowRank], draw_base: Callable[..., Tensor]) -> None:
    delta, w = draw(20, 14, 3), draw_base(20, 14)
    found = amplification_of("q", LowRank(torch.zeros_like(delta.lora_b), delta.lora_a, 1.0), w)
    assert (found.directions, found.frobenius, found.base_frobenius) == (0, 0.0, pytest.approx(float(w.double().norm())))
    assert {found.on_delta, found.on_base, found.on_random, found.on_random_sd, found.on_random_expected, found.factor} == {None}


def test_an_adapter_is_measured_in_its_order_one_matrix_at_a_time(
    draw: Callable[..., LowRank], draw_base: Callable[..., Tensor]
) -> None:
    adapter = {"v": draw(20, 14, 2, seed=1), "q": draw(14, 14, 3, seed=2)}
    base = Base(q=draw_base(14, 14), k=draw_base(14, 14, seed=7), v=draw_base(20, 14))
    found = amplification(adapter, base, draws=2)
    assert [one.name for one in found] == base.asked == ["v", "q"]
    assert found[1] == amplification_of("q", adapter["q"], base["q"], draws=2)


def test_what_cannot_be_measured_is_refused(draw: Callable[..., LowRank], draw_base: Callable[..., Tensor]) -> None:
    with pytest.raises(AdapterError, match=r"q must have one shape in adapter and base\. Got \(20, 14\) and \(14, 20\)\."):
        amplification_of("q", draw(20, 14, 2), draw_base(14, 20))
    with pytest.raises(SpecError, match=r"draws parameter of amplification must be an int of at least 1\. Got 0\."):
        amplification_of("q", draw(20, 14, 2), draw_base(20, 14), draws=0)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_factor_alone_is_the_factor_of_all(draw: Callable[..., LowRank], draw_base: Callable[..., Tensor], case: Any) -> None:
    delta, w = draw(*case), draw_base(*case[:2])
    assert amplification_factor("q", delta, w) == amplification_of("q", delta, w).factor


def test_an_update_of_zero_has_no_factor(draw_base: Callable[..., Tensor]) -> None:
    zero = LowRank(torch.zeros(20, 2), torch.ones(2, 14), 1.0)
    assert amplification_factor("q", zero, draw_base(20, 14)) is None
