"""Runs under way: followed from the first thing they say to the last."""

from lora_lab.events import DoneEvent, EvalEvent, StepEvent
from lora_lab.sweeps.under_way import UnderWay


def step(number: int) -> StepEvent:
    return StepEvent(number, 1.0, 1e-3, 1.0, 0.1)


def test_what_began_and_did_not_end_is_stopped_once_at_its_last_step() -> None:
    under_way = UnderWay()
    for run_id, event in [
        ("new", EvalEvent(0, 0.5, 1.0, 0.1)),
        ("ended", step(3)),
        ("far", step(1)),
        ("far", step(7)),
        ("far", EvalEvent(7, 0.5, 1.0, 0.1)),
        ("ended", DoneEvent("finished", 3, "", 0.1, None)),
    ]:
        under_way.take(run_id, event)
    stopped = under_way.stopped()
    assert [(run_id, done.step, done.status) for run_id, done in stopped] == [("new", 0, "stopped"), ("far", 7, "stopped")]
    assert under_way.stopped() == []


def test_a_run_that_is_given_up_is_not_stopped_as_well() -> None:
    under_way = UnderWay()
    under_way.take("lost", step(5))
    assert under_way.over("lost") == 5
    assert under_way.over("never begun") == 0
    assert under_way.stopped() == []
