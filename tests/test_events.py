"""Events survive the log file and the pipe of a worker process."""

import dataclasses
import json
import pickle

import pytest

from lora_lab.events import DoneEvent, EvalEvent, Event, SpectrumEvent, StartEvent, StepEvent, from_record, to_record

EVENTS: list[Event] = [
    StartEvent("3f2a90c1d4e5", 200, 4096, 0, 152_650, "cpu", "float32"),
    StepEvent(1, 2.302585092994046, 5e-3, 1e-300, 0.1 + 0.2),
    EvalEvent(0, 0.1, 2.3, 0.5),
    SpectrumEvent(0, {}),
    SpectrumEvent(50, {"layers.0.q_proj": (3.0, 1e-17, 0.0), "layers.0.v_proj": (0.0,)}),
    DoneEvent("stopped", 17, "", 3.5, None),
    DoneEvent("diverged", 17, "The loss became inf at step 18: α too large.", 3.5, 10**12),
    DoneEvent("finished", 200, "", 3.5, 10**9, 2 * 10**9, 128),
]
events = pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)


@events
def test_an_event_survives_json_without_loss(event: Event) -> None:
    line = json.dumps(to_record(event), allow_nan=False)
    assert "\n" not in line
    assert from_record(json.loads(line)) == event


@events
def test_an_event_survives_pickling(event: Event) -> None:
    assert pickle.loads(pickle.dumps(event)) == event


@events
def test_an_event_cannot_be_changed(event: Event) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(event, dataclasses.fields(event)[0].name, 99)


def test_reading_a_record_leaves_it_as_it_was() -> None:
    record = to_record(EVENTS[4])
    before = json.dumps(record)
    from_record(record)
    assert json.dumps(record) == before


def test_a_log_of_before_the_reserved_counter_is_still_read() -> None:
    old = {"event": "DoneEvent", "status": "finished", "step": 4, "message": "", "wall_s": 1.0, "peak_memory_bytes": 10**9}
    assert from_record(old) == DoneEvent("finished", 4, "", 1.0, 10**9, None, None)


def test_an_unknown_kind_of_event_is_refused() -> None:
    with pytest.raises(KeyError, match="PauseEvent"):
        from_record({"event": "PauseEvent", "step": 1})
