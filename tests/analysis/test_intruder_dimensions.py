"""Intruders that were put there are found, and no others; against numpy's SVD of both matrices."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from lora_lab.analysis import direction_map, intruder_map, intruders, intruders_of
from lora_lab.errors import AdapterError, SpecError
from lora_lab.lowrank import LowRank

CASES = [(24, 16, 1), (16, 24, 3), (18, 18, 18)]


def numpy_map(w: np.ndarray, change: np.ndarray) -> np.ndarray:
    u, v = (np.linalg.svd(matrix, full_matrices=False)[0] for matrix in (w + change, w))
    return np.abs(u.T @ v)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.9])
def test_the_map_and_the_count_are_numpy_s(
    draw: Callable[..., LowRank],
    draw_base: Callable[..., Tensor],
    dense: Callable[..., np.ndarray],
    case: tuple[int, int, int],
    threshold: float,
) -> None:
    delta, w = draw(*case), draw_base(*case[:2])
    expected = numpy_map(w.double().numpy(), dense(delta))
    np.testing.assert_allclose(intruder_map("q", delta, w).numpy(), expected, atol=1e-9)
    np.testing.assert_allclose(intruder_map("q", delta, w, k=4).numpy(), expected[:4, :4], atol=1e-9)
    found = intruders_of("q", delta, w, k=6, threshold=threshold)
    np.testing.assert_allclose(found.cosines, expected[:6].max(axis=1), atol=1e-9)
    assert found.counterparts == tuple(expected[:6].argmax(axis=1) + 1)
    assert found.count == int((expected[:6].max(axis=1) < threshold).sum())
    s = np.linalg.svd(w.double().numpy() + dense(delta), compute_uv=False)
    np.testing.assert_allclose(found.singular_values, s[:6], rtol=1e-9)
    assert (found.k, found.against, found.is_complete) == (6, min(case[:2]), True)


def spread_over(u: Tensor) -> Tensor:
    """A unit vector with the same cosine with every column."""
    return u.sum(dim=1, keepdim=True) / u.shape[1] ** 0.5


def test_a_direction_that_w_has_not_is_an_intruder_and_one_that_it_has_is_none(draw_base: Callable[..., Tensor]) -> None:
    w = draw_base(64, 48)
    u, s, vh = torch.linalg.svd(w.double(), full_matrices=False)
    strong = 5 * float(s[0])
    new = LowRank(spread_over(u), spread_over(vh.mT).mT, strong)
    found = intruders_of("q", new, w)
    assert (found.count, found.cosines[0] < 0.5, min(found.cosines[1:]) > 0.5) == (1, True, True)
    lifted = intruders_of("q", LowRank(u[:, 20:21], vh[20:21], strong), w)  # a weak direction of W made its strongest
    assert (lifted.count, lifted.counterparts[:3]) == (0, (21, 1, 2))


def test_signs_of_singular_vectors_are_no_intruders(draw_base: Callable[..., Tensor]) -> None:
    w = draw_base(40, 40)
    generator = torch.Generator().manual_seed(1)
    noise = LowRank(torch.randn(40, 40, generator=generator), torch.randn(40, 40, generator=generator), 1e-7)
    assert intruders_of("q", noise, w, k=20).count == 0
    u = torch.linalg.qr(torch.randn(12, 5, generator=generator, dtype=torch.float64))[0]
    torch.testing.assert_close(direction_map(-u, u), torch.eye(5, dtype=torch.float64), rtol=0, atol=1e-12)


def test_a_zero_update_has_no_intruder_and_leaves_the_diagonal(
    draw: Callable[..., LowRank], draw_base: Callable[..., Tensor]
) -> None:
    delta, w = draw(24, 16, 2), draw_base(24, 16)
    zero = LowRank(torch.zeros_like(delta.lora_b), delta.lora_a, 1.0)
    found = intruders_of("q", zero, w)
    assert (found.count, found.counterparts) == (0, tuple(range(1, 11)))
    torch.testing.assert_close(intruder_map("q", zero, w), torch.eye(16, dtype=torch.float64), rtol=0, atol=1e-9)


def test_against_fewer_directions_of_w_the_count_is_never_lower(
    draw: Callable[..., LowRank], draw_base: Callable[..., Tensor]
) -> None:
    delta, w = draw(64, 48, 4, scaling=0.1), draw_base(64, 48)
    counts = [intruders_of("q", delta, w, against=against) for against in (None, 24, 12, 2)]
    assert [one.count for one in counts] == sorted(one.count for one in counts)
    assert [one.is_complete for one in counts] == [True, False, False, False]
    assert counts[-1].count >= 8  # two directions are the counterpart of about two


def test_of_a_large_matrix_the_leading_ones_are_found_as_by_its_whole_svd(
    draw: Callable[..., LowRank], draw_base: Callable[..., Tensor], dense: Callable[..., np.ndarray]
) -> None:
    delta, w = draw(560, 520, 2, scaling=0.05), draw_base(560, 520)
    found = intruders_of("q", delta, w, k=5, against=8)
    before, after = (torch.linalg.svd(m, full_matrices=False)[0] for m in (w.double(), w.double() + torch.from_numpy(dense(delta))))
    np.testing.assert_allclose(found.cosines, (after[:, :5].mT @ before[:, :8]).abs().amax(dim=1), atol=1e-5)
    assert found.residual < 1e-5
    assert (found.against, found.is_complete) == (8, False)


def test_an_adapter_is_measured_in_its_order(draw: Callable[..., LowRank], draw_base: Callable[..., Tensor]) -> None:
    adapter = {"v": draw(20, 14, 2, seed=1), "q": draw(14, 14, 3, seed=2)}
    matrices = {"q": draw_base(14, 14), "v": draw_base(20, 14)}

    class Base:
        def named(self, name: str) -> Tensor:
            return matrices[name]

    found = intruders(adapter, Base(), k=3, threshold=0.8)
    assert found == tuple(intruders_of(name, adapter[name], matrices[name], k=3, threshold=0.8) for name in ("v", "q"))


def test_what_cannot_be_counted_is_refused(draw: Callable[..., LowRank], draw_base: Callable[..., Tensor]) -> None:
    delta, w = draw(20, 14, 2), draw_base(20, 14)
    with pytest.raises(SpecError, match=r"threshold parameter of intruders must be above 0 and at most 1\. Got 1\.5\."):
        intruders_of("q", delta, w, threshold=1.5)
    with pytest.raises(SpecError, match=r"k parameter of base_spectrum must be an int in 1\.\."):
        intruders_of("q", delta, w, k=0)
    with pytest.raises(AdapterError, match=r"q must have one shape"):
        intruders_of("q", delta, draw_base(14, 20))


@pytest.mark.parametrize("threshold", [0.2, 0.6, 1.0])
def test_the_same_directions_judged_anew_are_those_of_that_threshold(
    draw: Callable[..., LowRank], draw_base: Callable[..., Tensor], threshold: float
) -> None:
    delta, w = draw(24, 16, 3), draw_base(24, 16)
    assert intruders_of("q", delta, w).at(threshold) == intruders_of("q", delta, w, threshold=threshold)
