"""Random subspaces: orthonormal, uniform, and a matter of their key alone."""

import pytest
import torch

from lora_lab.analysis import chance_level, chance_sd, random_subspace, subspace_similarity


@pytest.mark.parametrize(("dimension", "k"), [(8, 1), (12, 5), (6, 6)])
def test_a_basis_is_orthonormal(dimension: int, k: int) -> None:
    basis = random_subspace(dimension, k, "any")
    torch.testing.assert_close(basis.mT @ basis, torch.eye(k, dtype=torch.float64), rtol=0, atol=1e-12)


def test_a_key_is_a_subspace_and_another_key_another() -> None:
    assert torch.equal(random_subspace(12, 3, "q", 0), random_subspace(12, 3, "q", 0))
    assert not torch.equal(random_subspace(12, 3, "q", 0), random_subspace(12, 3, "q", 1))


def test_the_global_stream_is_neither_used_nor_moved() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        first = random_subspace(12, 3, "q")
        after = torch.rand(3)
        torch.manual_seed(2)
        assert torch.equal(random_subspace(12, 3, "q"), first)
        torch.manual_seed(1)
        assert torch.equal(torch.rand(3), after)


@pytest.mark.parametrize(("k", "dimension"), [(1, 8), (4, 24)])
def test_they_overlap_with_a_fixed_subspace_by_chance(k: int, dimension: int) -> None:
    draws, axes = 2000, torch.eye(dimension, k, dtype=torch.float64)
    phi = torch.tensor([subspace_similarity(axes, random_subspace(dimension, k, draw)) for draw in range(draws)])
    sd = chance_sd(k, k, dimension)
    assert abs(float(phi.mean()) - chance_level(k, k, dimension)) < 4 * sd / draws**0.5
    assert float(phi.std()) == pytest.approx(sd, rel=0.15)
