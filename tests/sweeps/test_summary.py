"""Mean and spread over seeds, from hand-made runs."""

from dataclasses import replace

import numpy as np
import pytest

import lora_lab as ll
from lora_lab.events import DoneEvent, EvalEvent, Status
from lora_lab.sweeps import RunProgress
from lora_lab.sweeps.summary import Cell, best_run, rank_table

SPEC = ll.RunSpec(bench="digits", base_sha256="", tuning=ll.LoraSpec(r=8, target_modules=("q_proj", "v_proj")))


def a_run(spec: ll.RunSpec, accuracy: float, *, status: Status | None = "finished") -> RunProgress:
    """A run that was 0.1 before and `accuracy` at its end; still training if its status is None."""
    done = [DoneEvent(status, 10, "", 1.0, None)] if status else []
    return RunProgress.of(spec, [EvalEvent(0, 0.1, 2.0, 0.0), EvalEvent(10, accuracy, 1.0, 1.0), *done])


def seeds_of(r: int, accuracies: list[float]) -> list[RunProgress]:
    lora = replace(SPEC.tuning, r=r)
    return [a_run(replace(SPEC, tuning=lora, seed=seed), accuracy) for seed, accuracy in enumerate(accuracies)]


def cells(runs: list[RunProgress]) -> list[list[Cell | None]]:
    return [list(row) for _, row in rank_table(runs).rows]


def test_a_cell_is_mean_and_sample_sd_over_seeds() -> None:
    rng = np.random.default_rng(0)
    accuracies = {r: rng.uniform(0.2, 0.9, size=n).tolist() for r, n in ((1, 2), (4, 5))}
    table = rank_table([run for r, values in accuracies.items() for run in seeds_of(r, values)])
    assert table.ranks == (1, 4)
    ((_, row),) = table.rows
    for cell, values in zip(row, accuracies.values(), strict=True):
        assert cell is not None
        assert (cell.mean, cell.sd) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
        assert cell.seeds == len(values)


def test_one_seed_has_no_spread() -> None:
    assert cells(seeds_of(2, [0.5])) == [[Cell(0.5, None, 1)]]


def test_ranks_are_sorted_whatever_came_first() -> None:
    table = rank_table([*seeds_of(8, [0.8]), *seeds_of(1, [0.6]), *seeds_of(4, [0.7])])
    assert table.ranks == (1, 4, 8)
    assert [cell and cell.mean for cell in table.rows[0][1]] == [0.6, 0.7, 0.8]


@pytest.mark.parametrize("status", [None, "stopped", "diverged", "failed"])
def test_a_run_that_did_not_finish_leaves_a_gap(status: Status | None) -> None:
    assert cells([a_run(SPEC, 0.9, status=status)]) == [[None]]


def test_a_combination_that_was_not_trained_leaves_a_gap() -> None:
    other = replace(SPEC, tuning=replace(SPEC.tuning, target_modules=("q_proj",)))
    assert cells([*seeds_of(2, [0.5]), a_run(other, 0.6)]) == [[Cell(0.5, None, 1), None], [None, Cell(0.6, None, 1)]]


OTHERS = {
    "bench": replace(SPEC, bench="digits:inverted"),
    "alpha": replace(SPEC, tuning=replace(SPEC.tuning, lora_alpha=32)),
    "rsLoRA": replace(SPEC, tuning=replace(SPEC.tuning, method="rslora")),
    "targets": replace(SPEC, tuning=replace(SPEC.tuning, target_modules=("q_proj",))),
    "dropout": replace(SPEC, tuning=replace(SPEC.tuning, lora_dropout=0.1)),
    "rate": replace(SPEC, learning_rate=1e-3),
    "steps": replace(SPEC, steps=100),
    "batch": replace(SPEC, batch_size=16),
}


@pytest.mark.parametrize("what", OTHERS)
def test_runs_that_differ_in_more_than_the_seed_are_never_averaged(what: str) -> None:
    table = rank_table([a_run(SPEC, 0.5), a_run(OTHERS[what], 0.7)])
    assert [row for _, row in table.rows] == [(Cell(0.5, None, 1),), (Cell(0.7, None, 1),)]
    assert len({name for name, _ in table.rows}) == 2


def test_the_base_is_the_evaluation_at_step_0() -> None:
    assert rank_table(seeds_of(2, [0.5])).base_score == 0.1
    assert rank_table([RunProgress(SPEC)]).base_score is None


def test_no_runs_make_an_empty_table() -> None:
    table = rank_table([])
    assert (table.ranks, table.rows, table.base_score) == ((), (), None)


def test_where_alpha_follows_the_rank_the_ranks_stand_in_one_row() -> None:
    specs = [replace(SPEC, tuning=replace(SPEC.tuning, r=r, lora_alpha=2 * r)) for r in (1, 4)]
    table = rank_table([a_run(spec, accuracy) for spec, accuracy in zip(specs, (0.5, 0.7), strict=True)])
    assert table.alpha_by_rank
    ((spec, cells),) = table.rows
    assert (spec.tuning.lora_alpha, [cell and cell.mean for cell in cells]) == (2, [0.5, 0.7])


def test_a_method_without_r_has_a_row_of_one_cell_and_no_column() -> None:
    bitfit = [a_run(replace(SPEC, tuning=ll.MethodSpec(method="bitfit"), seed=seed), a) for seed, a in ((0, 0.4), (1, 0.6))]
    table = rank_table([*seeds_of(1, [0.6]), *seeds_of(4, [0.7]), *bitfit])
    assert table.ranks == (1, 4)
    assert [[cell and cell.mean for cell in row] for _, row in table.rows] == [[0.6, 0.7], [pytest.approx(0.5)]]
    assert rank_table(bitfit).ranks == ()


def test_a_method_without_alpha_does_not_keep_the_others_from_standing_in_one_row() -> None:
    lora = [replace(SPEC, tuning=replace(SPEC.tuning, r=r, lora_alpha=2 * r)) for r in (1, 4)]
    vera = [replace(SPEC, tuning=ll.MethodSpec(method="vera", r=r)) for r in (1, 4)]
    table = rank_table([a_run(spec, 0.5) for spec in (*lora, *vera, replace(SPEC, tuning=ll.MethodSpec(method="bitfit")))])
    assert [len([cell for cell in row if cell]) for _, row in table.rows] == [2, 2, 1]


def test_the_best_run_is_the_first_of_the_highest_and_none_where_nothing_was_scored() -> None:
    runs = [*seeds_of(1, [0.6, 0.8]), *seeds_of(4, [0.8, 0.1])]
    assert best_run(runs) is runs[1]
    assert best_run([RunProgress(SPEC)]) is None
