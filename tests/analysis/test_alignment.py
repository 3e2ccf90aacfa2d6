"""How alike two ΔW are, against dense matrices and a Procrustes problem that SciPy solves."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.linalg import orthogonal_procrustes

from lora_lab.analysis import cosine, grassmann_distance, likeness, likeness_of, procrustes_similarity, projection_distance
from lora_lab.errors import AdapterError
from lora_lab.lowrank import LowRank

CASES = [(20, 14, 1, 1), (14, 20, 3, 5), (20, 14, 14, 2), (16, 16, 16, 16)]  # (d_out, d_in, r, other r)
cases = pytest.mark.parametrize("case", CASES, ids=str)
Pair = tuple[LowRank, LowRank]


@pytest.fixture
def pair(draw: Callable[..., LowRank]) -> Callable[..., Pair]:
    return lambda d_out, d_in, r, other: (draw(d_out, d_in, r, seed=1), draw(d_out, d_in, other, seed=2, scaling=-3.0))


def balanced(change: np.ndarray, columns: int) -> np.ndarray:
    """[U√S; V√S], by the dense SVD."""
    u, s, vh = np.linalg.svd(change, full_matrices=False)
    return np.concatenate([u, vh.T])[:, :columns] * np.sqrt(s[:columns])


@cases
def test_the_cosine_is_that_of_the_dense_matrices(
    pair: Callable[..., Pair], dense: Callable[..., np.ndarray], case: tuple[int, ...]
) -> None:
    first, second = pair(*case)
    one, other = dense(first).ravel(), dense(second).ravel()
    assert cosine(first, second) == pytest.approx(one @ other / np.linalg.norm(one) / np.linalg.norm(other), rel=1e-8)


@cases
def test_procrustes_is_the_cosine_of_balanced_factors_after_scipy_s_best_rotation(
    pair: Callable[..., Pair], dense: Callable[..., np.ndarray], case: tuple[int, ...]
) -> None:
    first, second = pair(*case)
    columns = max(case[2:])
    z1, z2 = (balanced(dense(delta), columns) for delta in (first, second))
    rotation, _ = orthogonal_procrustes(z2, z1)
    aligned = (z1 * (z2 @ rotation)).sum() / np.linalg.norm(z1) / np.linalg.norm(z2)
    assert procrustes_similarity(first, second) == pytest.approx(aligned, rel=1e-6)


@cases
def test_likeness_has_each_measure_of_both_sides(
    pair: Callable[..., Pair], dense: Callable[..., np.ndarray], case: tuple[int, ...]
) -> None:
    first, second = pair(*case)
    found = likeness_of("q", first, second)
    assert found.cosine == pytest.approx(cosine(first, second), rel=1e-12)
    assert found.procrustes == pytest.approx(procrustes_similarity(first, second), rel=1e-12)
    svds = [np.linalg.svd(dense(delta), full_matrices=False) for delta in (first, second)]
    left = [torch.from_numpy(u[:, : delta.r].copy()) for (u, _, _), delta in zip(svds, (first, second), strict=True)]
    right = [torch.from_numpy(vh[: delta.r].T.copy()) for (_, _, vh), delta in zip(svds, (first, second), strict=True)]
    for side, bases in ((found.output_side, left), (found.input_side, right)):
        assert side.projection == pytest.approx(projection_distance(*bases), rel=1e-6, abs=1e-7)
        assert side.grassmann == pytest.approx(grassmann_distance(*bases), rel=1e-6, abs=1e-7)
        assert (side.i, side.j) == case[2:]


@pytest.mark.parametrize("factor", [1e-3, 1.0, 40.0])
def test_a_positive_multiple_is_the_same_and_a_negative_one_shares_no_factor(draw: Callable[..., LowRank], factor: float) -> None:
    delta = draw(20, 14, 4)
    scaled = LowRank(delta.lora_b, delta.lora_a, factor * delta.scaling)
    turned = LowRank(delta.lora_b, delta.lora_a, -factor * delta.scaling)
    assert (cosine(delta, scaled), procrustes_similarity(delta, scaled)) == pytest.approx((1, 1), abs=1e-12)
    assert (cosine(delta, turned), procrustes_similarity(delta, turned)) == pytest.approx((-1, 0), abs=1e-12)


def test_updates_that_read_and_write_elsewhere_are_not_alike() -> None:
    here, there = (LowRank(torch.eye(8)[:, i : i + 2], torch.eye(6)[i : i + 2], 1.0) for i in (0, 3))
    found = likeness_of("q", here, there)
    assert (found.cosine, found.procrustes) == pytest.approx((0, 0), abs=1e-12)
    assert (found.input_side.projection, found.output_side.projection) == pytest.approx((2**0.5, 2**0.5))


def test_what_is_read_alike_and_written_elsewhere_is_half_alike() -> None:
    here, there = (LowRank(torch.eye(8)[:, i : i + 2], torch.eye(6)[:2], 1.0) for i in (0, 3))
    found = likeness_of("q", here, there)
    assert (found.cosine, found.procrustes) == pytest.approx((0, 0.5), abs=1e-12)
    assert (found.input_side.grassmann, found.output_side.projection) == pytest.approx((0, 2**0.5), abs=1e-12)


@pytest.mark.parametrize("swap", [False, True])
def test_a_zero_update_is_like_nothing(draw: Callable[..., LowRank], swap: bool) -> None:
    delta = draw(20, 14, 4)
    both = [delta, LowRank(torch.zeros_like(delta.lora_b), delta.lora_a, 1.0)]
    first, second = both[::-1] if swap else both
    assert (cosine(first, second), procrustes_similarity(first, second)) == (None, None)
    found = likeness_of("q", first, second)
    assert (found.cosine, found.procrustes, found.input_side, found.output_side) == (None, None, None, None)


def test_what_rounding_left_of_a_difference_is_like_nothing(draw: Callable[..., LowRank]) -> None:
    delta = draw(20, 14, 4)
    assert cosine(delta - delta, delta) is None


def test_adapters_are_compared_by_the_matrices_they_share(draw: Callable[..., LowRank]) -> None:
    first = {name: draw(8, 6, 2, seed=seed) for seed, name in enumerate(("v", "q", "only here"))}
    second = {name: draw(8, 6, 3, seed=seed) for seed, name in enumerate(("q", "only there", "v"), 5)}
    assert likeness(first, second) == tuple(likeness_of(name, first[name], second[name]) for name in ("v", "q"))
    with pytest.raises(AdapterError, match=r"They share none\."):
        likeness(first, {"k": first["v"]})
    for compare in (lambda a, b: likeness_of("q", a, b), procrustes_similarity):
        with pytest.raises(AdapterError, match=r"one shape.* Got \(8, 6\) and \(6, 8\)\."):
            compare(first["q"], draw(6, 8, 2))
