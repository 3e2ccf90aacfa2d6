"""What training yields: small frozen records that pickle, and turn into JSON and back without loss.

A run is the sequence Start, then Evals at step 0 (the frozen base), then Steps with an Eval and a Spectrum now and then, then
what the finished run scores on the test split and what it forgot, then Done. A number that was not measured is None.
"""

from dataclasses import dataclass, fields
from typing import Any, Literal

Status = Literal["finished", "stopped", "diverged", "failed"]
SplitName = Literal["validation", "test"]
Kept = Literal["accuracy", "cosine", "loss"]


@dataclass(frozen=True, slots=True)
class StartEvent:
    """A run begins: what is about to be trained, and where.

    `metric` is a name of METRICS, what scores are. Where the task is to write, the echo is what repeating the answer of the
    nearest training example scores on either held-out split.
    """

    run_id: str
    total_steps: int
    trainable_params: int
    head_params: int
    total_params: int
    device: str
    precision: str
    metric: str = "accuracy"
    echo_score: float | None = None
    echo_test_score: float | None = None
    group_runs: int = 1  # that were trained in one pass, this one among them
    group_id: str = ""  # of that pass; empty for a run alone
    base_note: str = ""  # what there is to know of the base's weights, where they are not the published ones


@dataclass(frozen=True, slots=True)
class StepEvent:
    """One optimizer step: the loss (nats) before it, the norm of the gradient before clipping.

    Of LoRA's factors the norms over all matrices of ∂L/∂A and ∂L/∂B, before clipping too. `step_s` is what the step alone took:
    forward, backward and update.
    """

    step: int
    loss: float
    learning_rate: float
    grad_norm: float
    elapsed_s: float
    grad_norm_a: float | None = None
    grad_norm_b: float | None = None
    step_s: float | None = None


@dataclass(frozen=True, slots=True)
class EvalEvent:
    """A held-out split, scored by the task's metric. Step 0 is the frozen base.

    `score` is None where it was not measured, as where answers have to be written for it and the run goes on; or where the
    task has no metric but its loss.
    """

    step: int
    score: float | None
    loss: float
    elapsed_s: float
    split: SplitName = "validation"


@dataclass(frozen=True, slots=True)
class ForgettingEvent:
    """What the base could before, measured before training and after: accuracy on its old task, mean cosine of its embeddings to
    those it gave (1 before), or its loss in nats on a fixed text."""

    step: int
    kept: Kept
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class SpectrumEvent:
    """Singular values of every ΔW as it is now, largest first; all zero where nothing was learned."""

    step: int
    singular_values: dict[str, tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class DoneEvent:
    """The last event. `message` is the sentence that says why, where a run did not finish.

    Of memory, what was allocated to tensors and what was reserved on the card; `longest_tokens` is the length of the longest
    batch of text that was trained on, padding included.
    """

    status: Status
    step: int
    message: str
    wall_s: float
    peak_memory_bytes: int | None
    peak_reserved_bytes: int | None = None  # logs of before have neither
    longest_tokens: int | None = None


Event = StartEvent | StepEvent | EvalEvent | ForgettingEvent | SpectrumEvent | DoneEvent
_KINDS = {cls.__name__: cls for cls in (StartEvent, StepEvent, EvalEvent, ForgettingEvent, SpectrumEvent, DoneEvent)}


def to_record(event: Event) -> dict[str, Any]:
    """The event as a JSON-able dict, its kind under `event`."""
    return {"event": type(event).__name__, **{field.name: getattr(event, field.name) for field in fields(event)}}


def from_record(record: dict[str, Any]) -> Event:
    """The event that `to_record` wrote.

    Raises:
        KeyError: the record names no known kind of event.
    """
    fields = dict(record)
    kind = _KINDS[fields.pop("event")]
    if kind is SpectrumEvent:
        fields["singular_values"] = {name: tuple(s) for name, s in fields["singular_values"].items()}
    event: Event = kind(**fields)
    return event
