"""Runs become the cells of Tables 5 and 6, without a plan: what a notebook asks of a sweep of its own."""

from statistics import mean
from typing import Any

import pytest

import lora_lab as ll
from tests.sweeps.test_pivots import a_run


def scored(roles: str, r: int, seed: int, score: float, **changes: Any) -> ll.Run:
    """A run that was never trained, with a test score."""
    return a_run(roles, r, seed, metrics={"test_accuracy": score, "base_test_accuracy": 0.1, **changes})


def test_a_cell_is_a_choice_of_targets_and_rank_with_the_test_score_of_every_seed() -> None:
    runs = [scored("qv", r, seed, 0.5 + r / 10 + seed / 100) for r in (1, 4) for seed in (0, 1)]
    table = ll.report.score_table(runs)
    assert [(cell.targets, cell.r) for cell in table.cells] == [("q,v", 1), ("q,v", 4)]
    assert table.cells[1].mean == pytest.approx(mean((0.90, 0.91)))
    assert (table.metric_name, table.base) == ("accuracy", 0.1)


def test_a_run_that_diverged_leaves_a_gap_and_one_that_was_stopped_is_none() -> None:
    runs = [scored("q", 1, 0, 0.5), scored("q", 1, 1, 0.5, status="diverged"), scored("v", 1, 0, 0.5, status="stopped")]
    (cell,) = ll.report.score_table(runs).cells
    assert (cell.scores, cell.mean) == ((0.5, None), None)


def test_the_papers_accuracies_stand_in_the_rows_that_it_has() -> None:
    runs = [scored("qv", r, seed, 0.5 + seed / 100) for r in (1, 32) for seed in (0, 1)]
    frame = ll.report.ranks_table(ll.report.score_table(runs), "digits").frame()
    assert frame.index.name == "matrices"
    assert list(frame["WikiSQL, %"]) == ["73.4", ""]  # the paper has no r = 32
    assert list(frame["digits: accuracy, %"]) == ["50.5 ± 0.7 (2)"] * 2


def test_findings_are_told_of_a_table_alone() -> None:
    runs = [scored("qv", r, seed, {1: 0.5, 8: 0.9}[r] + seed / 100) for r in (1, 8) for seed in (0, 1, 2)]
    table = ll.report.score_table(runs)
    assert ll.report.ranks_finding(table).verdict == "does not agree"
    assert ll.report.targets_finding(table).verdict == "cannot be told"  # q and k alone are not there
