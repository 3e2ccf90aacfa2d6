"""The plot of reach draws both errors by rank, and its caption says what is left at full rank."""

import math
from dataclasses import replace

import pytest

from lora_lab import plots
from lora_lab.analysis.records import Reach, ReachPoint

RECORD = Reach(
    bench="digits",
    matrix="fc1",
    shape=(160, 64),
    seed=0,
    change_share=0.1,
    change_singular_values=(0.2, 0.1),
    activations=22100,
    activations_rank=64,
    logits_change=0.01,
    points=(
        ReachPoint(1, 224, 0.72, 0.7, 0.8, 38),
        ReachPoint(8, 1792, 0.332, 0.331, 0.34, 900),
        ReachPoint(64, 14336, 1.2e-8, 0.0, 2e-8, 540),
    ),
)


def test_points_are_what_training_reached_and_the_line_the_best_of_the_rank() -> None:
    best, reached = plots.reach_curve(RECORD).data
    assert (best.mode, tuple(best.x), tuple(best.y)) == ("lines", (1, 8, 64), (0.7, 0.331, None))
    assert (reached.mode, tuple(reached.y)) == ("markers", (0.72, 0.332, 1.2e-8))
    assert best.line.color == plots.PALETTE["W0"]
    assert tuple(reached.marker.color) == tuple(plots.rank_colour(r) for r in (1, 8, 64))


def test_the_hover_tells_the_parameters() -> None:
    _, reached = plots.reach_curve(RECORD).data
    assert [text.split("<br>")[0] for text in reached.customdata] == [
        "r 1: 224 parameters",
        "r 8: 1,792 parameters",
        "r 64: 14,336 parameters",
    ]
    assert "0.332 (best 0.331)" in reached.customdata[1]
    assert reached.customdata[1].endswith("held-out logits: 0.34")


def test_both_axes_are_logarithmic_and_titled() -> None:
    layout = plots.reach_curve(RECORD).layout
    assert (layout.xaxis.type, layout.yaxis.type) == ("log", "log")
    assert (layout.xaxis.title.text, layout.yaxis.title.text) == ("rank r", "‖(s·B·A − Δ*) X‖ / ‖Δ* X‖")
    assert tuple(layout.xaxis.ticktext) == ("1", "8", "64")


def test_full_rank_is_marked_with_a_dotted_line_and_its_name() -> None:
    layout = plots.reach_curve(RECORD).layout
    assert [(shape.x0, shape.x1, shape.line.dash) for shape in layout.shapes] == [(64, 64, "dot")]
    (name,) = layout.annotations
    assert (name.text, name.x) == ("r = min(d_out, d_in) = 64", pytest.approx(math.log10(64)))


def test_a_record_without_points_says_so() -> None:
    empty = replace(RECORD, points=())
    fig = plots.reach_curve(empty)
    assert (len(fig.data), fig.layout.annotations[0].text) == (0, "No rank was fitted.")
    assert plots.reach_caption(empty) == ""


BELOW = "At r = 8 LoRA leaves 33.2 % of what Δ* does to the outputs, the best matrix of that rank 33.1 %"
TRAINS = "LoRA trains r(d_in + d_out) = 14,336 parameters where the matrix has d_in · d_out = 10,240"


def test_the_caption_tells_what_is_left_and_what_full_rank_costs() -> None:
    assert plots.reach_caption(RECORD) == f"{BELOW}; at r = min(160, 64) = 64 nothing is left (1.2e-08), and {TRAINS}."


def test_the_caption_does_not_say_nothing_where_something_is_left() -> None:
    points = (*RECORD.points[:2], replace(RECORD.points[2], error=0.004))
    assert plots.reach_caption(replace(RECORD, points=points)).endswith(f"= 64 0.4 % is left, and {TRAINS}.")


def test_the_caption_is_of_the_ranks_that_were_fitted() -> None:
    assert plots.reach_caption(replace(RECORD, points=RECORD.points[:2])) == f"{BELOW}."
    alone = plots.reach_caption(replace(RECORD, points=RECORD.points[2:]))
    assert alone == f"At r = min(160, 64) = 64 nothing is left (1.2e-08), and {TRAINS}."
