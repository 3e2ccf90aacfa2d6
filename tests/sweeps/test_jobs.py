"""A sweep in the background, as somebody watching it sees it."""

import os
import subprocess
import sys
import time
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest

import lora_lab as ll
from lora_lab.events import DoneEvent, EvalEvent, SpectrumEvent, StartEvent, Status, StepEvent
from lora_lab.sweeps import Job, RunStore, expand
from lora_lab.sweeps.runners import Tagged

SPECS = [ll.RunSpec(bench="digits", base_sha256="", seed=seed, steps=4) for seed in range(2)]


def done(status: Status = "finished", message: str = "") -> DoneEvent:
    return DoneEvent(status, 4, message, 1.0, None)


def step(number: int) -> StepEvent:
    return StepEvent(number, 1.0, 1e-3, 1.0, 0.1)


def told(*events: Tagged) -> Generator[Tagged, None, None]:
    """A sweep that says these things."""
    yield from events


def short(runs: int, *, steps: int = 3, **settings: object) -> tuple[ll.RunSpec, ...]:
    """Runs that train in a moment."""
    grid = ll.SweepSpec(r=tuple(range(1, runs + 1)), steps=steps, batch_size=2, **settings)
    return expand(ll.find_bench("digits"), grid)


def wait_until(job: Job, steps: int | None = None, *, within_s: float = 30) -> None:
    """Wait for so many steps, or for the end."""
    deadline_s = time.monotonic() + within_s
    while not (job.ended if steps is None else job.steps_done >= steps):
        assert time.monotonic() < deadline_s, f"still {job.state} after {job.steps_done} steps: {job.message}"
        time.sleep(0.02)


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, as a list of one number that tests set."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


# Hand-made sweeps


def test_a_job_begins_waiting_with_every_run_known(store: RunStore) -> None:
    job = Job(SPECS, store)
    assert (job.state, job.message, job.ended) == ("waiting", "", False)
    assert list(job.runs) == [spec.run_id for spec in SPECS]
    assert (job.steps_done, job.total_steps, job.events_seen) == (0, 8, 0)
    assert job.time_left_s is None


def test_every_event_is_taken_into_its_run_and_passed_on(store: RunStore) -> None:
    one, other = (spec.run_id for spec in SPECS)
    start = StartEvent(one, 4, 8, 0, 100, "cpu", "fp32")
    spectrum = SpectrumEvent(1, {"m": (1.0, 0.5)})
    events = [(one, start), (one, EvalEvent(0, 0.1, 2.0, 0.0)), (one, step(1)), (other, step(1)), (one, step(2)), (one, spectrum)]
    job = Job(SPECS, store)
    assert list(job.pump(told(*events))) == events
    run = job.runs[one]
    assert (run.start, run.steps, run.spectrum, run.done) == (start, [step(1), step(2)], spectrum, None)
    assert (run.step, job.runs[other].step) == (2, 1)
    assert (job.steps_done, job.events_seen) == (3, 6)


def test_the_state_follows_the_sweep(store: RunStore) -> None:
    job = Job(SPECS[:1], store)
    run_id = SPECS[0].run_id
    states = [job.state for _ in job.pump(told((run_id, step(1)), (run_id, done())))]
    assert states == ["running", "running"]
    assert (job.state, job.ended, job.message) == ("finished", True, "")


def test_time_left_is_told_at_the_pace_so_far(store: RunStore, clock: list[float]) -> None:
    job = Job(SPECS, store)  # 8 steps in all
    one, other = (spec.run_id for spec in SPECS)
    left = []
    for _ in job.pump(told((one, step(1)), (other, step(1)), (one, step(2)), (one, step(3)))):
        left.append(job.time_left_s)
        clock[0] += 2
    # one step every two seconds: nothing to tell by after the first, then two seconds for each of the 6, 5, 4 left
    assert left == [None, 12.0, 10.0, 8.0]


@pytest.mark.parametrize(("status", "state"), [("failed", "failed"), ("diverged", "finished")])
def test_a_run_that_fails_makes_the_job_say_why(store: RunStore, status: Status, state: str) -> None:
    job = Job(SPECS, store)
    list(job.pump(told((SPECS[0].run_id, done(status, "It is too hot.")), (SPECS[1].run_id, done()))))
    assert (job.state, job.message) == (state, "It is too hot.")


def test_a_job_may_stop_by_closing_what_it_is_told(store: RunStore) -> None:
    closed = []

    def endless() -> Generator[Tagged, None, None]:
        try:
            for number in range(1, 100):
                yield SPECS[0].run_id, step(number)
        finally:
            closed.append(True)

    job = Job(SPECS[:1], store)
    for _ in job.pump(endless(), closes=True):
        if job.steps_done == 3:
            job.stop()
            assert (job.state, job.ended) == ("stopping", False)
    assert closed == [True]
    assert (job.state, job.steps_done) == ("stopped", 3)


def test_a_stop_after_the_end_changes_nothing(store: RunStore) -> None:
    job = Job(SPECS[:1], store)
    list(job.pump(told((SPECS[0].run_id, done()))))
    job.stop()
    assert job.state == "finished"


# Real sweeps, in a thread of this process


def test_a_job_trains_in_the_background(store: RunStore) -> None:
    specs = short(2)
    job = Job(specs, store, runner="inline").start()
    wait_until(job)
    assert (job.state, job.message) == ("finished", "")
    assert (job.steps_done, job.total_steps) == (6, 6)
    assert job.time_left_s == 0
    assert [run.run_id for run in store.find(job.runs)] == [spec.run_id for spec in specs]
    for run in store.runs():
        assert job.runs[run.run_id].done == run.events()[-1]


def test_a_job_shows_runs_that_the_store_had_as_they_ended(store: RunStore) -> None:
    first = Job(short(1), store, runner="inline").start()
    wait_until(first)
    job = Job(short(2), store, runner="inline")
    (run_id,) = first.runs
    assert job.skipped == (run_id,)
    assert job.runs[run_id] == first.runs[run_id]
    assert job.steps_done == 3
    wait_until(job.start())
    assert job.steps_done == job.total_steps == 6
    assert {event.run_id for progress in job.runs.values() if (event := progress.start)} == set(job.runs)


def test_a_stopped_job_keeps_what_was_learned_and_another_finishes_it(store: RunStore) -> None:
    specs = short(2, steps=60)
    job = Job(specs, store, runner="inline").start()
    wait_until(job, steps=5)
    asked_s = time.monotonic()
    job.stop()
    assert time.monotonic() - asked_s < 0.1
    wait_until(job)
    assert job.state == "stopped"
    (stopped,) = store.runs()
    assert (stopped.run_id, stopped.metrics["status"]) == (specs[0].run_id, "stopped")
    assert job.runs[stopped.run_id].done is not None
    assert job.runs[specs[1].run_id].start is None
    again = Job(specs, store, runner="inline")
    assert again.skipped == ()
    assert again.steps_done == 0
    wait_until(again.start())
    assert again.state == "finished"
    assert all(run.metrics["status"] == "finished" for run in store.runs())


def test_a_job_stopped_before_it_starts_trains_nothing(store: RunStore) -> None:
    job = Job(short(1), store, runner="inline")
    job.stop()
    wait_until(job.start())
    assert job.state == "stopped"
    assert store.runs() == []


def test_a_loss_that_diverged_is_said_as_a_sentence(store: RunStore) -> None:
    job = Job(short(1, steps=20, learning_rate=(1e8,)), store, runner="inline").start()
    wait_until(job)
    assert job.state == "finished"
    assert job.message.startswith("The loss became ")
    assert job.message.endswith(": try a smaller learning rate.")


@pytest.mark.parametrize(
    ("change", "runner", "named"),
    [({"base_sha256": "0" * 64}, "inline", "SHA-256"), ({"bench": "nothing"}, "inline", "'nothing'"), ({}, "ray-ban", "runner")],
    ids=["another base", "no such bench", "no such runner"],
)
def test_what_goes_wrong_in_the_background_is_said_as_a_sentence(
    store: RunStore, change: dict[str, str], runner: str, named: str
) -> None:
    (spec,) = short(1)
    job = Job([replace(spec, **change)], store, runner=runner).start()
    wait_until(job)
    assert job.state == "failed"
    assert named in job.message
    assert "\n" not in job.message
    assert job.message[-1] == "."


def test_what_nobody_foresaw_is_said_as_a_sentence_too(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **options: object) -> None:
        raise RuntimeError("out of luck")

    monkeypatch.setattr("lora_lab.training.plain.evaluate", broken)
    job = Job(short(1), store, runner="inline").start()
    wait_until(job)
    assert (job.state, job.message) == ("failed", "Training failed at step 0: RuntimeError: out of luck")
    assert store.runs() == []


def test_waiting_says_whether_the_end_has_come(store: RunStore) -> None:
    job = Job(short(1, steps=50_000), store, runner="inline").start()
    wait_until(job, 3)
    assert not job.wait(0.01)
    job.end()
    assert job.wait()
    assert job.state == "stopped"
    assert {run.metrics["status"] for run in store.runs()} == {"stopped"}


def test_a_job_that_was_never_started_may_be_ended(store: RunStore) -> None:
    job = Job(short(1), store)
    job.end()
    assert job.wait()


@pytest.mark.slow
@pytest.mark.parametrize("runner", ["inline", "process"])
def test_a_process_that_ends_stops_its_job_first(tmp_path: Path, repository: Path, runner: str) -> None:
    code = f"""
import subprocess
import sys
import time
import lora_lab as ll
from lora_lab.sweeps import Job, RunStore, expand
if __name__ == "__main__":
    specs = expand(ll.find_bench("digits"), ll.SweepSpec(r=(1, 2), steps=50_000, batch_size=2))
    job = Job(specs, RunStore({str(tmp_path / "runs")!r}), runner={runner!r}).start()
    while job.steps_done < 60:
        time.sleep(0.02)
"""
    script = tmp_path / "script.py"
    script.write_text(code)
    path = os.pathsep.join(filter(None, [str(repository), os.environ.get("PYTHONPATH")]))
    asked = {"capture_output": True, "text": True, "timeout": 120, "env": {**os.environ, "PYTHONPATH": path}}
    done = subprocess.run([sys.executable, str(script)], check=False, **asked)
    assert (done.returncode, done.stderr) == (0, "")
    assert {run.metrics["status"] for run in RunStore(tmp_path / "runs").runs()} == {"stopped"}
    assert not list((tmp_path / "runs").glob(".draft-*"))
