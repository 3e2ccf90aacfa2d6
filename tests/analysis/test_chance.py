"""Chance levels against draws of random subspaces, and against the exact distribution where it is known."""

from collections.abc import Callable

import pytest
import torch
from scipy.stats import beta
from torch import Tensor

from lora_lab.analysis import chance_level, chance_sd, overlap_of, subspace_similarity
from lora_lab.lowrank import LowRank

CASES = [(1, 1, 16), (1, 6, 24), (2, 5, 16), (4, 4, 32), (8, 8, 12)]


def random_subspaces(n: int, dimension: int, k: int, *, seed: int) -> Tensor:
    gaussian = torch.randn(n, dimension, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.linalg.qr(gaussian)[0]


@pytest.mark.parametrize(("i", "j", "dimension"), CASES)
def test_random_subspaces_overlap_by_the_chance_level_and_spread_by_its_sd(i: int, j: int, dimension: int) -> None:
    draws = 4000
    pairs = zip(random_subspaces(draws, dimension, i, seed=1), random_subspaces(draws, dimension, j, seed=2), strict=True)
    phi = torch.tensor([subspace_similarity(u, v) for u, v in pairs])
    sd = chance_sd(i, j, dimension)
    assert abs(float(phi.mean()) - chance_level(i, j, dimension)) < 4 * sd / draws**0.5  # four standard errors
    assert float(phi.std()) == pytest.approx(sd, rel=0.1)


@pytest.mark.parametrize(("j", "dimension"), [(1, 2), (1, 64), (3, 16), (60, 64)])
def test_for_one_direction_they_are_mean_and_sd_of_the_beta_distribution(j: int, dimension: int) -> None:
    exact = beta(j / 2, (dimension - j) / 2)  # squared length of a random unit vector in j of d coordinates
    assert chance_level(1, j, dimension) == pytest.approx(exact.mean(), rel=1e-12)
    assert chance_sd(1, j, dimension) == pytest.approx(exact.std(), rel=1e-12)


@pytest.mark.parametrize("chance", [chance_level, chance_sd])
def test_chance_is_symmetric(chance: Callable[[int, int, int], float]) -> None:
    assert chance(3, 7, 40) == pytest.approx(chance(7, 3, 40), rel=1e-12)


@pytest.mark.parametrize("i", [1, 5, 12])
def test_a_subspace_against_the_whole_space_is_one_without_spread(i: int) -> None:
    assert (chance_level(i, 12, 12), chance_sd(i, 12, 12)) == (1.0, 0.0)


@pytest.mark.parametrize("r", [1, 4])
def test_unrelated_updates_are_seldom_called_above_chance(r: int) -> None:
    generator = torch.Generator().manual_seed(r)

    def drawn() -> LowRank:
        return LowRank(torch.randn(24, r, generator=generator), torch.randn(r, 64, generator=generator), 1.0)

    alarms = sum(overlap_of("q", drawn(), drawn()).leading().is_above_chance for _ in range(400))
    assert alarms <= 12  # 3 %; the tail at r = 1 has 1 %
