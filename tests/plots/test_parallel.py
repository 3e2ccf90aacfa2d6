"""Axes are the settings that differ, then the score."""

from typing import Any

from lora_lab.metrics import METRICS
from lora_lab.plots.parallel import parallel_coordinates

ROWS: list[dict[str, Any]] = [
    {"method": "lora", "r": 8, "target_modules": "q_proj,v_proj", "learning_rate": 0.005},
    {"method": "lora", "r": 1, "target_modules": "q_proj,v_proj", "learning_rate": 0.005},
    {"method": "bitfit", "r": None, "target_modules": None, "learning_rate": 0.005},
]


def axes(rows: list[dict[str, Any]], scores: list[float | None], metric: str = "accuracy") -> list[Any]:
    fig = parallel_coordinates(rows, scores, METRICS[metric])
    return list(fig.data[0].dimensions) if fig.data else []


def test_an_axis_a_setting_that_differs_and_the_score_last() -> None:
    drawn = axes(ROWS, [0.8, 0.6, 0.3])
    assert [axis.label for axis in drawn] == ["method", "r", "targets", "accuracy"]
    assert list(drawn[-1].values) == [0.8, 0.6, 0.3]


def test_choices_stand_in_order_at_equal_distances_and_a_line_meets_its_own() -> None:
    r = axes(ROWS, [0.8, 0.6, 0.3])[1]
    assert (list(r.tickvals), list(r.ticktext)) == ([0, 1, 2], ["none", "1", "8"])
    assert [r.ticktext[i] for i in r.values] == ["8", "1", "none"]


def test_a_run_without_a_score_has_no_line() -> None:
    drawn = axes(ROWS, [0.8, 0.6, None])
    assert [axis.label for axis in drawn] == ["r", "accuracy"]
    assert len(drawn[0].values) == 2


def test_where_lower_is_better_the_lowest_is_the_darkest() -> None:
    one, other = (parallel_coordinates(ROWS, [0.8, 0.6, 0.3], METRICS[m]).data[0].line for m in ("accuracy", "loss"))
    assert (bool(one.reversescale), bool(other.reversescale)) == (False, True)
    assert one.colorscale == other.colorscale


def test_before_two_runs_differ_the_plot_says_why_it_is_empty() -> None:
    for rows, scores in ((ROWS[:1], [0.5]), ([], []), (ROWS, [None] * 3)):
        fig = parallel_coordinates(rows, scores, METRICS["accuracy"])
        assert not fig.data
        assert "two runs that differ" in fig.layout.annotations[0].text
