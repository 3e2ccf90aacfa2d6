"""W0, ΔW and their sum are drawn as the record has them, on one scale unless another is asked for."""

from dataclasses import replace

import pytest

from lora_lab.analysis.base_records import MergedMatrix
from lora_lab.plots.merged_matrices import merged_caption, merged_matrix

ONE = MergedMatrix(
    "layers.0.q_proj", (2, 2), 2, 1, 0.8, (1, 1), ((1.0, -3.0), (0.0, 2.0)), ((0.5, 0.0), (0.0, 0.0)), ((1.5, -3.0), (0.0, 2.0))
)
ZERO = replace(ONE, rank=0, kept=0, norm_share=None, delta=((0.0, 0.0), (0.0, 0.0)), merged=ONE.base)


def test_the_three_maps_are_the_three_matrices() -> None:
    fig = merged_matrix(ONE)
    assert [tuple(map(tuple, trace.z)) for trace in fig.data] == [ONE.base, ONE.delta, ONE.merged]
    assert [note.text for note in fig.layout.annotations] == ["W0", "ΔW, 1 of 2 directions", "W0 + ΔW"]


def test_they_share_one_scale_about_zero() -> None:
    fig = merged_matrix(ONE)
    assert {trace.coloraxis for trace in fig.data} == {"coloraxis"}
    assert (fig.layout.coloraxis.cmin, fig.layout.coloraxis.cmax) == (-3.0, 3.0)


def test_a_scale_of_its_own_shows_a_small_change() -> None:
    fig = merged_matrix(ONE, own_scale=True)
    assert [trace.coloraxis for trace in fig.data] == ["coloraxis", "coloraxis2", "coloraxis"]
    assert (fig.layout.coloraxis2.cmin, fig.layout.coloraxis2.cmax) == (-0.5, 0.5)


@pytest.mark.parametrize("own_scale", [False, True])
def test_no_change_is_drawn_and_said(own_scale: bool) -> None:
    fig = merged_matrix(ZERO, own_scale=own_scale)
    assert fig.layout.annotations[1].text == "ΔW = 0"
    assert "no direction" in merged_caption(ZERO)


def test_cells_of_blocks_stand_in_the_middle_of_their_entries() -> None:
    trace = merged_matrix(replace(ONE, shape=(8, 6), block=(4, 3))).data[0]
    assert [trace.y0 + i * trace.dy for i in range(2)] == [2.5, 6.5]  # of rows 1 to 4, and 5 to 8
    assert [trace.x0 + i * trace.dx for i in range(2)] == [2.0, 5.0]


def test_the_sentence_tells_what_is_kept_and_how_it_is_shown() -> None:
    assert merged_caption(ONE) == "layer 0 · q: the strongest direction of 2 holds 80 % of ‖ΔW‖_F (64 % of ‖ΔW‖_F²)."
    assert "the 2 strongest directions of 2 hold 80 %" in merged_caption(replace(ONE, kept=2))
    assert "mean of 4 × 3 entries of the 8 × 6" in merged_caption(replace(ONE, shape=(8, 6), block=(4, 3)))
