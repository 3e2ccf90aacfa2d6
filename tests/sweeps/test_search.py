"""A search: what is drawn, who goes on, what is trained anew; by hand-made runs, and by real ones on the digits."""

import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import lora_lab as ll
from lora_lab.errors import LabError, SpecError
from lora_lab.search_spec import Range, SearchSpec
from lora_lab.sweeps import Job, Run, RunStore
from lora_lab.sweeps.search import SearchPlan, plan_search, run_search, search

SPACE = {"r": Range(1, 32, log=True), "learning_rate": Range(1e-3, 1e-1, log=True), "targets": (("q", "v"), ("q", "k", "v", "o"))}
HALVED = SearchSpec(space=SPACE, trials=9, eta=3, steps=90, confirm=2, confirm_seeds=2, seed=5)
Scored = Callable[[ll.RunSpec], dict[str, Any]]


@pytest.fixture(scope="module")
def plan() -> SearchPlan:
    return plan_search(ll.find_bench("digits"), HALVED)


def a_run(spec: ll.RunSpec, **said: Any) -> Run:
    """A complete run that scored what is said."""
    metrics = {"status": "finished", "metric": "accuracy", "accuracy": 0.5, "test_accuracy": 0.5, "loss": 1.0}
    return Run(spec.run_id, spec, {**metrics, **said}, Path("nowhere"))


def by_rate(spec: ll.RunSpec) -> dict[str, Any]:
    """The lower the learning rate the better; a seed moves it a little."""
    return {"accuracy": 0.9 - spec.learning_rate + 0.001 * spec.seed}


def trained(plan: SearchPlan, scored: Scored) -> list[Run]:
    """What a store would hold at the end: round after round, every run that is wanted scored by the same rule."""
    runs: dict[str, Run] = {}
    while new := [spec for spec in plan.wanted(runs.values()) if spec.run_id not in runs]:
        runs |= {spec.run_id: a_run(spec, **scored(spec)) for spec in new}
    return list(runs.values())


# What is drawn


def test_trials_are_different_runs_and_the_same_for_the_same_seed(plan: SearchPlan) -> None:
    specs = plan.first_round()
    assert len(set(specs)) == len(plan.trials) == 9
    again = plan_search(plan.bench, HALVED)
    assert again.first_round() == specs
    assert set(plan_search(plan.bench, replace(HALVED, seed=6)).first_round()).isdisjoint(specs)


def test_a_trial_is_the_run_that_its_point_describes(plan: SearchPlan) -> None:
    geometry = plan.bench.geometry()
    for trial in plan.trials:
        tuning = ll.MethodSpec(r=trial.point["r"], target_modules=trial.point["targets"])
        for steps, spec in trial.runs.items():
            rate = trial.point["learning_rate"]
            own = ll.plan_run(plan.bench, tuning, geometry=geometry, steps=steps, learning_rate=rate, seed=5)
            assert spec == own  # with a warm-up and evaluations of its own, not those of the whole run


def test_a_search_at_random_is_one_rung_of_whole_runs() -> None:
    plan = plan_search(ll.find_bench("digits"), SearchSpec(space=SPACE, trials=4, confirm=0))
    assert plan.ladder == ((4, plan.bench.defaults.steps),)
    assert len(trained(plan, by_rate)) == 4


def test_what_a_method_has_no_use_for_makes_no_second_trial() -> None:
    space = {"methods": ("bitfit", "lora"), "r": (1, 2)}
    plan = plan_search(ll.find_bench("digits"), SearchSpec(space=space, trials=16))
    assert sorted((spec.tuning.method, spec.tuning.r) for spec in plan.first_round())[1:] == [("lora", 1), ("lora", 2)]
    assert len(plan.trials) == 3


def test_a_space_of_fewer_runs_is_searched_whole_and_halved_as_many() -> None:
    spec = SearchSpec(space={"r": (1, 2, 4, 8)}, trials=30, eta=2, steps=100)
    plan = plan_search(ll.find_bench("digits"), spec)
    assert sorted(trial.point["r"] for trial in plan.trials) == [1, 2, 4, 8]
    assert plan.ladder == ((4, 25), (2, 50), (1, 100))


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        (
            SearchSpec(space={"r": (1, 2)}, trials=9, eta=3),
            "space parameter of SearchSpec must be of at least eta=3 different runs",
        ),
        (SearchSpec(space={"r": (1, 65)}), "r parameter of MethodSpec must be an int in 1..min"),
        (SearchSpec(space={"targets": (("q",), ("typo",))}), "Got 'typo'"),
        (SearchSpec(space=SPACE, eta=4, steps=39), "steps parameter of SearchSpec must be at least 40, for two rungs"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is(spec: SearchSpec, sentence: str) -> None:
    with pytest.raises(SpecError) as refusal:
        plan_search(ll.find_bench("digits"), spec)
    assert sentence in str(refusal.value)


# Who goes on


def test_the_best_of_a_rung_train_anew_for_longer(plan: SearchPlan) -> None:
    assert plan.ladder == ((9, 10), (3, 30), (1, 90))
    record = plan.record(trained(plan, by_rate))
    best_first = sorted(plan.trials, key=lambda trial: trial.point["learning_rate"])
    for rung, (most, steps) in zip(record.rungs, plan.ladder, strict=True):
        assert rung.steps == steps
        assert [one.trial for one in rung.placed] == [trial.number for trial in best_first[:most]]
        assert [one.run_id for one in rung.placed] == [trial.runs[steps].run_id for trial in best_first[:most]]
    assert [one.goes_on for one in record.rungs[0].placed] == [True] * 3 + [False] * 6
    assert record.best is not None
    assert record.best.trial == best_first[0].number


def test_the_test_split_decides_nothing(plan: SearchPlan) -> None:
    def against(spec: ll.RunSpec) -> dict[str, Any]:
        return {**by_rate(spec), "test_accuracy": spec.learning_rate, "test_loss": -spec.learning_rate}

    assert {run.spec for run in trained(plan, against)} == {run.spec for run in trained(plan, by_rate)}


def test_where_scores_are_equal_the_lower_loss_goes_on(plan: SearchPlan) -> None:
    record = plan.record(trained(plan, lambda spec: {"accuracy": 0.5, "loss": spec.learning_rate}))
    rates = [plan.trials[one.trial].point["learning_rate"] for one in record.rungs[1].placed]
    assert rates == sorted(trial.point["learning_rate"] for trial in plan.trials)[:3]


def test_where_a_lower_metric_is_better_the_lowest_goes_on(plan: SearchPlan) -> None:
    record = plan.record(trained(plan, lambda spec: {"metric": "loss", "accuracy": None, "loss": 2 - spec.learning_rate}))
    highest = max(plan.trials, key=lambda trial: trial.point["learning_rate"])
    assert (record.metric_name, record.sign) == ("loss", -1)
    assert record.best is not None
    assert record.best.trial == highest.number


def test_a_run_that_diverged_never_goes_on_whatever_it_had_scored(plan: SearchPlan) -> None:
    rates = sorted(trial.point["learning_rate"] for trial in plan.trials)

    def scored(spec: ll.RunSpec) -> dict[str, Any]:
        return {**by_rate(spec), "status": "diverged" if spec.learning_rate <= rates[6] else "finished"}

    record = plan.record(trained(plan, scored))
    assert [len(rung.placed) for rung in record.rungs] == [9, 2, 1]
    assert {plan.trials[one.trial].point["learning_rate"] for one in record.rungs[1].placed} == set(rates[7:])


def test_where_all_diverge_the_search_ends_without_a_best(plan: SearchPlan) -> None:
    record = plan.record(trained(plan, lambda spec: {"status": "diverged"}))
    assert (len(record.rungs), record.is_settled, record.best, record.confirmed) == (1, False, None, ())


def test_a_rung_waits_for_its_runs_and_not_for_those_that_are_lost(plan: SearchPlan) -> None:
    first = plan.first_round()
    some = [a_run(spec, **by_rate(spec)) for spec in first[:-1]]
    assert plan.wanted(some) == first
    assert [one.fate for one in plan.record(some).rungs[0].placed] == ["finished"] * 8 + ["waiting"]
    lost = {first[-1].run_id}
    assert len(plan.wanted(some, lost)) == 9 + 3
    assert plan.record(some, lost).rungs[0].placed[-1].fate == "lost"


def test_what_is_wanted_grows_and_stays_in_order(plan: SearchPlan) -> None:
    runs = trained(plan, by_rate)
    wanted = [plan.wanted(runs[:n]) for n in range(len(runs) + 1)]
    for fewer, more in pairwise(wanted):
        assert more[: len(fewer)] == fewer
    assert {spec.run_id for spec in wanted[-1]} == {run.run_id for run in runs}


def test_stopped_runs_do_not_count(plan: SearchPlan) -> None:
    stopped = [a_run(spec, status="stopped", accuracy=0.9) for spec in plan.first_round()]
    assert plan.wanted(stopped) == plan.first_round()


# The best again


def test_the_best_are_trained_whole_with_seeds_that_the_search_did_not_use(plan: SearchPlan) -> None:
    runs = trained(plan, by_rate)
    record = plan.record(runs)
    second = record.rungs[1].placed[1].trial  # it was dropped after the second rung, and is whole only now
    assert [row.trial for row in record.confirmed] == [record.rungs[2].placed[0].trial, second]
    for row in record.confirmed:
        assert row.seeds == (6, 7)
        whole = plan.trials[row.trial].runs[90]
        assert row.run_ids == tuple(replace(whole, seed=seed).run_id for seed in (6, 7))
        assert row.scores == pytest.approx([0.9 - whole.learning_rate + 0.001 * seed for seed in (6, 7)])
    assert {run.spec.seed for run in runs} == {5, 6, 7}


def test_a_lucky_seed_is_not_the_best_once_other_seeds_are_asked(plan: SearchPlan) -> None:
    best_first = sorted(plan.trials, key=lambda trial: trial.point["learning_rate"])
    lucky = best_first[0].point["learning_rate"]

    def scored(spec: ll.RunSpec) -> dict[str, Any]:
        return by_rate(spec) if spec.seed == 5 or spec.learning_rate != lucky else {"accuracy": 0.2}

    record = plan.record(trained(plan, scored))
    assert record.rungs[-1].placed[0].trial == best_first[0].number
    assert record.best is not None
    assert record.best.trial == record.confirmed[0].trial == best_first[1].number


def test_nothing_is_confirmed_before_the_last_rung_is_trained(plan: SearchPlan) -> None:
    early = [run for run in trained(plan, by_rate) if run.spec.steps < 90]
    assert plan.record(early).confirmed == ()
    assert len(plan.wanted(early)) == 9 + 3 + 1


def test_a_search_takes_as_many_runs_and_steps_as_it_says_at_most(plan: SearchPlan) -> None:
    most, runs = plan.most_runs(), trained(plan, by_rate)
    assert sorted(spec.steps for spec in most) == sorted(run.spec.steps for run in runs)
    assert len(most) == 9 + 3 + 1 + 2 * 2


# Real ones

TINY = SearchSpec(
    space={"r": (1, 2, 4), "learning_rate": Range(1e-3, 1e-2, log=True)}, trials=4, eta=2, rungs=2, steps=4, confirm=2
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("search")


@pytest.fixture(scope="module")
def found(folder: Path) -> Any:
    return search("digits", TINY, runs=folder, runner="inline")


@pytest.mark.slow
def test_a_search_keeps_its_runs_in_the_store(found: Any, folder: Path) -> None:
    assert [len(rung.placed) for rung in found.record.rungs] == [4, 2]
    assert len(found.runs) == 4 + 2 + 2 * 3
    assert {run.run_id for run in RunStore(folder).runs()} == {run.run_id for run in found.runs}
    assert (found.skipped, found.failed) == ((), {})
    for rung in found.record.rungs:
        for one in rung.placed:
            assert one.score == RunStore(folder).get(one.run_id).metrics["accuracy"]
    assert found.best.spec.steps in (2, 4)
    assert found.best.run_id == found.record.best.run_id


@pytest.mark.slow
def test_the_same_search_again_trains_nothing(found: Any, folder: Path) -> None:
    again = search("digits", TINY, runs=folder, runner="inline")
    assert sorted(again.skipped) == sorted(run.run_id for run in found.runs)
    assert again.record == found.record


@pytest.mark.slow
def test_its_study_has_the_scores_of_the_store(found: Any) -> None:
    study = found.study()
    last = {one.trial: one.score for one in found.record.rungs[-1].placed}
    assert {trial.number: trial.value for trial in study.trials if trial.value is not None} == last
    assert len(study.trials) == 4


@pytest.mark.slow
def test_a_job_that_asks_for_more_is_the_same_search(found: Any, tmp_path: Path) -> None:
    plan = plan_search(ll.find_bench("digits"), TINY)
    store = RunStore(tmp_path)
    job = Job(plan.first_round(), store, runner="inline", more=plan.more()).start()
    deadline_s = time.monotonic() + 120
    while not job.ended:
        assert time.monotonic() < deadline_s, job.message
        time.sleep(0.05)
    assert (job.state, job.message) == ("finished", "")
    assert set(job.runs) == {run.run_id for run in found.runs}
    record = plan.record(store.runs())
    assert [[one.trial for one in rung.placed] for rung in record.rungs] == [
        [one.trial for one in rung.placed] for rung in found.record.rungs
    ]


def test_a_job_goes_on_without_a_run_that_is_lost(plan: SearchPlan) -> None:
    more, first = plan.more(), plan.first_round()
    there = [a_run(spec, **by_rate(spec)) for spec in first[1:]]
    second = [spec for spec in more(there) if spec not in first]
    assert {spec.steps for spec in second} == {30}
    there += [a_run(spec, **by_rate(spec)) for spec in second[1:]]  # and another
    assert {spec.steps for spec in more(there)} == {10, 30, 90}


@pytest.mark.slow
def test_runs_that_fail_are_told_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_search(ll.find_bench("digits"), replace(TINY, confirm=0))
    broken = plan.first_round()[0]
    real = RunStore.begin

    def begin(store: RunStore, spec: ll.RunSpec) -> Any:
        if spec == broken:
            raise LabError("The disk is full.")
        return real(store, spec)

    monkeypatch.setattr(RunStore, "begin", begin)
    found = run_search(plan, tmp_path, runner="inline", device=None)
    assert found.failed == {broken.run_id: "The disk is full."}
    assert [one.fate for one in found.record.rungs[0].placed] == ["finished"] * 3 + ["lost"]
    assert found.record.is_settled
    assert found.best is not None


def test_where_no_run_comes_about_the_reason_is_the_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(store: RunStore, spec: ll.RunSpec) -> Any:
        raise LabError("The disk is full.")

    monkeypatch.setattr(RunStore, "begin", begin)
    with pytest.raises(LabError, match=r"^The disk is full\.$"):
        search("digits", TINY, runs=tmp_path, runner="inline")


def test_an_unknown_runner_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="runner parameter"):
        search("digits", TINY, runs=tmp_path / "runs", runner="carrier-pigeon")
    assert not (tmp_path / "runs").exists()
