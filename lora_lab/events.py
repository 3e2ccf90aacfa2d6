"""What training yields: small frozen records that pickle, and turn into JSON and back without loss.

A run is the sequence Start, then Eval at step 0 (the frozen base), then Steps with an Eval and a Spectrum now and then,
then Done. A number that was not measured is None.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

Status = Literal["finished", "stopped", "diverged", "failed"]


@dataclass(frozen=True, slots=True)
class StartEvent:
    """A run begins: what is about to be trained, and where."""

    run_id: str
    total_steps: int
    trainable_params: int
    head_params: int
    total_params: int
    device: str
    precision: str


@dataclass(frozen=True, slots=True)
class StepEvent:
    """One optimizer step: the loss (nats) before it, the norm of the gradient before clipping.

    Of LoRA's factors the norms over all matrices of ∂L/∂A and ∂L/∂B, before clipping too.
    """

    step: int
    loss: float
    learning_rate: float
    grad_norm: float
    elapsed_s: float
    grad_norm_a: float | None = None
    grad_norm_b: float | None = None


@dataclass(frozen=True, slots=True)
class EvalEvent:
    """The held-out split, scored. Step 0 is the frozen base."""

    step: int
    accuracy: float
    loss: float
    elapsed_s: float


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


Event = StartEvent | StepEvent | EvalEvent | SpectrumEvent | DoneEvent
_KINDS = {cls.__name__: cls for cls in (StartEvent, StepEvent, EvalEvent, SpectrumEvent, DoneEvent)}


def to_record(event: Event) -> dict[str, Any]:
    """The event as a JSON-able dict, its kind under `event`."""
    return {"event": type(event).__name__, **asdict(event)}


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
