"""What is shown of W, ΔW and W + ΔW is those matrices, or the means of their blocks, and the best part of ΔW."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import Tensor

from lora_lab.analysis import merged_matrix, with_kept
from lora_lab.errors import AdapterError, SpecError
from lora_lab.lowrank import LowRank

Array = NDArray[np.float64]


def block_means(x: Array, rows: int, columns: int) -> Array:
    """One by one."""
    cells = [[x[i : i + rows, j : j + columns].mean() for j in range(0, x.shape[1], columns)] for i in range(0, x.shape[0], rows)]
    return np.array(cells)


def test_a_small_matrix_is_shown_entry_by_entry(
    draw: Callable[..., LowRank], draw_base: Callable[..., Tensor], dense: Callable[[LowRank], Array]
) -> None:
    delta, w = draw(12, 20, 3), draw_base(12, 20)
    one = merged_matrix("q", delta, w)
    assert (one.block, one.is_averaged, one.rank, one.kept) == ((1, 1), False, 3, 3)
    np.testing.assert_array_equal(one.base, w.double().numpy())
    np.testing.assert_allclose(one.delta, dense(delta), atol=1e-12)
    np.testing.assert_allclose(one.merged, w.double().numpy() + dense(delta), atol=1e-12)
    assert one.norm_share == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(("shape", "block"), [((64, 16), (8, 2)), ((70, 9), (9, 2)), ((5, 33), (1, 5))])
def test_a_large_one_in_means_of_blocks(
    shape: tuple[int, int],
    block: tuple[int, int],
    draw: Callable[..., LowRank],
    draw_base: Callable[..., Tensor],
    dense: Callable[[LowRank], Array],
) -> None:
    delta, w = draw(*shape, 2), draw_base(*shape)
    one = merged_matrix("q", delta, w, most_cells=8)
    assert one.block == block
    assert one.is_averaged
    w0, change = w.double().numpy(), dense(delta)
    for shown, whole in ((one.base, w0), (one.delta, change), (one.merged, w0 + change)):
        np.testing.assert_allclose(shown, block_means(whole, *block), atol=1e-12)
        assert max(np.shape(shown)) <= 8


@pytest.mark.parametrize("kept", [0, 1, 2, 3, 4])
def test_what_is_kept_is_the_best_part_by_numpys_svd(
    kept: int, draw: Callable[..., LowRank], draw_base: Callable[..., Tensor], dense: Callable[[LowRank], Array]
) -> None:
    delta, w = draw(10, 14, 4), draw_base(10, 14)
    one = merged_matrix("q", delta, w, kept=kept)
    u, s, vh = np.linalg.svd(dense(delta), full_matrices=False)
    np.testing.assert_allclose(one.delta, (u[:, :kept] * s[:kept]) @ vh[:kept], atol=1e-12)
    assert one.norm_share == pytest.approx(np.linalg.norm(s[:kept]) / np.linalg.norm(s), abs=1e-12)
    assert with_kept(merged_matrix("q", delta, w), delta, kept) == one


def test_a_change_that_is_zero_leaves_w_as_it_is(draw: Callable[..., LowRank], draw_base: Callable[..., Tensor]) -> None:
    one = merged_matrix("q", draw(6, 6, 2, scaling=0.0), draw_base(6, 6))
    assert (one.rank, one.kept, one.norm_share) == (0, 0, None)
    assert one.merged == one.base
    assert not any(map(any, one.delta))


def test_more_than_there_is_and_another_shape_are_refused(draw: Callable[..., LowRank], draw_base: Callable[..., Tensor]) -> None:
    delta, w = draw(6, 6, 2), draw_base(6, 6)
    for kept in (-1, 3):
        with pytest.raises(SpecError, match=rf"an int in 0\.\.2\. Got {kept}"):
            merged_matrix("q", delta, w, kept=kept)
        with pytest.raises(SpecError, match="kept"):
            with_kept(merged_matrix("q", delta, w), delta, kept)
    with pytest.raises(AdapterError, match="one shape"):
        merged_matrix("q", delta, w.mT[:5])
