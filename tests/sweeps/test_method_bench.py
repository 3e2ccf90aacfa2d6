"""The method bench on made-up runs: what is planned, what is chosen by which split, how a grid grows."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import lora_lab as ll
from lora_lab.analysis.method_records import MethodRow, RateScore
from lora_lab.errors import SpecError
from lora_lab.sweeps import Job, Run, RunStore, expand
from lora_lab.sweeps import method_bench as mb
from lora_lab.sweeps.method_bench import MethodBenchSpec, MethodPlan, best_rate, expected_s, method_table, plan_methods

SMALL = MethodBenchSpec(methods=("lora",), budgets=(2,), seeds=(0, 1), steps=6)
Scored = Callable[[ll.RunSpec], dict[str, Any]]


@pytest.fixture(scope="module")
def plan() -> MethodPlan:
    return plan_methods(ll.find_bench("digits"), SMALL)


def a_run(spec: ll.RunSpec, **said: Any) -> Run:
    """A complete run that scored what is said."""
    metrics = {
        "status": "finished",
        "metric": "accuracy",
        "accuracy": 0.5,
        "test_accuracy": 0.5,
        "base_test_accuracy": 0.1,
        "loss": 1.0,
        "trainable_params": 2048,
        "head_params": 0,
        "step_s": 0.01,
        "wall_s": 6.0,
        "peak_memory_bytes": None,
        "adapter_file_bytes": 10_000,
        "precision": "fp32",
        "forgetting": {"kept": "accuracy", "before": 0.97, "after": 0.2},
    }
    return Run(spec.run_id, spec, {**metrics, **said}, Path("nowhere"))


def trained(plan: MethodPlan, scored: Scored) -> list[Run]:
    """What a store would hold at the end: round after round, every run that is wanted scored by the same rule."""
    runs: dict[str, Run] = {}
    while new := [spec for spec in plan.wanted(runs.values()) if spec.run_id not in runs]:
        runs |= {spec.run_id: a_run(spec, **scored(spec)) for spec in new}
    return list(runs.values())


def peak_at(best: float) -> Scored:
    """Scores that are best at one learning rate, and fall off on either side."""
    return lambda spec: {"accuracy": 0.9 - 0.1 * abs(math.log(spec.learning_rate / best))}


def only(plan: MethodPlan, runs: list[Run]) -> MethodRow:
    (row,) = method_table(plan, runs).rows
    return row


def test_a_method_bench_is_methods_times_budgets_times_rates_times_seeds() -> None:
    spec = MethodBenchSpec(methods=("lora", "bitfit", "adapter"), budgets=(2, 8), seeds=(0, 1, 2))
    specs = plan_methods(ll.find_bench("digits"), spec).first_round()
    assert len(specs) == len(set(specs)) == (2 + 1 + 2) * 3 * 3
    assert {s.tuning.r for s in specs if s.tuning.method == "adapter"} == {2, 8}


def test_every_method_has_rates_of_its_own_around_its_default() -> None:
    bench = ll.find_bench("digits")
    plan = plan_methods(bench, MethodBenchSpec())
    assert {"lora", "full", "bitfit"} < {grid.plan.tuning.method for grid in plan.grids}
    for grid in plan.grids:
        default = bench.defaults.learning_rate * ll.specs.METHODS[grid.plan.tuning.method].lr_factor
        assert grid.rates == pytest.approx((0.3 * default, default, 3 * default))


def test_the_middle_rate_is_the_run_that_a_sweep_would_train(plan: MethodPlan) -> None:
    swept = expand(ll.find_bench("digits"), ll.SweepSpec(r=(2,), seeds=(0, 1), steps=6))
    assert set(swept) < set(plan.first_round())


def test_top_layers_are_budgets_of_the_base() -> None:
    found = plan_methods(ll.find_bench("digits"), MethodBenchSpec(methods=("partial",)))
    assert [grid.r for grid in found.grids] == [1, 2, 4]
    asked = plan_methods(ll.find_bench("digits"), MethodBenchSpec(methods=("partial",), budgets=(2, 32)))
    assert [grid.r for grid in asked.grids] == [2]
    assert "at most the 4 layers" in asked.refused["partial r 32"]


def test_what_the_base_cannot_take_is_left_out_with_its_reason() -> None:
    found = plan_methods(ll.find_bench("digits"), MethodBenchSpec(methods=("lora", "prefix")))
    assert {grid.plan.tuning.method for grid in found.grids} == {"lora"}
    assert "past keys and values" in found.refused["prefix"]


def test_nothing_left_to_compare_is_refused_with_the_reason() -> None:
    with pytest.raises(SpecError, match="past keys and values"):
        plan_methods(ll.find_bench("digits"), MethodBenchSpec(methods=("prefix",)))


@pytest.mark.parametrize(
    ("wrong", "named"),
    [({"seeds": ()}, "seeds"), ({"methods": ("lorra",)}, "methods"), ({"lr_factors": (0.0, 1.0)}, "lr_factors")],
)
def test_a_bad_value_is_refused_at_once(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(SpecError, match=f"The {named} parameter of MethodBenchSpec"):
        MethodBenchSpec(**wrong)


def test_the_rate_is_chosen_by_validation_and_reported_on_test(plan: MethodPlan) -> None:
    low, middle, high = plan.grids[0].rates
    validation, test = {low: 0.5, middle: 0.8, high: 0.6}, {low: 0.9, middle: 0.4, high: 0.95}
    runs = trained(plan, lambda s: {"accuracy": validation[s.learning_rate], "test_accuracy": test[s.learning_rate] + s.seed / 100})
    row = only(plan, runs)
    assert row.learning_rate == middle
    assert row.validation == pytest.approx(0.8)
    assert row.scores == pytest.approx((0.4, 0.41))
    assert row.mean == pytest.approx(0.405)
    assert [rate.validation for rate in row.rates] == pytest.approx([0.5, 0.8, 0.6])


def test_it_is_the_mean_over_the_seeds_that_chooses(plan: MethodPlan) -> None:
    low, middle, high = plan.grids[0].rates
    by_seed = {low: (0.1, 0.1), middle: (0.7, 0.7), high: (0.95, 0.1)}
    runs = trained(plan, lambda s: {"accuracy": by_seed[s.learning_rate][s.seed]})
    assert only(plan, runs).learning_rate == middle


@pytest.mark.parametrize(("best", "extra", "at_edge"), [(0.005, 0, False), (0.045, 2, False), (0.0005, 1, False), (10.0, 2, True)])
def test_a_grid_grows_towards_a_best_rate_at_its_edge(plan: MethodPlan, best: float, extra: int, at_edge: bool) -> None:
    runs = trained(plan, peak_at(best))
    row = only(plan, runs)
    # a best rate that was added is itself an edge, and one more is added beyond it, two at most
    assert len(row.rates) <= 3 + mb.MOST_EXTRA_RATES
    assert row.at_edge is at_edge
    nearest = min(row.rates, key=lambda rate: abs(math.log(rate.learning_rate / best)))
    assert row.learning_rate == nearest.learning_rate
    assert len(runs) == 2 * len(row.rates)
    assert len(row.rates) >= 3 + extra


def test_added_rates_keep_the_grid_s_own_step(plan: MethodPlan) -> None:
    rates = [rate.learning_rate for rate in only(plan, trained(plan, peak_at(10.0))).rates]
    assert rates == pytest.approx([0.0015, 0.005, 0.015, 0.045, 0.135])


def test_a_grid_of_one_rate_does_not_grow_and_is_its_own_edge() -> None:
    one = plan_methods(ll.find_bench("digits"), replace(SMALL, lr_factors=(1.0,)))
    row = only(one, trained(one, peak_at(10.0)))
    assert (len(row.rates), row.at_edge) == (1, True)


def test_a_grid_does_not_grow_before_every_seed_has_tried_every_rate(plan: MethodPlan) -> None:
    runs = [a_run(spec, **peak_at(10.0)(spec)) for spec in plan.first_round()]
    assert len(plan.wanted(runs[:-1])) == len(plan.first_round())
    assert len(plan.wanted(runs)) == len(plan.first_round()) + 2


def test_a_method_is_settled_when_every_seed_has_tried_all_its_rates(plan: MethodPlan) -> None:
    runs = trained(plan, peak_at(10.0))
    assert method_table(plan, runs).unsettled == ()
    assert method_table(plan, runs[:-1]).unsettled == ("lora",)
    assert method_table(plan, runs[:6]).unsettled == ("lora",)  # the rates asked for, and not those that they call for
    assert method_table(plan, []).unsettled == ("lora",)


def test_no_bench_grows_beyond_what_was_said_at_most(plan: MethodPlan) -> None:
    assert len(plan.most_runs()) == len(trained(plan, peak_at(10.0)))


def test_a_rate_at_which_a_seed_diverged_is_the_worst_and_stays_listed(plan: MethodPlan) -> None:
    high = plan.grids[0].rates[-1]

    def scored(spec: ll.RunSpec) -> dict[str, Any]:
        broken = spec.learning_rate == high and spec.seed == 1
        return {"status": "diverged", "accuracy": 0.99} if broken else {"accuracy": 0.99 if spec.learning_rate == high else 0.5}

    row = only(plan, trained(plan, scored))
    assert row.learning_rate < high
    assert row.diverged == ()
    (listed,) = (rate for rate in row.rates if rate.learning_rate == high)
    assert (listed.validation, listed.diverged) == (None, (1,))


def test_a_method_that_diverges_everywhere_has_no_number_and_is_tried_lower(plan: MethodPlan) -> None:
    runs = trained(plan, lambda spec: {"status": "diverged", "accuracy": None, "test_accuracy": 0.3, "loss": None})
    row = only(plan, runs)
    assert row.learning_rate == min(rate.learning_rate for rate in row.rates) < plan.grids[0].rates[0]
    assert (row.scores, row.mean, row.validation, row.diverged) == ((None, None), None, None, (0, 1))


def test_a_stopped_run_is_no_result(plan: MethodPlan) -> None:
    runs = [a_run(spec, status="stopped") for spec in plan.first_round()]
    assert method_table(plan, runs).rows == ()


def test_where_lower_is_better_the_lowest_is_chosen() -> None:
    rates = [RateScore(1e-3, 2.0, 2.0), RateScore(2e-3, 1.0, 1.0), RateScore(3e-3, 3.0, 3.0)]
    assert best_rate(rates, higher_is_better=False).learning_rate == 2e-3


def test_where_a_rate_has_no_score_the_loss_decides() -> None:
    rates = [RateScore(1e-3, 0.9, 2.0), RateScore(2e-3, None, 1.0), RateScore(3e-3, 0.8, 3.0)]
    assert best_rate(rates, higher_is_better=True).learning_rate == 2e-3


def test_a_row_tells_what_its_runs_recorded(plan: MethodPlan) -> None:
    def scored(spec: ll.RunSpec) -> dict[str, Any]:
        kept = {"kept": "accuracy", "before": 0.97, "after": 0.2 + 0.1 * spec.seed}
        return {**peak_at(0.005)(spec), "step_s": 0.01 * (1 + spec.seed), "forgetting": kept, "head_params": 48}

    row = only(plan, trained(plan, scored))
    assert row.step_s == pytest.approx(0.015)
    assert row.after == pytest.approx((0.2, 0.3))
    assert row.changes == pytest.approx((-0.77, -0.67))
    assert (row.adapter_params, row.head_params, row.file_bytes, row.measured_bytes) == (2000, 48, 10_000, None)
    assert row.memory_bytes is not None
    record = row.to_json()
    assert record["forgetting"]["after"] == pytest.approx(0.25)
    assert record["mean"] == row.mean


def test_time_is_told_from_runs_of_the_same_method_and_bench(plan: MethodPlan) -> None:
    specs = plan.first_round()
    assert expected_s(specs, []) is None
    elsewhere = a_run(replace(specs[0], bench="reviews"), wall_s=1e6)
    kept = [a_run(specs[0], wall_s=6.0), elsewhere]  # 6 s for 6 steps
    at_once = mb.runs_at_once(specs, device="cpu")
    assert expected_s(specs, kept, device="cpu") == pytest.approx(6 * len(specs) / at_once)
    in_company = replace(kept[0], metrics={**kept[0].metrics, "group_runs": 8, "wall_s": 1e6})
    assert expected_s(specs, [in_company]) is None
    assert expected_s(specs, [*kept, in_company], device="cpu") == pytest.approx(6 * len(specs) / at_once)


def test_a_job_goes_on_in_rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second round begins where the first has ended, and its runs are the job's own."""
    store = RunStore(tmp_path)
    first, second = (expand(ll.find_bench("digits"), ll.SweepSpec(r=(r,), seeds=(0,), steps=2, batch_size=2)) for r in (1, 2))
    asked: list[int] = []

    def more(runs: Any) -> tuple[ll.RunSpec, ...]:
        asked.append(len(runs))
        return (*first, *second)

    job = Job(first, store, runner="inline", more=more)
    for _ in job.pump(job.rounds(job._sweep)):
        pass
    assert job.state == "finished"
    assert asked == [1, 2]
    assert {run.run_id for run in store.runs()} == {spec.run_id for spec in (*first, *second)}
    assert (job.total_steps, job.steps_done, job.runs_ended) == (4, 4, 2)


def test_a_job_that_is_stopped_asks_for_no_other_round(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    first = expand(ll.find_bench("digits"), ll.SweepSpec(r=(1,), seeds=(0, 1), steps=4, batch_size=2))
    job = Job(first, store, runner="inline", more=lambda runs: pytest.fail("asked for more"))
    for i, _ in enumerate(job.pump(job.rounds(job._sweep))):
        if i == 3:
            job.stop()
    assert job.state == "stopped"
    assert job.runs_ended < 2
