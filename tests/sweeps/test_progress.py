"""What a run has said, gathered."""

from typing import Literal

import pytest

import lora_lab as ll
from lora_lab.events import DoneEvent, EvalEvent, Event, ForgettingEvent, SpectrumEvent, StartEvent, StepEvent
from lora_lab.sweeps import RunProgress

SPEC = ll.RunSpec(bench="digits", base_sha256="", steps=4)
START = StartEvent(SPEC.run_id, 4, 8, 0, 100, "cpu", "fp32")


def step(number: int) -> StepEvent:
    return StepEvent(number, 1.0, 1e-3, 1.0, 0.1)


def scored(at_step: int, score: float = 0.5, split: Literal["validation", "test"] = "validation") -> EvalEvent:
    return EvalEvent(at_step, score, 1.0, 0.1, split)


SAID: list[Event] = [
    *(START, scored(0), scored(0, split="test"), SpectrumEvent(0, {"m": (0.0,)}), step(1), step(2), scored(2, 0.7)),
    *(scored(2, 0.6, "test"), ForgettingEvent(2, "accuracy", 0.9, 0.8), DoneEvent("finished", 2, "", 1.0, None)),
]


def test_what_was_said_is_gathered_by_kind() -> None:
    progress = RunProgress.of(SPEC, SAID)
    assert progress.start == START
    assert progress.steps == [step(1), step(2)]
    assert [event.step for event in progress.evals] == [event.step for event in progress.tests] == [0, 2]
    assert (progress.spectrum, progress.forgetting, progress.done) == (SAID[3], SAID[-2], SAID[-1])
    assert (progress.step, progress.score) == (2, scored(2, 0.7))


@pytest.mark.parametrize("said", range(len(SAID) + 1))
def test_another_start_begins_anew_whatever_was_said_before(said: int) -> None:
    """As after the death of a worker."""
    again = StartEvent(SPEC.run_id, 4, 8, 0, 100, "cpu", "fp32", group_runs=1)
    rest = [scored(0), step(1)]
    assert RunProgress.of(SPEC, [*SAID[:said], again, *rest]) == RunProgress.of(SPEC, [again, *rest])


def test_who_reads_a_run_that_begins_anew_keeps_the_same_record() -> None:
    progress = RunProgress.of(SPEC, SAID)
    steps = progress.steps
    progress.take(START)
    assert (progress.step, progress.steps, progress.done) == (0, [], None)
    assert steps == [step(1), step(2)], "a curve that is being drawn loses nothing under the hand"
