"""What is recorded of runs: all of the last time they began, nothing of one that failed, and however it ends no claim is left."""

from pathlib import Path

import pytest

import lora_lab as ll
from lora_lab.events import DoneEvent, Event, StartEvent, StepEvent
from lora_lab.specs import RunSpec
from lora_lab.sweeps import Run, RunStore, expand, record_run
from lora_lab.sweeps.ray_task import saved_files
from lora_lab.sweeps.recorder import Recorder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run as another machine would train it."""
    (spec,) = expand(ll.find_bench("digits"), ll.SweepSpec(r=(2,), steps=4, batch_size=4, snapshots=4))
    store = RunStore(tmp_path_factory.mktemp("elsewhere"))
    list(record_run(spec, store))
    return store.get(spec.run_id)


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path)


def saved(run: Run) -> dict[str, bytes]:
    """The files of its adapter and its snapshots of ΔW."""
    return saved_files(run.folder, after=0, up_to=4)


def up_to(events: list[Event], step: int) -> list[Event]:
    """What the run says until it has taken so many steps."""
    last = next(i for i, event in enumerate(events) if isinstance(event, StepEvent) and event.step == step)
    return events[: last + 1]


def assert_nothing_is_left(store: RunStore, spec: RunSpec) -> None:
    assert not store.is_claimed(spec.run_id)
    assert {path.name for path in store.root.iterdir() if path.is_dir()} - {".claims"} == {run.run_id for run in store.runs()}


def test_what_is_said_with_the_files_sent_is_the_run(store: RunStore, trained: Run) -> None:
    recorder = Recorder([trained.spec], store)
    for event in trained.events():
        if isinstance(event, DoneEvent):
            recorder.put(trained.run_id, saved(trained))
        recorder.take(trained.run_id, event)
    kept = store.get(trained.run_id)
    assert (kept.events(), kept.metrics) == (trained.events(), trained.metrics)
    assert saved(kept) == saved(trained)
    assert recorder.specs == ()
    assert_nothing_is_left(store, trained.spec)


def test_a_run_that_begins_again_is_recorded_from_there(store: RunStore, trained: Run) -> None:
    recorder = Recorder([trained.spec], store)
    for event in up_to(trained.events(), 3):
        recorder.take(trained.run_id, event)
    of_the_first = (
        "adapter/adapter_model.safetensors",
        "adapter/more",
        "snapshots/step-000002.safetensors",
        "snapshots/step-000003.new",
    )
    recorder.put(trained.run_id, dict.fromkeys(of_the_first, b"of the first time"))
    for event in trained.events()[:-1]:
        recorder.take(trained.run_id, event)
    recorder.put(trained.run_id, saved(trained))
    recorder.take(trained.run_id, trained.events()[-1])
    kept = store.get(trained.run_id)
    assert sum(isinstance(event, StartEvent) for event in kept.events()) == 1
    assert kept.events() == trained.events()
    assert saved(kept) == saved(trained)


def test_a_run_that_failed_leaves_nothing(store: RunStore, trained: Run) -> None:
    recorder = Recorder([trained.spec], store)
    for event in up_to(trained.events(), 2):
        recorder.take(trained.run_id, event)
    recorder.take(trained.run_id, DoneEvent("failed", 2, "It failed.", 0.1, None))
    assert store.runs() == []
    assert recorder.specs == ()
    assert_nothing_is_left(store, trained.spec)


@pytest.mark.parametrize("sent", [False, True], ids=["none was sent", "one was sent"])
@pytest.mark.parametrize("ending", ["keep_stopped", "keep_saved"])
def test_what_breaks_off_is_kept_as_it_was_saved_or_not_at_all(store: RunStore, trained: Run, sent: bool, ending: str) -> None:
    recorder = Recorder([trained.spec], store)
    for event in trained.events()[:-1]:
        recorder.take(trained.run_id, event)
    if sent:
        recorder.put(trained.run_id, saved(trained))
    getattr(recorder, ending)()
    runs = store.runs()
    assert [(run.metrics["status"], run.metrics["step"]) for run in runs] == ([("stopped", 4)] if sent else [])
    assert_nothing_is_left(store, trained.spec)


def test_nothing_is_recorded_of_a_run_that_another_has_in_hand(store: RunStore, trained: Run) -> None:
    draft = RunStore(store.root).begin(trained.spec)
    assert draft is not None
    recorder = Recorder([trained.spec], store)
    assert recorder.specs == ()
    recorder.discard()
    assert store.is_claimed(trained.run_id)
    draft.discard()
