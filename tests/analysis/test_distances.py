"""Distances of subspaces against projectors, SciPy's angles and angles that were built in."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles
from torch import Tensor

from lora_lab.analysis import (
    closeness,
    control_closeness,
    grassmann_distance,
    projection_distance,
    random_subspace,
    subspace_similarity,
)

PAIRS = [(1, 1), (3, 3), (2, 5), (5, 2), (7, 7)]
pairs = pytest.mark.parametrize(("i", "j"), PAIRS)


@pairs
def test_the_projection_distance_is_the_paper_s_and_that_of_the_projectors(i: int, j: int) -> None:
    u, v = random_subspace(16, i, "u"), random_subspace(16, j, "v")
    found = projection_distance(u, v)
    p = min(i, j)
    assert found == pytest.approx(math.sqrt(p - float(np.linalg.norm(u.numpy().T @ v.numpy()) ** 2)), rel=1e-9)
    assert found == pytest.approx(math.sqrt(p * (1 - subspace_similarity(u, v))), rel=1e-9)
    if i == j:
        difference = u.numpy() @ u.numpy().T - v.numpy() @ v.numpy().T
        assert found == pytest.approx(np.linalg.norm(difference) / math.sqrt(2), rel=1e-9)


@pairs
def test_the_grassmann_distance_is_the_norm_of_scipy_s_angles(i: int, j: int) -> None:
    u, v = random_subspace(16, i, "u"), random_subspace(16, j, "v")
    assert grassmann_distance(u, v) == pytest.approx(np.linalg.norm(subspace_angles(u.numpy(), v.numpy())), rel=1e-9)


def turned(theta: Tensor) -> tuple[Tensor, Tensor]:
    """Two subspaces of R^12 with these angles between them."""
    basis, k = random_subspace(12, 12, "basis"), len(theta)
    return basis[:, :k], basis[:, :k] * theta.cos() + basis[:, 6 : 6 + k] * theta.sin()


@pytest.mark.parametrize("angles", [(1e-9, 2e-9), (0.3, 0.4), (0.0, math.pi / 2), (0.1, 0.7, 1.5)])
def test_built_in_angles_come_back_as_distances_however_small(angles: tuple[float, ...]) -> None:
    theta = torch.tensor(angles, dtype=torch.float64)
    u, v = turned(theta)
    assert grassmann_distance(u, v) == pytest.approx(float(theta.norm()), rel=1e-6)
    assert projection_distance(u, v) == pytest.approx(float(theta.sin().norm()), rel=1e-6)


@pairs
def test_distances_are_symmetric_and_do_not_ask_for_a_basis(i: int, j: int) -> None:
    u, v, mix = random_subspace(16, i, "u"), random_subspace(16, j, "v"), random_subspace(i, i, "mix")
    for distance in (grassmann_distance, projection_distance):
        assert distance(v, u) == pytest.approx(distance(u, v), rel=1e-12)
        assert distance(-u @ mix, v) == pytest.approx(distance(u, v), rel=1e-9)


def test_a_subspace_of_the_other_is_at_no_distance_and_an_orthogonal_one_at_the_largest() -> None:
    basis = random_subspace(12, 12, "basis")
    inside = closeness(basis[:, :2], basis[:, :5])
    assert (inside.projection, inside.grassmann) == pytest.approx((0, 0), abs=1e-12)
    across = closeness(basis[:, :3], basis[:, 4:7])
    assert (across.projection, across.grassmann) == pytest.approx((math.sqrt(3), math.sqrt(3) * math.pi / 2))


@pytest.mark.parametrize(("i", "j", "d"), [(1, 1, 8), (2, 5, 16), (4, 4, 6)])
def test_random_subspaces_are_as_far_apart_as_chance_says(i: int, j: int, d: int) -> None:
    draws = 1000
    found = [closeness(random_subspace(d, i, "u", n), random_subspace(d, j, "v", n)) for n in range(draws)]
    squares = np.array([one.projection**2 for one in found])
    assert abs(squares.mean() - found[0].chance_projection ** 2) < 4 * squares.std() / draws**0.5
    assert (found[0].i, found[0].j, found[0].dimension) == (i, j, d)


def test_without_a_direction_there_is_no_distance() -> None:
    nothing = torch.zeros(12, 0, dtype=torch.float64)
    assert closeness(nothing, random_subspace(12, 3, "v")) is None
    assert closeness(random_subspace(12, 3, "v"), nothing) is None


@pairs
def test_closeness_has_the_angles_that_both_distances_come_from(i: int, j: int) -> None:
    u, v = random_subspace(16, i, "u"), random_subspace(16, j, "v")
    found = closeness(u, v)
    np.testing.assert_allclose(found.angles_rad, sorted(subspace_angles(u.numpy(), v.numpy())), atol=1e-7)
    assert found.grassmann == pytest.approx(math.hypot(*found.angles_rad))
    assert found.projection == pytest.approx(math.hypot(*map(math.sin, found.angles_rad)))


def test_the_control_is_as_far_apart_as_chance_says_and_the_same_for_one_key() -> None:
    found = [control_closeness(3, 5, 40, draw) for draw in range(200)]
    assert {(one.i, one.j, one.dimension) for one in found} == {(3, 5, 40)}
    assert control_closeness(3, 5, 40, 7) == found[7] != found[8]
    mean_square = sum(one.projection**2 for one in found) / 200
    assert mean_square == pytest.approx(found[0].chance_projection ** 2, rel=0.03)
    assert control_closeness(0, 5, 40) is None
