"""Scores over seeds as they were given: a mean with its spread, and every seed behind it."""

import math
from statistics import mean, stdev

import pytest

from lora_lab import plots
from lora_lab.metrics import METRICS
from lora_lab.report.records import ScoreCell

CELLS = (
    ScoreCell("q,v", 8, (0.80, 0.90)),
    ScoreCell("q,v", 1, (0.60, 0.70)),
    ScoreCell("q", 8, (0.50, 0.56)),
    ScoreCell("k", 2, (0.40, None)),  # a seed is missing: no mean
)
ACCURACY = METRICS["accuracy"]


def test_a_line_a_choice_of_targets_in_the_order_of_the_ranks() -> None:
    lines = [trace for trace in plots.scores_by_rank(CELLS, ACCURACY).data if trace.mode == "lines+markers"]
    assert [(line.name, list(line.x), list(line.y)) for line in lines] == [
        ("q, v", [1, 8], [mean((0.60, 0.70)), mean((0.80, 0.90))]),
        ("q", [8], [mean((0.50, 0.56))]),
    ]
    assert list(lines[0].error_y.array) == [stdev((0.60, 0.70)), stdev((0.80, 0.90))]


@pytest.mark.parametrize("draw", [plots.scores_by_rank, plots.scores_by_targets])
def test_every_seed_stands_behind_its_mean_and_a_cell_with_a_gap_is_left_out(draw: object) -> None:
    fig = draw(CELLS, ACCURACY)  # type: ignore[operator]
    seeds = sorted(y for trace in fig.data if trace.mode == "markers" and trace.error_y.array is None for y in trace.y)
    assert seeds == sorted(score for cell in CELLS[:3] for score in cell.scores)


def test_the_ranks_on_the_axis_are_those_that_were_trained() -> None:
    axis = plots.scores_by_rank(CELLS, ACCURACY).layout.xaxis
    assert (axis.type, list(axis.tickvals)) == ("log", [1, 8])
    assert all(math.log2(value).is_integer() for value in axis.tickvals)


def test_a_choice_of_targets_stands_with_its_rank() -> None:
    (means,) = [trace for trace in plots.scores_by_targets(CELLS, ACCURACY).data if trace.error_y.array is not None]
    assert list(means.x) == ["q v · r 8", "q v · r 1", "q · r 8"]
    assert means.mode == "markers"


@pytest.mark.parametrize("draw", [plots.scores_by_rank, plots.scores_by_targets])
def test_the_frozen_base_is_a_line_across(draw: object) -> None:
    fig = draw(CELLS, ACCURACY, base=0.14)  # type: ignore[operator]
    assert [(shape.y0, shape.y1) for shape in fig.layout.shapes] == [(0.14, 0.14)]
    assert [note.text for note in fig.layout.annotations] == ["frozen base 14.0 %"]
    assert not draw(CELLS, ACCURACY).layout.shapes  # type: ignore[operator]


@pytest.mark.parametrize("draw", [plots.scores_by_rank, plots.scores_by_targets])
def test_without_a_score_it_says_so(draw: object) -> None:
    fig = draw(CELLS[3:], ACCURACY)  # type: ignore[operator]
    assert not fig.data
    assert "when a run has ended" in fig.layout.annotations[0].text
