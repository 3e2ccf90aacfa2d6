"""What a worker does with a group: one pass for all, each run alone where that fails, and nothing left behind however it ends."""

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

import lora_lab as ll
from lora_lab.adapters import saved_step
from lora_lab.errors import StoreError
from lora_lab.events import DoneEvent, Event, StartEvent, StepEvent
from lora_lab.specs import RunSpec
from lora_lab.sweeps import RunStore, expand, worker
from lora_lab.sweeps.draft import Draft
from lora_lab.sweeps.groups import Group
from lora_lab.sweeps.worker import Tagged, record_group, record_or_fail, work
from lora_lab.training.grouped import GroupedEngine
from lora_lab.training.plain import PlainEngine

pytestmark = pytest.mark.slow

ENGINES = (GroupedEngine, PlainEngine)


def group_of(steps: int, *, runs: int = 3) -> Group:
    grid = ll.SweepSpec(r=tuple(range(1, runs + 1)), steps=steps, batch_size=4)
    return Group(expand(ll.find_bench("digits"), grid), threads=1)


def ids_of(group: Group) -> list[str]:
    return [spec.run_id for spec in group.specs]


def by_run(said: list[Tagged]) -> dict[str, list[Event]]:
    return {run_id: [event for i, event in said if i == run_id] for run_id in dict.fromkeys(i for i, _ in said)}


def begun(events: list[Event]) -> int:
    """How often the run has begun."""
    return sum(isinstance(event, StartEvent) for event in events)


def until(events: Iterator[Tagged], run_id: str, step: int) -> list[Tagged]:
    """What is said until the run has taken the step."""
    said = []
    for tagged in events:
        said.append(tagged)
        if tagged[0] == run_id and isinstance(tagged[1], StepEvent) and tagged[1].step == step:
            return said
    raise AssertionError("it never came to that step")


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path)


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
    """`fails(run_id, step)`: whatever trains this run breaks in that step."""

    def arrange(run_id: str, at_step: int) -> None:
        for engine in ENGINES:
            backward = engine.backward

            def broken(self: object, step: int, backward: Callable[..., object] = backward) -> object:
                if step == at_step and run_id in [spec.run_id for spec in self.specs]:
                    raise RuntimeError("out of luck")
                return backward(self, step)

            monkeypatch.setattr(engine, "backward", broken)

    return arrange


def assert_nothing_else(store: RunStore) -> None:
    """No draft, no claim, nothing half removed."""
    names = {path.name for path in store.root.iterdir() if not path.name.startswith("index.sqlite")}
    assert names - {".claims"} == {run.run_id for run in store.runs()}


# To the end


def test_a_group_is_trained_in_one_pass_and_kept_as_it_was_said(store: RunStore) -> None:
    group = group_of(4)
    said = by_run(list(record_group(group, store)))
    assert said.keys() == set(ids_of(group))
    for run in store.runs():
        assert (run.metrics["status"], run.metrics["group_runs"]) == ("finished", 3)
        assert run.events() == said[run.run_id]
    assert_nothing_else(store)


def test_nothing_is_said_of_a_run_that_another_has_in_hand(store: RunStore) -> None:
    group = group_of(4)
    first, elsewhere, last = ids_of(group)
    draft = RunStore(store.root).begin(group.specs[1])
    assert draft is not None
    assert by_run(list(record_group(group, store))).keys() == {first, last}
    assert store.is_claimed(elsewhere)
    assert {run.run_id: run.metrics["group_runs"] for run in store.runs()} == {first: 2, last: 2}
    draft.discard()
    assert_nothing_else(store)


def test_a_group_that_is_all_in_the_store_says_nothing(store: RunStore) -> None:
    group = group_of(1)
    list(record_group(group, store))
    assert list(record_group(group, store)) == []


def test_parts_that_fit_the_memory_go_one_after_the_other(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    group = group_of(2)
    monkeypatch.setattr(worker, "affordable", lambda group, *of, device: [Group(group.specs[:2]), Group(group.specs[2:])])
    said = list(record_or_fail(group, store))
    assert [i for i, event in said if isinstance(event, DoneEvent)] == ids_of(group)
    assert [run.metrics["group_runs"] for run in store.find(ids_of(group))] == [2, 2, 1]


# Failing


def test_where_a_pass_fails_its_runs_are_tried_alone_and_who_fails_alone_has_failed(
    store: RunStore, fails: Callable[[str, int], None]
) -> None:
    group = group_of(4)
    bad = ids_of(group)[1]
    fails(bad, 3)
    said = by_run(list(record_or_fail(group, store)))
    for run_id, events in said.items():
        assert begun(events) == 2, "with the group, and alone"
        (done,) = [event for event in events if isinstance(event, DoneEvent)]
        assert done is events[-1]
        assert done.status == ("failed" if run_id == bad else "finished")
    assert (said[bad][-1].step, said[bad][-1].message) == (2, "Training failed at step 2: RuntimeError: out of luck")
    assert {run.run_id: run.metrics["group_runs"] for run in store.runs()} == dict.fromkeys(set(said) - {bad}, 1)
    assert_nothing_else(store)


def test_a_run_that_ended_before_the_pass_failed_is_not_tried_again(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    group = group_of(2)
    record, failed = Draft.record, []

    def fails_once(self: Draft, event: Event) -> None:
        if isinstance(event, DoneEvent) and self.spec == group.specs[1] and not failed:
            failed.append(event)
            raise OSError("no room")
        record(self, event)

    monkeypatch.setattr(Draft, "record", fails_once)
    said = by_run(list(record_or_fail(group, store)))
    assert [begun(said[run_id]) for run_id in ids_of(group)] == [1, 2, 2]
    assert {event.status for events in said.values() for event in events if isinstance(event, DoneEvent)} == {"finished"}
    assert_nothing_else(store)


def test_the_model_of_a_pass_that_failed_is_gone_before_its_runs_are_tried_alone(
    store: RunStore, fails: Callable[[str, int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have failed for want of memory."""
    group = group_of(3)
    fails(ids_of(group)[2], 2)
    passes: list[weakref.ref[GroupedEngine]] = []
    gone = []
    of_group, alone = GroupedEngine.__init__, PlainEngine.__init__

    def begin_group(self: GroupedEngine, *arguments: object) -> None:
        passes.append(weakref.ref(self))
        of_group(self, *arguments)

    def begin_alone(self: PlainEngine, *arguments: object) -> None:
        gc.collect()
        gone.append(all(ref() is None for ref in passes))
        alone(self, *arguments)

    monkeypatch.setattr(GroupedEngine, "__init__", begin_group)
    monkeypatch.setattr(PlainEngine, "__init__", begin_alone)
    list(record_or_fail(group, store))
    assert len(passes) == 1
    assert gone == [True] * 3


def test_where_a_run_cannot_be_begun_those_begun_before_it_are_let_go(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    group, begin = group_of(2), store.begin

    def no_third(spec: RunSpec) -> Draft | None:
        if spec == group.specs[2]:
            raise StoreError("There is no room for a third.")
        return begin(spec)

    monkeypatch.setattr(store, "begin", no_third)
    with pytest.raises(StoreError) as kept:  # whoever keeps the error keeps no run
        list(record_group(group, store))
    assert not any(store.is_claimed(run_id) for run_id in ids_of(group))
    assert_nothing_else(store)
    assert "no room" in str(kept.value)


@pytest.mark.parametrize("runs", [1, 3])
def test_runs_that_cannot_be_trained_are_a_sentence_each(store: RunStore, runs: int) -> None:
    specs = tuple(RunSpec(bench="digits", base_sha256="0" * 64, steps=2, seed=seed) for seed in range(runs))
    said = list(record_or_fail(Group(specs), store))
    assert [run_id for run_id, _ in said] == [spec.run_id for spec in specs]
    for _, done in said:
        assert isinstance(done, DoneEvent)
        assert done.status == "failed"
        assert "must have SHA-256" in done.message
    assert_nothing_else(store)


# Stopping


@pytest.mark.parametrize("last_heard", [0, 1, 2], ids=["of the first", "of the second", "of the third"])
def test_closing_keeps_every_run_of_the_group_as_stopped_at_the_step_its_adapter_has(store: RunStore, last_heard: int) -> None:
    """Whichever run's step was the last to be heard: all had taken it."""
    group = group_of(50)
    events = record_group(group, store)
    until(events, ids_of(group)[last_heard], 5)
    events.close()
    assert [run.run_id for run in store.find(ids_of(group))] == ids_of(group)
    for run in store.runs():
        assert (run.metrics["status"], run.metrics["step"]) == ("stopped", 5)
        assert saved_step(run.adapter_dir) == 5
        assert all(delta.numerical_rank > 0 for delta in run.adapter().values())
        done = run.events()[-1]
        assert isinstance(done, DoneEvent)
        assert done.status == "stopped"
    assert_nothing_else(store)


def test_closing_before_the_first_step_leaves_nothing(store: RunStore) -> None:
    events = record_group(group_of(50), store)
    for _ in range(4):
        next(events)
    events.close()
    assert store.runs() == []
    assert_nothing_else(store)


# On the pipe


@pytest.fixture
def pipe(store: RunStore) -> Iterator[Connection]:
    """Our end of a pipe; a worker is at the other, in a thread."""
    ours, theirs = Pipe()

    def body() -> None:
        with theirs:
            work(theirs, store.root, "cpu")

    thread = threading.Thread(target=body)
    thread.start()
    yield ours
    ours.close()
    thread.join(60)
    assert not thread.is_alive()


def heard(pipe: Connection) -> list[Tagged]:
    """All that is said of one group."""
    said: list[Tagged] = []
    while (part := pipe.recv()) is not None:
        said += part
    return said


def test_a_worker_says_what_happens_and_none_at_the_end_of_each_group(store: RunStore, pipe: Connection) -> None:
    for group in (group_of(2, runs=2), group_of(3, runs=2)):
        pipe.send(group)
        said = by_run(heard(pipe))
        assert {run_id: store.get(run_id).events() for run_id in said} == said
        assert said.keys() == set(ids_of(group))
    pipe.send(None)
    with pytest.raises(EOFError):
        pipe.recv()


def test_a_worker_that_is_told_to_stop_keeps_its_group_and_takes_another(store: RunStore, pipe: Connection) -> None:
    pipe.send(group_of(5000))
    stepped: set[str] = set()
    while len(stepped) < 3:
        stepped |= {run_id for run_id, event in pipe.recv() if isinstance(event, StepEvent)}
    pipe.send("stop")
    heard(pipe)
    assert {run.run_id: run.metrics["status"] for run in store.runs()} == dict.fromkeys(ids_of(group_of(5000)), "stopped")
    assert_nothing_else(store)
    pipe.send("stop")  # one that comes late stops nothing
    pipe.send(group_of(1))
    assert {event.status for _, event in heard(pipe) if isinstance(event, DoneEvent)} == {"finished"}
    pipe.send(None)


def test_a_worker_whose_parent_is_gone_keeps_its_group_and_ends(store: RunStore, tmp_path: Path) -> None:
    ours, theirs = Pipe()
    thread = threading.Thread(target=work, args=(theirs, tmp_path, "cpu"))
    thread.start()
    ours.send(group_of(5000))
    stepped: set[str] = set()
    while len(stepped) < 3:
        stepped |= {run_id for run_id, event in ours.recv() if isinstance(event, StepEvent)}
    ours.close()
    thread.join(60)
    assert not thread.is_alive()
    assert {run.metrics["status"] for run in store.runs()} == {"stopped"}
    assert len(store.runs()) == 3
    assert_nothing_else(store)
