"""What Optuna proposes, and a search as it knows one."""

import builtins
import logging
import math
from itertools import islice
from typing import Any

import optuna
import pytest
from scipy.stats import kstest

from lora_lab.analysis.search_records import Placed, Rung, SearchRecord
from lora_lab.errors import SpecError
from lora_lab.search_spec import Range, Space
from lora_lab.sweeps.optuna_study import propose, study_of

SPACE: Space = {
    "r": Range(1, 64, log=True),
    "learning_rate": Range(1e-4, 1e-1, log=True),
    "lora_dropout": Range(0, 0.2),
    "lora_alpha": Range(8, 32),
    "targets": (("q", "v"), ("q", "k", "v", "o"), ()),
    "layers_to_transform": ((0, 1), None),
    "batch_size": (4, 8),
}


def points(n: int, *, seed: int = 0, space: Space = SPACE) -> list[dict[str, Any]]:
    return list(islice(propose(space, seed=seed), n))


def test_the_same_seed_proposes_the_same_and_another_does_not() -> None:
    assert points(20, seed=3) == points(20, seed=3)
    assert points(20, seed=3)[:10] == points(10, seed=3)
    assert points(20, seed=3) != points(20, seed=4)


def test_every_point_lies_in_the_space() -> None:
    for point in points(200):
        assert list(point) == list(SPACE)
        for name, dimension in SPACE.items():
            if isinstance(dimension, Range):
                assert dimension.low <= point[name] <= dimension.high
            else:
                assert point[name] in dimension
        assert isinstance(point["r"], int)
        assert isinstance(point["lora_alpha"], float)
    for name in ("targets", "layers_to_transform", "batch_size"):
        assert {point[name] for point in points(200)} == set(SPACE[name])


def test_a_logarithmic_range_is_drawn_evenly_in_its_logarithm_and_a_plain_one_in_itself() -> None:
    many = points(1000, space={"learning_rate": Range(1e-4, 1e-1, log=True), "lora_dropout": Range(0, 0.2)})
    assert kstest([(math.log10(point["learning_rate"]) + 4) / 3 for point in many], "uniform").pvalue > 0.01
    assert kstest([point["lora_dropout"] / 0.2 for point in many], "uniform").pvalue > 0.01


def test_numbers_come_in_few_digits() -> None:
    assert all(float(f"{point['learning_rate']:.4g}") == point["learning_rate"] for point in points(50))


def test_without_optuna_a_sentence_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    importing = builtins.__import__

    def without(name: str, *rest: Any, **options: Any) -> Any:
        if name == "optuna":
            raise ImportError(name)
        return importing(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(SpecError) as refusal:
        next(propose(SPACE, seed=0))
    assert str(refusal.value) == "A search needs Optuna, which is not installed: pip install optuna."


def test_its_log_is_quiet_for_us_and_as_it_was_for_others(caplog: pytest.LogCaptureFixture) -> None:
    before = optuna.logging.get_verbosity()
    with caplog.at_level(logging.DEBUG):
        points(1)
    assert caplog.records == []
    assert optuna.logging.get_verbosity() == before


def record_of(*, metric: str = "accuracy") -> SearchRecord:
    """Four trials: one to the end, one dropped after the first rung, one diverged, one that did not come about on the second."""
    first = Rung(
        10,
        (
            Placed(0, "a0", "finished", 0.5, 1.0, goes_on=True),
            Placed(3, "a3", "finished", 0.4, 1.1, goes_on=True),
            Placed(1, "a1", "finished", 0.3, 1.2),
            Placed(2, "a2", "diverged", None, None),
        ),
    )
    second = Rung(20, (Placed(0, "b0", "finished", 0.8, 0.5), Placed(3, "b3", "lost", None, None)))
    return SearchRecord("digits", metric, tuple(points(4)), (first, second), 2)


@pytest.mark.parametrize(("metric", "direction"), [("accuracy", "MAXIMIZE"), ("loss", "MINIMIZE")])
def test_a_search_is_a_study_of_its_trials(metric: str, direction: str) -> None:
    record = record_of(metric=metric)
    study = study_of(record, SPACE)
    assert study.direction.name == direction
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "PRUNED", "FAIL", "FAIL"]
    assert [trial.intermediate_values for trial in study.trials] == [{10: 0.5, 20: 0.8}, {10: 0.3}, {}, {10: 0.4}]
    assert (study.best_trial.number, study.best_value) == (0, 0.8)
    for trial, point in zip(study.trials, record.points, strict=True):
        assert {name: trial.params[name] for name in ("r", "learning_rate", "batch_size")} == {
            name: point[name] for name in ("r", "learning_rate", "batch_size")
        }


def test_a_search_under_way_has_no_trial_at_its_end() -> None:
    record = record_of()
    begun = SearchRecord("digits", "accuracy", record.points, record.rungs[:1], 2)
    assert "COMPLETE" not in {trial.state.name for trial in study_of(begun, SPACE).trials}
