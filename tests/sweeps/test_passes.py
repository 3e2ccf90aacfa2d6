"""Who is at work, as the runs' own events tell it."""

from dataclasses import replace

import lora_lab as ll
from lora_lab.events import DoneEvent, StartEvent, StepEvent
from lora_lab.sweeps import RunProgress
from lora_lab.sweeps.passes import passes_of


def a_run(seed: int, *, group: str = "", runs: int = 1, step: int = 0, begun: bool = True, ended: bool = False) -> RunProgress:
    spec = ll.RunSpec(bench="digits", base_sha256="", steps=10, seed=seed)
    progress = RunProgress(spec)
    if begun:
        progress.take(StartEvent(spec.run_id, 10, 8, 0, 100, "cpu", "fp32", group_runs=runs, group_id=group))
    for number in range(1, step + 1):
        progress.take(StepEvent(number, 1.0, 1e-3, 1.0, 0.1))
    if ended:
        progress.take(DoneEvent("diverged", step, "", 1.0, None))
    return progress


def test_runs_of_one_group_are_one_pass_at_its_furthest_step() -> None:
    found = passes_of([a_run(0, group="g", runs=2, step=4), a_run(1, group="g", runs=2, step=3), a_run(2, step=7)])
    assert [(len(one.runs), one.begun, one.step, one.steps) for one in found] == [(2, 2, 4, 10), (1, 1, 7, 10)]
    assert [one.share_done for one in found] == [0.4, 0.7]


def test_runs_that_wait_and_runs_that_have_ended_are_in_no_pass() -> None:
    assert passes_of([a_run(0, begun=False), a_run(1, step=10, ended=True)]) == ()


def test_a_pass_that_lost_a_run_goes_on_with_the_others() -> None:
    (one,) = passes_of([a_run(0, group="g", runs=2, step=4), a_run(1, group="g", runs=2, step=2, ended=True)])
    assert (len(one.runs), one.begun) == (1, 2)


def test_runs_of_no_steps_have_no_share_left_to_do() -> None:
    run = a_run(0)
    run.spec = replace(run.spec, steps=0)
    assert passes_of([run])[0].share_done == 1.0
