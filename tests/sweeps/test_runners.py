"""Runners: both give the same runs, nothing is trained twice, and stopping keeps what was learned."""

import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

import lora_lab as ll
from lora_lab.errors import SpecError
from lora_lab.events import DoneEvent, EvalEvent, Event, SpectrumEvent, StartEvent, StepEvent
from lora_lab.sweeps import Run, RunStore, crew, expand, record_run, sweep_events
from lora_lab.sweeps.draft import Draft
from lora_lab.sweeps.runners import LOCAL_RUNNERS, Tagged

pytestmark = pytest.mark.slow  # the worker processes import torch once, for all tests here

RUNNERS = tuple(LOCAL_RUNNERS)  # what a cluster does is in test_ray_runner.py
LONG = ll.SweepSpec(r=(1, 2, 4), steps=5000, batch_size=4)  # minutes: never trained to the end here


def specs_of(grid: ll.SweepSpec) -> tuple[ll.RunSpec, ...]:
    return expand(ll.find_bench("digits"), grid)


def file_of(run: Run) -> bytes:
    return (run.adapter_dir / "adapter_model.safetensors").read_bytes()


def by_run(said: list[Tagged]) -> dict[str, list[Event]]:
    """Each run's own events, in their order."""
    return {run_id: [event for i, event in said if i == run_id] for run_id in dict.fromkeys(i for i, _ in said)}


def assert_no_worker_is_left(within_s: float = 10) -> None:
    deadline_s = time.monotonic() + within_s
    while multiprocessing.active_children() and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert multiprocessing.active_children() == []


def until_all_step(events: Iterator[Tagged], runs: int, steps: int) -> list[Tagged]:
    """What is said until so many runs have done so many steps."""
    said: list[Tagged] = []
    there: set[str] = set()
    for run_id, event in events:
        said.append((run_id, event))
        if isinstance(event, StepEvent) and event.step >= steps:
            there.add(run_id)
        if len(there) == runs:
            return said
    raise AssertionError(f"only {len(there)} of {runs} runs came to step {steps}")


@pytest.fixture(scope="module")
def specs() -> tuple[ll.RunSpec, ...]:
    """Three short runs: one more than there may be workers on two cores."""
    return specs_of(ll.SweepSpec(r=(1, 2, 4), steps=12, batch_size=8))


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunStore]:
    return {runner: RunStore(tmp_path_factory.mktemp(runner)) for runner in RUNNERS}


@pytest.fixture(scope="module")
def said(specs: tuple[ll.RunSpec, ...], stores: dict[str, RunStore]) -> dict[str, list[Tagged]]:
    """The same sweep by every runner."""
    return {runner: list(sweep_events(specs, store, runner=runner)) for runner, store in stores.items()}


def test_every_runner_gives_the_same_adapters_bit_for_bit(
    specs: tuple[ll.RunSpec, ...], stores: dict[str, RunStore], said: dict[str, list[Tagged]]
) -> None:
    ids = [spec.run_id for spec in specs]
    found = {runner: store.find(ids) for runner, store in stores.items()}
    for one, other in zip(found["process"], found["inline"], strict=True):
        assert one.metrics["status"] == other.metrics["status"] == "finished"
        assert file_of(one) == file_of(other)
    assert len({file_of(run) for run in found["process"]}) == len(specs)


def test_a_run_swept_alone_is_the_run_of_the_grid_to_rounding(
    specs: tuple[ll.RunSpec, ...], stores: dict[str, RunStore], said: dict[str, list[Tagged]], tmp_path: Path
) -> None:
    """In company it is padded and adds up in another order."""
    store = RunStore(tmp_path)
    list(sweep_events(specs[1:2], store, runner="process"))
    alone, of_grid = store.get(specs[1].run_id).adapter(), stores["process"].get(specs[1].run_id).adapter()
    for name, delta in alone.items():
        assert (delta.dense() - of_grid[name].dense()).norm() < 1e-4 * delta.dense().norm()


def test_a_run_that_never_shares_a_pass_is_the_same_in_any_grid_bit_for_bit(specs: tuple[ll.RunSpec, ...], tmp_path: Path) -> None:
    alone, of_grid = RunStore(tmp_path / "alone"), RunStore(tmp_path / "grid")
    list(sweep_events(specs[1:2], alone, runner="inline"))
    list(sweep_events(specs, of_grid, runner="process", grouped="never"))
    assert file_of(alone.get(specs[1].run_id)) == file_of(of_grid.get(specs[1].run_id))


@pytest.mark.parametrize("runner", RUNNERS)
def test_every_run_says_the_same_whoever_trains_it(
    specs: tuple[ll.RunSpec, ...], said: dict[str, list[Tagged]], runner: str
) -> None:
    told = by_run(said[runner])
    assert told.keys() == {spec.run_id for spec in specs}
    for run_id, events in told.items():
        assert isinstance(events[0], StartEvent)
        assert [type(event) for event in events].count(DoneEvent) == 1
        assert isinstance(events[-1], DoneEvent)
        assert [e.loss for e in events if isinstance(e, StepEvent | EvalEvent)] == [
            e.loss for e in by_run(said["inline"])[run_id] if isinstance(e, StepEvent | EvalEvent)
        ]


@pytest.mark.parametrize("runner", RUNNERS)
def test_the_store_keeps_what_was_said(stores: dict[str, RunStore], said: dict[str, list[Tagged]], runner: str) -> None:
    for run_id, events in by_run(said[runner]).items():
        assert stores[runner].get(run_id).events() == events


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_second_sweep_trains_nothing(
    specs: tuple[ll.RunSpec, ...], stores: dict[str, RunStore], said: dict[str, list[Tagged]], runner: str
) -> None:
    before = stores[runner].runs()
    assert list(sweep_events(specs, stores[runner], runner=runner)) == []
    assert stores[runner].runs() == before


def test_workers_go_home(said: dict[str, list[Tagged]]) -> None:
    assert_no_worker_is_left()


def test_a_run_is_in_the_store_before_its_done_is_heard(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    specs = specs_of(ll.SweepSpec(r=(1, 2), steps=1, batch_size=2))
    heard = 0
    for run_id, event in sweep_events(specs, store, runner="inline"):
        if isinstance(event, DoneEvent):
            heard += 1
            assert store.is_complete(run_id)
    assert heard == 2


@pytest.mark.parametrize(("runner", "device"), [("ray-ban", None), ("process", "tpu"), ("inline", "tpu")])
def test_an_unknown_runner_or_device_is_refused_at_the_call(tmp_path: Path, runner: str, device: str | None) -> None:
    with pytest.raises(SpecError):
        sweep_events([], RunStore(tmp_path), runner=runner, device=device)


# Stopping


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_stop_ends_the_sweep_within_the_grace_time_and_keeps_what_was_learned(
    tmp_path: Path, runner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "GRACE_S", 120.0)  # as much as a busy machine may need
    store, stop = RunStore(tmp_path), threading.Event()
    events = sweep_events(specs_of(LONG), store, runner=runner, stop=stop)
    begun = by_run(until_all_step(events, 1 if runner == "inline" else 3, 5))
    stop.set()
    asked_s = time.monotonic()
    rest = by_run(list(events))
    assert time.monotonic() - asked_s < crew.GRACE_S
    assert rest.keys() <= begun.keys()
    assert {run.run_id for run in store.runs()} == begun.keys()
    for run in store.runs():
        (done,) = [event for event in rest[run.run_id] if isinstance(event, DoneEvent)]
        assert done.status == run.metrics["status"] == "stopped"
        assert run.metrics["step"] >= 5
        assert all(delta.numerical_rank > 0 for delta in run.adapter().values())
        assert not run.is_complete
    assert_no_worker_is_left()


@pytest.mark.parametrize("runner", RUNNERS)
def test_closing_the_generator_leaves_no_process_and_keeps_what_was_learned(tmp_path: Path, runner: str) -> None:
    store = RunStore(tmp_path)
    events = sweep_events(specs_of(LONG), store, runner=runner)
    begun = by_run(until_all_step(events, 1, 5))
    events.close()
    assert_no_worker_is_left()
    learned = {run_id for run_id, events in begun.items() if any(isinstance(e, StepEvent) and e.step >= 5 for e in events)}
    kept = {run.run_id: run.metrics["status"] for run in store.runs()}
    assert learned <= kept.keys()
    assert set(kept.values()) == {"stopped"}
    assert list(tmp_path.glob(".draft-*")) == []


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no process can be frozen here")
def test_a_worker_that_does_not_stop_in_time_is_killed_and_its_snapshot_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "GRACE_S", 0.5)
    store, stop = RunStore(tmp_path), threading.Event()
    (spec,) = specs_of(ll.SweepSpec(r=(2,), steps=400, batch_size=4))  # scored, and saved, every 100 steps
    events = sweep_events([spec], store, runner="process", stop=stop)
    until_all_step(events, 1, spec.eval_every_steps + 5)
    (worker,) = multiprocessing.active_children()
    os.kill(worker.pid, signal.SIGSTOP)
    stop.set()
    ((run_id, done),) = [(i, event) for i, event in events if isinstance(event, DoneEvent)]
    assert (run_id, done.status) == (spec.run_id, "stopped")
    run = store.get(spec.run_id)
    assert run.metrics["status"] == "stopped"
    assert run.metrics["step"] in range(spec.eval_every_steps, spec.steps, spec.eval_every_steps)
    assert all(delta.numerical_rank > 0 for delta in run.adapter().values())
    assert_no_worker_is_left()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_worker_that_dies_while_the_sweep_stops_has_stopped_and_not_failed(tmp_path: Path) -> None:
    store, stop = RunStore(tmp_path), threading.Event()
    events = sweep_events(specs_of(LONG), store, runner="process", stop=stop)
    begun = by_run(until_all_step(events, 3, 5))
    workers = multiprocessing.active_children()
    for worker in workers:
        os.kill(worker.pid, signal.SIGSTOP)  # none comes to its end before it dies
    stop.set()
    death = threading.Timer(0.5, lambda: [os.kill(worker.pid, signal.SIGKILL) for worker in workers])
    death.start()
    ends = by_run([(run_id, event) for run_id, event in events if isinstance(event, DoneEvent)])
    death.join()
    assert {run_id: [done.status for done in dones] for run_id, dones in ends.items()} == {run_id: ["stopped"] for run_id in begun}
    assert_no_worker_is_left()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_stop_between_two_tries_ends_every_run_that_had_begun(tmp_path: Path) -> None:
    """Those too that wait for another worker, as theirs has died."""
    store, stop, said = RunStore(tmp_path), threading.Event(), []
    events = sweep_events(specs_of(LONG), store, runner="process", stop=stop)
    for _ in range(2):  # the second time each is left to be tried alone
        said += until_all_step(events, 3, 5)
        for worker in multiprocessing.active_children():
            os.kill(worker.pid, signal.SIGKILL)
    for tagged in events:
        said.append(tagged)
        if isinstance(tagged[1], StepEvent):
            stop.set()
    for told in by_run(said).values():
        (done,) = [event for event in told if isinstance(event, DoneEvent)]
        assert done is told[-1]
        assert done.status == "stopped"
    assert len(by_run(said)) == 3
    assert_no_worker_is_left()


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_stop_on_the_last_word_of_a_run_leaves_that_run_finished(tmp_path: Path, runner: str) -> None:
    store, stop = RunStore(tmp_path), threading.Event()
    said = []
    for run_id, event in sweep_events(specs_of(ll.SweepSpec(r=(1,), steps=2, batch_size=2)), store, runner=runner, stop=stop):
        said.append((run_id, event))
        if isinstance(event, DoneEvent):
            stop.set()
    assert [event.status for _, event in said if isinstance(event, DoneEvent)] == ["finished"]


@pytest.mark.parametrize("at", [StartEvent, EvalEvent, SpectrumEvent])
def test_a_run_stopped_before_its_first_step_leaves_nothing(tmp_path: Path, at: type[Event]) -> None:
    store = RunStore(tmp_path)
    events = record_run(specs_of(LONG)[0], store)
    while not isinstance(next(events), at):
        pass
    events.close()
    assert store.runs() == []
    assert not [path for path in tmp_path.iterdir() if path.is_dir() or path.name.startswith(".claim-")]


def test_a_stopped_run_is_trained_again_to_its_end(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    specs = specs_of(ll.SweepSpec(r=(2,), steps=8, batch_size=4))
    first = sweep_events(specs, store, runner="inline")
    until_all_step(first, 1, 3)
    first.close()
    assert store.get(specs[0].run_id).metrics["status"] == "stopped"
    again = [event for _, event in sweep_events(specs, store, runner="inline")]
    assert isinstance(again[0], StartEvent)
    run = store.get(specs[0].run_id)
    assert (run.metrics["status"], run.metrics["step"]) == ("finished", 8)
    whole = RunStore(tmp_path / "elsewhere")
    list(sweep_events(specs, whole, runner="inline"))
    assert file_of(run) == file_of(whole.get(run.run_id))


# Two sweeps at once


class Watched(NamedTuple):
    """A sweep in a thread, and what it has said so far."""

    thread: threading.Thread
    said: list[Tagged]

    def until(self, what: Callable[[], bool], within_s: float = 60) -> None:
        deadline_s = time.monotonic() + within_s
        while not what():
            assert time.monotonic() < deadline_s, "it did not happen"
            time.sleep(0.02)

    def dones(self) -> dict[str, DoneEvent]:
        return {run_id: event for run_id, event in list(self.said) if isinstance(event, DoneEvent)}


def watched(events: Iterator[Tagged]) -> Watched:
    said: list[Tagged] = []
    thread = threading.Thread(target=lambda: said.extend(events))
    thread.start()
    return Watched(thread, said)


@pytest.fixture(params=RUNNERS)
def beside_another(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[RunStore, Draft, Watched]]:
    """A sweep of two runs, one of which somebody else has in hand; it has come to the end of its own."""
    theirs, ours = specs_of(ll.SweepSpec(r=(1, 2), steps=4, batch_size=4))
    store, stop = RunStore(tmp_path), threading.Event()
    draft = store.begin(theirs)
    sweep = watched(sweep_events([theirs, ours], store, runner=request.param, stop=stop))
    sweep.until(lambda: store.is_complete(ours.run_id))
    time.sleep(1.5)  # and it would have begun with the other by now
    yield store, draft, sweep
    stop.set()
    sweep.thread.join(60)
    assert not sweep.thread.is_alive()


def test_a_run_that_another_sweep_completes_is_waited_for_and_told(
    beside_another: tuple[RunStore, Draft, Watched], tmp_path_factory: pytest.TempPathFactory
) -> None:
    _, draft, sweep = beside_another
    elsewhere = RunStore(tmp_path_factory.mktemp("elsewhere"))
    list(sweep_events([draft.spec], elsewhere, runner="inline"))
    run = elsewhere.get(draft.spec.run_id)
    for event in run.events():
        draft.record(event)
    shutil.copytree(run.adapter_dir, draft.folder / "adapter")
    draft.commit()
    sweep.until(lambda: not sweep.thread.is_alive())
    assert by_run(sweep.said)[run.run_id] == run.events()
    assert len(by_run(sweep.said)) == 2


def test_a_run_that_another_sweep_leaves_unfinished_is_trained_here(beside_another: tuple[RunStore, Draft, Watched]) -> None:
    store, draft, sweep = beside_another
    assert draft.spec.run_id not in by_run(sweep.said)
    draft.discard()
    sweep.until(lambda: not sweep.thread.is_alive())
    assert {done.status for done in sweep.dones().values()} == {"finished"}
    assert store.complete_ids() == sweep.dones().keys()
    assert len(sweep.dones()) == 2


def test_a_sweep_that_waits_for_another_can_be_stopped(beside_another: tuple[RunStore, Draft, Watched]) -> None:
    """As the fixture does in the end."""
    store, draft, sweep = beside_another
    assert sweep.thread.is_alive()
    assert store.is_claimed(draft.spec.run_id)


def test_a_watcher_that_fails_leaves_no_run_claimed(tmp_path: Path) -> None:
    """Even where somebody keeps the error, as an interactive shell does: the next sweep would wait for ever."""

    def fail(spec: ll.RunSpec, event: Event) -> None:
        if isinstance(event, StepEvent):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as kept:
        ll.train("digits", ll.LoraSpec(r=1), steps=50, runs=tmp_path, watch=fail)
    assert kept.value.__traceback__ is not None
    assert not list(tmp_path.glob(".claim-*"))
    assert [run.metrics["status"] for run in RunStore(tmp_path).runs()] == ["stopped"]


# Failing


def test_a_run_that_fails_in_a_worker_is_one_sentence_and_the_others_go_on(tmp_path: Path) -> None:
    good = specs_of(ll.SweepSpec(r=(1,), steps=2, batch_size=2))[0]
    bad = ll.RunSpec(bench="digits", base_sha256="0" * 64, tuning=good.tuning, steps=2)
    store = RunStore(tmp_path)
    said = by_run(list(sweep_events([bad, good], store, runner="process")))
    (done,) = said[bad.run_id]
    assert isinstance(done, DoneEvent)
    assert done.status == "failed"
    assert "must have SHA-256" in done.message
    assert done.message.endswith(".")
    assert [run.run_id for run in store.runs()] == [good.run_id]
    assert list(tmp_path.glob(".draft-*")) == []


def test_a_run_that_fails_in_this_process_is_a_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    bad = ll.RunSpec(bench="digits", base_sha256="0" * 64, tuning=ll.LoraSpec(target_modules=("q_proj",)))
    ((_, done),) = sweep_events([bad], RunStore(tmp_path), runner="inline")
    assert (done.status, "must have SHA-256" in done.message) == ("failed", True)
    assert not [path for path in tmp_path.iterdir() if path.is_dir() or path.name.startswith(".claim-")]


def test_threads_that_hire_at_once_leave_the_callers_main_in_its_place() -> None:
    main, inside = sys.modules["__main__"], threading.Barrier(4, timeout=0.3)

    def hire(order: int) -> None:
        with crew._main_left_alone():
            with suppress(threading.BrokenBarrierError):
                inside.wait()  # all of them are in it at once, or each waits outside for its turn
            time.sleep(0.05 * order)  # and then the first to come is the first to go

    threads = [threading.Thread(target=hire, args=(order,)) for order in range(4)]
    for thread in threads:
        thread.start()
        time.sleep(0.02)
    for thread in threads:
        thread.join()
    assert sys.modules["__main__"] is main
