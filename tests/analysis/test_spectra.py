"""How many directions ΔW uses, on spectra whose answer is known."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lora_lab.analysis import effective_rank, energy_curve, participation_ratio, rank_for_energy, spectrum, stable_rank
from lora_lab.lowrank import LowRank


def values(*singular_values: float) -> Tensor:
    return torch.tensor(singular_values, dtype=torch.float64)


def diagonal(*singular_values: float, scaling: float = 1.0) -> LowRank:
    """A (6, 5) update with these singular values times the scaling."""
    k = len(singular_values)
    return LowRank(torch.eye(6, k) * torch.tensor(singular_values), torch.eye(k, 5), scaling)


@pytest.mark.parametrize(
    ("s", "expected"),
    [
        (values(5), 1),
        (values(2, 0, 0), 1),
        (values(3, 3, 3, 3), 4),
        (values(3, 3, 0, 0), 2),
        (values(4, 3), 25 / 16),
    ],
)
def test_stable_rank_is_energy_over_the_strongest(s: Tensor, expected: float) -> None:
    assert stable_rank(s) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("s", "expected"),
    [
        (values(5), 1),
        (values(2, 0, 0), 1),
        (values(3, 3, 3, 3), 4),
        (values(3, 3, 0, 0), 2),
        (values(3, 1), 4 / 3**0.75),  # p = 3/4, 1/4: exp(H) = 4 / 3^(3/4)
        (values(2, 1, 1), 2**1.5),  # H = 1.5 bits
    ],
)
def test_effective_rank_is_the_exponential_of_the_entropy(s: Tensor, expected: float) -> None:
    assert effective_rank(s) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("s", "expected"),
    [
        (values(5), 1),
        (values(2, 0, 0), 1),
        (values(3, 3, 3, 3), 4),
        (values(2, 1), 25 / 17),  # (4 + 1)² / (16 + 1)
    ],
)
def test_participation_ratio_is_the_square_of_the_energy_over_the_energy_of_squares(s: Tensor, expected: float) -> None:
    assert participation_ratio(s) == pytest.approx(expected, rel=1e-12)


MEASURES = [stable_rank, effective_rank, participation_ratio, lambda s: rank_for_energy(s, 0.95)]


@pytest.mark.parametrize("measure", [*MEASURES, energy_curve])
def test_a_zero_update_has_no_number_rather_than_zero(measure: Callable[[Tensor], Any]) -> None:
    assert measure(values(0, 0, 0)) is None


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("factor", [1e-30, 1e30])
def test_ranks_do_not_depend_on_the_size_of_delta_w(measure: Callable[[Tensor], float | None], factor: float) -> None:
    s = values(7, 5, 2, 0.5)
    assert measure(factor * s) == pytest.approx(measure(s), rel=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_ranks_lie_between_one_and_the_number_of_directions(seed: int) -> None:
    s = torch.rand(8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).sort(descending=True).values
    assert 1 < stable_rank(s) < effective_rank(s) < 8  # σ² weighs the strongest more than σ does
    assert stable_rank(s) < participation_ratio(s) < 8


@pytest.mark.parametrize(("share", "expected"), [(0.1, 1), (0.64, 1), (0.65, 2), (0.99, 2), (1.0, 2)])
def test_rank_for_energy_is_the_first_that_reaches_the_share(share: float, expected: int) -> None:
    assert rank_for_energy(values(4, 3, 0), share) == expected  # 16 of 25, then all


def test_energy_grows_to_one() -> None:
    curve = energy_curve(values(3, 2, 1, 0))
    assert curve.tolist() == pytest.approx([9 / 14, 13 / 14, 1, 1], rel=1e-12)


def test_spectrum_of_an_update_is_that_of_its_dense_matrix() -> None:
    generator = torch.Generator().manual_seed(0)
    delta = LowRank(torch.randn(12, 3, generator=generator), torch.randn(3, 8, generator=generator), 0.25)
    (record,) = spectrum({"layer.q": delta})
    s = torch.linalg.svdvals(0.25 * delta.lora_b.double() @ delta.lora_a.double())[:3]
    p = s / s.sum()
    assert (record.name, record.shape, record.r, record.scaling) == ("layer.q", (12, 8), 3, 0.25)
    assert record.singular_values == pytest.approx(s.tolist(), rel=1e-10)
    assert record.frobenius == pytest.approx(math.sqrt(sum(x * x for x in s.tolist())), rel=1e-10)
    assert record.stable_rank == pytest.approx(float((s**2).sum() / s[0] ** 2), rel=1e-10)
    assert record.effective_rank == pytest.approx(math.exp(-sum(x * math.log(x) for x in p.tolist())), rel=1e-10)
    assert record.participation_ratio == pytest.approx(float((s**2).sum() ** 2 / (s**4).sum()), rel=1e-10)
    assert (record.spectral, record.numerical_rank) == (pytest.approx(float(s[0]), rel=1e-10), 3)


def test_spectrum_keeps_the_order_of_the_adapter() -> None:
    records = spectrum({"z": diagonal(1.0), "a": diagonal(9.5, 3.0, 1.0, scaling=3.0), "m": diagonal(0.0, 0.0)})
    assert [record.name for record in records] == ["z", "a", "m"]
    assert records[1].singular_values == pytest.approx((28.5, 9, 3))
    # 90.25 of 100.25 is 90.02 %, 99.25 is 99.002 %
    kept = [(record.rank_for_90, record.rank_for_95, record.rank_for_99) for record in records]
    assert kept == [(1, 1, 1), (1, 2, 2), (None, None, None)]


def test_the_spectrum_of_a_zero_update_is_zeros_and_has_no_rank() -> None:
    (record,) = spectrum({"q": diagonal(0.0, 0.0)})
    assert (record.singular_values, record.frobenius) == ((0.0, 0.0), 0.0)
    assert (record.spectral, record.numerical_rank) == (0.0, 0)
    ranks = (record.stable_rank, record.effective_rank, record.participation_ratio)
    assert {*ranks, record.rank_for_90, record.rank_for_95, record.rank_for_99} == {None}


def test_what_rounding_left_of_a_difference_has_no_rank() -> None:
    generator = torch.Generator().manual_seed(0)
    delta = LowRank(torch.randn(12, 3, generator=generator), torch.randn(3, 8, generator=generator), 0.25)
    (record,) = spectrum({"q": delta - delta})
    assert (record.numerical_rank, record.stable_rank, record.effective_rank, record.rank_for_95) == (0, None, None, None)
