"""A sweep before it starts: counts, bytes, and a time that a real sweep then takes."""

import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import lora_lab as ll
from lora_lab.errors import SpecError
from lora_lab.specs import RunSpec
from lora_lab.sweeps import RunStore, expand
from lora_lab.sweeps.api import run_specs
from lora_lab.sweeps.disk import spectra
from lora_lab.sweeps.estimate import (
    Pace,
    kind_of,
    makespan_s,
    measure_pace,
    measure_paces,
    plan_here,
    plan_sweep,
)
from lora_lab.sweeps.groups import Group, Phase, plan_phases
from lora_lab.sweeps.slots import Slots

PACE = Pace(begin_s=1.0, step_s=0.01, spectra_s=0.0, loss_s=0.5, score_s=0.0, retention_s=0.25)


def planned(**said: Any) -> tuple[RunSpec, ...]:
    return expand(ll.find_bench("digits"), ll.SweepSpec(**{"r": (1, 2, 4), "steps": 100, **said}))


def test_a_plan_counts_what_is_left_to_do() -> None:
    specs = planned(seeds=(0, 1))
    whole = plan_sweep(specs)
    assert (whole.runs, whole.kept, whole.steps, whole.time_s) == (6, 0, 600, None)
    some = plan_sweep(specs, {specs[0].run_id, specs[3].run_id, "another"})
    assert (some.runs, some.kept, some.steps) == (6, 2, 400)
    parts = [plan_sweep([spec]) for spec in specs]
    assert whole.adapter_bytes == sum(part.adapter_bytes for part in parts)
    assert whole.disk_bytes == sum(part.disk_bytes for part in parts) == whole.adapter_bytes + whole.log_bytes
    with_snapshots = plan_sweep(planned(seeds=(0, 1), snapshots=3))
    assert with_snapshots.snapshot_bytes > whole.snapshot_bytes == 0
    assert with_snapshots.disk_bytes == whole.disk_bytes + with_snapshots.snapshot_bytes
    assert json.loads(json.dumps(whole.to_json(), allow_nan=False))["disk_bytes"] == whole.disk_bytes


def test_a_sweep_that_the_store_has_takes_nothing() -> None:
    specs = planned()
    plan = plan_sweep(specs, {spec.run_id for spec in specs}, paces={})
    assert (plan.kept, plan.steps, plan.disk_bytes, plan.passes, plan.time_s) == (3, 0, 0, 0, 0.0)


def test_a_run_takes_its_steps_and_its_looks() -> None:
    (spec,) = planned(r=1)
    assert spec.eval_every_steps == 25
    # base and run on both splits, three evaluations on the way, what was kept before and after
    assert PACE.pass_s([spec]) == pytest.approx(1.0 + 100 * 0.01 + (4 + 3) * 0.5 + 2 * 0.25)
    assert PACE.pass_s([replace(spec, steps=0)]) == pytest.approx(1.0 + 2 * 0.5 + 2 * 0.25)
    assert replace(PACE, spectra_s=0.1).pass_s([spec]) - PACE.pass_s([spec]) == pytest.approx(0.1 * spectra(spec))


def test_answers_are_written_for_whole_scores_alone() -> None:
    (spec,) = planned(r=1)
    assert replace(PACE, score_s=10.0).pass_s([spec]) - PACE.pass_s([spec]) == pytest.approx(4 * 10)


def test_runs_of_a_pass_have_its_steps_and_the_base_in_common_and_their_scores_each() -> None:
    specs = planned(r=(1, 2, 4))
    alone, together = PACE.pass_s(specs[:1]), PACE.pass_s(specs)
    assert together - alone == pytest.approx(2 * (5 * 0.5 + 0.25))  # the run on both splits, thrice on the way, what it kept


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_passes_side_by_side_take_no_less_than_their_share_and_no_less_than_the_longest(workers: int) -> None:
    durations = [3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0]
    whole = makespan_s(durations, workers)
    assert max(max(durations), sum(durations) / workers) <= whole <= sum(durations) / workers + max(durations)
    assert makespan_s(durations, 1) == sum(durations)
    assert makespan_s([2.0] * 5, workers) == 2.0 * math.ceil(5 / workers)


def test_a_plan_has_a_time_where_a_pace_is_known() -> None:
    specs = planned()
    alone = tuple(Group((spec,)) for spec in specs)
    each, together = PACE.pass_s(specs[:1]), Group(specs)
    paces = {kind_of(group): PACE for group in (*alone, together)}
    times = [plan_sweep(specs, phases=[Phase(alone, workers)], paces=paces).time_s for workers in (1, 2, 3)]
    assert times == pytest.approx([3 * each, 2 * each, each])
    both = plan_sweep(specs, phases=[Phase((together,), 1), Phase(alone[:1], 1)], paces=paces)
    assert (both.time_s, both.passes, both.workers) == (pytest.approx(PACE.pass_s(specs) + each), 2, 1)


def test_ranks_targets_and_seeds_go_at_one_pace_and_methods_at_their_own() -> None:
    def kinds(specs: tuple[RunSpec, ...]) -> set[object]:
        return {kind_of(Group((spec,))) for spec in specs}

    alike = planned(seeds=(0, 1), targets=(("q",), ("q", "v")))
    assert len(kinds(alike)) == 1
    different = [*alike, *planned(methods="dora"), *planned(batch_size=4), *planned(optimizer="SGD"), *planned(quant="nf4")]
    assert len(kinds(tuple(different))) == 5
    assert kind_of(Group(alike[:2])) != kind_of(Group(alike[:1]))
    assert kind_of(Group((planned(r=2)[0], planned(methods="rslora", r=2)[0]))) == kind_of(Group(alike[:2]))


def test_a_pace_is_of_real_steps_and_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    groups = [Group(planned(r=(1, 2))), Group(planned(methods="bitfit", r=1))]
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    paces = measure_paces(groups)
    assert set(paces) == {kind_of(group) for group in groups}
    for pace in paces.values():
        assert all(seconds > 0 for seconds in (pace.begin_s, pace.step_s, pace.loss_s, pace.retention_s))
        assert pace.score_s == 0.0
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), state)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.timed
def test_a_larger_batch_takes_longer_a_step() -> None:
    small, large = (measure_pace(Group(planned(r=1, batch_size=size))).step_s for size in (4, 256))
    assert large > 2 * small


def test_a_bench_that_writes_has_its_answers_timed(tiny_llama: Any) -> None:
    bench = ll.find_bench(tiny_llama.base, tiny_llama.data)
    pace = measure_pace(Group(expand(bench, ll.SweepSpec(r=1, steps=2, batch_size=2))))
    assert pace.step_s > 0
    assert pace.loss_s > 0


def test_a_plan_looks_into_the_store_and_makes_none(tmp_path: Path) -> None:
    specs = planned(steps=2, batch_size=2)
    assert plan_here(specs, tmp_path / "runs", runner="inline").kept == 0
    assert not (tmp_path / "runs").exists()
    run_specs(specs[:1], tmp_path / "runs", runner="inline", device=None)
    plan = plan_here(specs, tmp_path / "runs", runner="inline")
    assert (plan.runs, plan.kept, plan.steps, plan.workers) == (3, 1, 4, 1)
    assert len(RunStore(tmp_path / "runs").runs()) == 1


def test_a_plan_is_of_the_passes_that_the_runner_makes(tmp_path: Path) -> None:
    specs = planned(steps=2, batch_size=2, r=(1, 2, 4, 8))
    together = plan_phases(specs, Slots.here(None), grouped=4)
    assert plan_here(specs, tmp_path, runner="inline", grouped=4).passes == sum(len(phase.groups) for phase in together)
    alone = plan_here(specs, tmp_path, runner="inline", grouped="never")
    assert (alone.passes, alone.workers) == (4, 1)


def test_an_unknown_runner_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="runner parameter"):
        plan_here(planned(), tmp_path, runner="carrier-pigeon")


def test_a_runner_whose_machines_are_elsewhere_is_not_timed_here(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"process, inline, whose pace can be timed here. Got 'ray'"):
        plan_here(planned(), tmp_path, runner="ray")


@pytest.mark.timed
@pytest.mark.slow
def test_a_sweep_takes_the_time_that_was_said(tmp_path: Path) -> None:
    specs = planned(methods=("lora", "dora"), r=(1, 2, 4, 8))
    before = plan_here(specs, tmp_path / "before", runner="inline").time_s
    began_s = time.perf_counter()
    run_specs(specs, tmp_path / "runs", runner="inline", device=None)
    taken_s = time.perf_counter() - began_s
    after = plan_here(specs, tmp_path / "after", runner="inline").time_s
    assert before is not None
    assert after is not None
    assert min(before, after) / 2 < taken_s < 2 * max(before, after)
