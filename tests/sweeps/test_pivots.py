"""A pivot's cell is of runs that differ in their seed alone, and the shapes are those of the paper's Tables 5 and 6."""

import random
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pandas as pd
import pytest

import lora_lab as ll
from lora_lab.errors import SpecError
from lora_lab.specs import RunSpec
from lora_lab.sweeps import Run
from lora_lab.sweeps.pivots import by_rank, by_targets, pivot, pivot_cells
from lora_lab.sweeps.results import records, results_table

NAMES = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "o_proj"}
DIM, LAYERS = 16, 3  # square matrices, as the paper's tables assume


def a_run(
    roles: str = "qv",
    r: int = 4,
    seed: int = 0,
    *,
    score: float | None = 0.5,
    status: str = "finished",
    names: dict[str, str] = NAMES,
    metrics: dict[str, Any] | None = None,
    **settings: Any,
) -> Run:
    """A run that was never trained: its score is what the test says."""
    tuning = ll.LoraSpec(r=r, target_modules=tuple(names[role] for role in roles), lora_alpha=settings.pop("lora_alpha", 16.0))
    spec = RunSpec(**{"bench": "digits", "base_sha256": "0" * 64, "tuning": tuning, "seed": seed, **settings})
    trained = 2 * LAYERS * DIM * r * len(roles)
    told = {"status": status, "message": "", "step": 7, "metric": "accuracy", "accuracy": score, "loss": 1.5, "base_accuracy": 0.1}
    counts = {"trainable_params": trained + 100, "head_params": 100, "total_params": 10_000, "peak_memory_bytes": None}
    return Run(spec.run_id, spec, {**told, **counts, **(metrics or {})}, Path("runs") / spec.run_id)


def cell(frame: pd.DataFrame, row: dict[str, Any], *column: Any) -> tuple[Any, Any, Any]:
    """Mean, sd and count."""
    found = frame
    for name, value in row.items():
        found = found[found.index.get_level_values(name) == value]
    (one,) = found[column].itertuples(index=False, name=None)
    return one


def grid(rng: random.Random, **settings: Any) -> list[Run]:
    """Targets × ranks × three seeds, each with a score of its own."""
    return [a_run(t, r, seed, score=rng.random(), **settings) for t in ("q", "qv") for r in (1, 2, 8) for seed in range(3)]


def test_a_cell_is_mean_and_sd_over_its_seeds() -> None:
    runs = grid(random.Random(0))
    frame = pivot(results_table(runs), rows=("target_modules",), columns=("r",))
    for targets in ("q_proj", "q_proj,v_proj"):
        for r in (1, 2, 8):
            scores = [run.score() for run in runs if (run.spec.tuning.r, ",".join(run.spec.tuning.targets)) == (r, targets)]
            assert cell(frame, {"target_modules": targets}, r) == (pytest.approx(mean(scores)), pytest.approx(stdev(scores)), 3)


def test_a_single_seed_has_no_spread() -> None:
    frame = pivot(results_table([a_run(score=0.5)]), rows=("bench",), columns=("r",))
    average, sd, count = cell(frame, {"bench": "digits"}, 4)
    assert (average, sd is pd.NA, count) == (0.5, True, 1)


def test_the_order_of_the_runs_changes_nothing_but_the_order_of_the_rows() -> None:
    runs = grid(random.Random(1))
    there = pivot(results_table(runs), rows=("target_modules",), columns=("r",))
    random.Random(2).shuffle(runs)
    back = pivot(results_table(runs), rows=("target_modules",), columns=("r",))
    pd.testing.assert_frame_equal(there.sort_index(), back.sort_index(), rtol=1e-12)


def test_every_finished_run_is_in_one_cell() -> None:
    rng = random.Random(3)
    runs = [*grid(rng), *grid(rng, learning_rate=0.1), *grid(rng, steps=9, lora_alpha=2.0), *grid(rng, bench="reviews")]
    frame = pivot(results_table(runs), rows=("target_modules",), columns=("r",))
    assert pivot_cells(frame)["count"].sum() == len(runs)
    assert set(frame.index.names) == {"target_modules", "learning_rate", "steps", "lora_alpha", "bench"}
    assert (pivot_cells(frame)["count"] == 3).all()


def test_a_run_that_did_not_finish_or_was_not_scored_is_in_no_cell() -> None:
    runs = [
        a_run(score=0.5),
        a_run(seed=1, score=0.9, status="stopped"),
        a_run(seed=2, score=None),
        a_run(seed=3, status="diverged"),
    ]
    frame = pivot(results_table(runs), rows=("bench",), columns=("r",))
    assert cell(frame, {"bench": "digits"}, 4)[::2] == (0.5, 1)


def test_a_second_learning_rate_is_another_row() -> None:
    runs = [a_run(r=r, learning_rate=rate, score=rate) for r in (1, 2) for rate in (0.25, 0.5)]
    frame = pivot(results_table(runs), rows=("target_modules",), columns=("r",))
    assert frame.index.names == ["target_modules", "learning_rate"]
    for rate in (0.25, 0.5):
        assert cell(frame, {"learning_rate": rate}, 2)[::2] == (rate, 1)


def test_an_alpha_that_follows_the_rank_makes_no_second_row() -> None:
    frame = by_rank(results_table([a_run(r=r, seed=seed, lora_alpha=2.0 * r) for r in (1, 2, 4) for seed in (0, 1)]))
    assert len(frame) == 1
    assert "lora_alpha" not in frame.index.names


def test_two_bases_of_one_bench_are_never_one_row() -> None:
    """Even where no cell holds runs on both."""
    runs = [a_run(r=1), a_run(r=2, base_sha256="1" * 64)]
    frame = by_rank(results_table(runs))
    assert len(frame) == 2
    assert "base_sha256" in frame.index.names


def test_cells_of_a_pivot_are_its_frame_the_other_way_about() -> None:
    frame = by_rank(results_table(grid(random.Random(4))))
    cells = pivot_cells(frame)
    assert len(cells) == 6
    for one in records(cells):
        found = cell(frame, {"target_roles": one["target_roles"]}, one["r"])
        assert found == (one["mean"], one["sd"], one["count"])


def test_a_pivot_of_no_runs_is_empty() -> None:
    for frame in (by_rank(results_table([])), by_targets(results_table([])), by_rank(results_table([a_run(score=None)]))):
        assert frame.empty
        assert len(pivot_cells(frame)) == 0


@pytest.mark.parametrize(
    ("named", "sentence"),
    [
        ({"rows": ("nothing",)}, r"key parameter of pivot must be one of run_id, .*\. Got 'nothing'\."),
        (
            {"rows": ("bench",), "value": "status"},
            r"value parameter of pivot must be one of step, .*Got 'status'\.",
        ),
    ],
)
def test_a_key_or_value_that_is_none_is_refused(named: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SpecError, match=sentence):
        pivot(results_table([a_run()]), columns=("r",), **named)


# The shapes of the paper

TABLE_5 = {"q": (8, 70.4), "k": (8, 70.0), "v": (8, 73.0), "o": (8, 73.2), "qk": (4, 71.4), "qv": (4, 73.7), "qkvo": (2, 73.7)}
TABLE_6 = {
    "q": {1: 68.8, 2: 69.6, 4: 70.5, 8: 70.4, 64: 70.0},
    "qv": {1: 73.4, 2: 73.3, 4: 73.7, 8: 73.8, 64: 73.5},
    "qkvo": {1: 74.1, 2: 73.7, 4: 74.0, 8: 74.0, 64: 73.9},
}


def test_table_6_comes_out_in_its_shape() -> None:
    runs = [a_run(roles, r, seed, score=s / 100) for roles, of in TABLE_6.items() for r, s in of.items() for seed in (0, 1)]
    random.Random(5).shuffle(runs)
    frame = by_rank(results_table(runs))
    assert list(dict.fromkeys(r for r, _ in frame.columns)) == [1, 2, 4, 8, 64]
    assert set(frame.index.get_level_values("target_roles")) == {"q", "q,v", "q,k,v,o"}
    for roles, of in TABLE_6.items():
        for r, score in of.items():
            found = cell(frame, {"target_roles": ",".join(roles)}, r)
            assert found == (pytest.approx(score / 100), pytest.approx(0), 2)


def test_table_5_comes_out_in_its_shape_from_every_rank_of_every_choice() -> None:
    """Of all ranks that were trained, those that cost the same."""
    runs = [a_run(t, r, score=TABLE_5[t][1] / 100) for t in ("qkvo", "qv", "qk", "o", "v", "k", "q") for r in (1, 2, 4, 8)]
    frame = by_targets(results_table(runs))
    assert list(dict.fromkeys(column[:2] for column in frame.columns)) == [(",".join(t), r) for t, (r, _) in TABLE_5.items()]
    assert len(frame) == 1
    assert frame.index.get_level_values("adapter_params").tolist() == [2 * LAYERS * DIM * 8]
    for targets, (r, score) in TABLE_5.items():
        assert cell(frame, {"bench": "digits"}, ",".join(targets), r)[0] == pytest.approx(score / 100)


def test_a_budget_may_be_named() -> None:
    runs = [a_run(t, r) for t in ("q", "qv") for r in (1, 2, 4)]
    frame = by_targets(results_table(runs), adapter_params=2 * LAYERS * DIM * 2)
    assert list(dict.fromkeys(column[:2] for column in frame.columns)) == [("q", 2), ("q,v", 1)]


def test_benches_that_name_their_matrices_differently_share_columns() -> None:
    bert = {"q": "query", "v": "value"}
    other = {"bench": "reviews", "base_sha256": "1" * 64, "names": bert}
    runs = [a_run("q", 2), a_run("qv", 1), a_run("q", 2, **other), a_run("qv", 1, **other)]
    frame = by_targets(results_table(runs))
    assert list(dict.fromkeys(column[:2] for column in frame.columns)) == [("q", 2), ("q,v", 1)]
    assert sorted(frame.index.get_level_values("bench")) == ["digits", "reviews"]
    assert frame.notna().sum().sum() == 4 * 2  # mean and count: a single seed has no spread
