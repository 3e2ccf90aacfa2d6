"""Runs that differ in their seed alone are one configuration; the best mean on the validation split leads, if seeds allow."""

from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest

import lora_lab as ll
from lora_lab.specs import RunSpec
from lora_lab.sweeps import Run
from lora_lab.sweeps import configurations as ranking_module
from lora_lab.sweeps.configurations import rank_configurations


def a_run(r: int, seed: int, score: float | None, *, status: str = "finished", metric: str = "accuracy", **settings: Any) -> Run:
    """A run that was never trained: its scores are what the test says."""
    spec = RunSpec(**{"bench": "digits", "base_sha256": "0" * 64, "tuning": ll.LoraSpec(r=r), "seed": seed, **settings})
    test = None if score is None else score - 0.1
    metrics = {"status": status, "step": 7, "metric": metric, metric: score, f"test_{metric}": test, "trainable_params": 64 * r}
    return Run(spec.run_id, spec, metrics, Path("runs") / spec.run_id)


def runs_of(scores: dict[int, tuple[float, ...]], **settings: Any) -> list[Run]:
    return [a_run(r, seed, score, **settings) for r, of_r in scores.items() for seed, score in enumerate(of_r)]


def test_seeds_of_one_choice_are_one_row_with_their_mean_and_spread() -> None:
    scores = {2: (0.6, 0.7, 0.8), 8: (0.9, 0.7, 0.95)}
    ranking = rank_configurations(runs_of(scores))
    assert [one.row.spec.tuning.r for one in ranking.ranked] == [8, 2]
    for one in ranking.ranked:
        own = scores[one.row.spec.tuning.r]
        assert one.row.seeds == (0, 1, 2)
        assert (one.row.mean, one.row.sd) == pytest.approx((mean(own), stdev(own)))
        assert mean(s for s in one.row.test_scores if s is not None) == pytest.approx(mean(own) - 0.1)


def test_places_that_the_spread_tells_apart_and_places_that_it_does_not() -> None:
    ranking = rank_configurations(runs_of({1: (0.50, 0.51, 0.52), 4: (0.90, 0.91, 0.92), 8: (0.89, 0.91, 0.93)}))
    assert [one.text for one in ranking.ranked] == ["1–2", "1–2", "3"]
    first, second, last = (one.row for one in ranking.ranked)
    apart, near = ranking.between(first, last), ranking.between(second, first)
    assert apart is not None
    assert near is not None
    assert (apart.is_told, near.is_told) == (True, False)


def test_the_lower_is_better_where_the_metric_is_a_loss() -> None:
    ranking = rank_configurations(runs_of({1: (2.0, 2.1), 8: (1.0, 1.1)}, metric="loss"))
    assert ranking.best is not None
    assert ranking.best.spec.tuning.r == 8


def test_one_seed_leaves_every_place_open() -> None:
    assert [one.text for one in rank_configurations(runs_of({1: (0.5,), 8: (0.9,)})).ranked] == ["1–2", "1–2"]


def test_a_configuration_of_which_a_seed_diverged_has_no_mean_and_no_place() -> None:
    runs = [*runs_of({1: (0.5, 0.6)}), a_run(8, 0, 0.9), a_run(8, 1, 0.95, status="diverged")]
    ranking = rank_configurations(runs)
    assert [(one.row.spec.tuning.r, one.text) for one in ranking.ranked] == [(1, "1"), (8, "")]
    assert ranking.ranked[1].row.mean is None


def test_runs_that_are_not_through_count_for_nothing() -> None:
    ranking = rank_configurations([*runs_of({1: (0.5, 0.6)}), a_run(8, 0, 0.9, status="stopped")])
    assert [one.row.spec.tuning.r for one in ranking.ranked] == [1]


def test_only_runs_of_the_last_ones_bench_and_base_are_ranked() -> None:
    others = runs_of({2: (0.99, 0.98)}, bench="digits:noised") + runs_of({4: (0.99,)}, base_sha256="1" * 64)
    assert [one.row.spec.tuning.r for one in rank_configurations([*others, *runs_of({1: (0.5, 0.6)})]).ranked] == [1]


def test_configurations_beyond_the_best_ones_are_listed_without_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking_module, "MOST_COMPARED", 2)
    ranking = rank_configurations(runs_of({r: (0.1 * r, 0.1 * r + 0.01) for r in (1, 2, 4, 8)}))
    assert [(one.row.spec.tuning.r, bool(one.text)) for one in ranking.ranked] == [(8, True), (4, True), (2, False), (1, False)]
    assert len(ranking.pairs) == 1


def test_nothing_is_ranked_where_there_is_nothing() -> None:
    assert (rank_configurations([]).ranked, rank_configurations([]).best) == ((), None)
