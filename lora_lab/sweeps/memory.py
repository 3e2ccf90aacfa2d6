"""A run's peak memory: the formula's, the trace's, and what the card's allocator counted."""

from dataclasses import dataclass
from typing import cast, get_args

from torch import nn

from lora_lab.benches import Bench, find_bench
from lora_lab.benches.text import MAX_TOKENS
from lora_lab.budget.formula import formula
from lora_lab.budget.models import Model
from lora_lab.budget.trace import trace_attached
from lora_lab.errors import SpecError
from lora_lab.geometry import Geometry
from lora_lab.methods import attach_method
from lora_lab.specs import Optimizer, RunSpec, StepSpec
from lora_lab.sweeps.run import Run

_HEAD_BYTES_A_PARAM = 16  # a trained head in fp32: PEFT's copy of it, its gradient, AdamW's two moments


@dataclass(frozen=True, slots=True)
class RunMemory:
    """The peak of one run in bytes; what is not known is None.

    Measured are `torch.cuda`'s counters, which take in whatever else the process had on the card, and the evaluations.
    Formula and trace are of a step in fp32, as weights, adapter and optimizer are kept: where a GPU computed in bf16
    under autocast (`is_bound`) its activations were smaller, and both are a bound rather than an estimate.
    """

    formula_bytes: int | None
    trace_bytes: int | None
    measured_allocated_bytes: int | None
    measured_reserved_bytes: int | None
    is_bound: bool


def memory_of(run: Run, geometry: Geometry, *, trace: bool = False) -> RunMemory:
    """What the run held at its peak, or would have on a card.

    Args:
        run: a run of the store.
        geometry: of the bench's base.
        trace: trace two steps as well, which takes seconds and needs the base's config; a quantized base is not traced here.

    Raises:
        LabError: the base is asked for, to be traced, and cannot be had.
    """
    seq = batch_tokens(run, geometry)
    step = _step(run.spec, seq) if seq else None
    return RunMemory(
        formula_bytes=_formula_bytes(run, geometry, step) if step else None,
        trace_bytes=_trace_bytes(run, geometry, step) if step and trace and step.quant == "none" else None,
        measured_allocated_bytes=run.metrics.get("peak_memory_bytes"),
        measured_reserved_bytes=run.metrics.get("peak_reserved_bytes"),
        is_bound=run.metrics["precision"] != "fp32",
    )


def _step(spec: RunSpec, seq: int) -> StepSpec | None:
    """The run's step as budgets know steps; None for an optimizer whose memory they cannot tell."""
    known = {name.replace("-", ""): name for name in get_args(Optimizer)}
    optimizer = known.get(spec.optimizer.lower())
    if optimizer is None:
        return None
    return StepSpec(batch=spec.batch_size, seq=seq, dtype="fp32", quant=spec.quant, optimizer=cast(Optimizer, optimizer))


def batch_tokens(run: Run, geometry: Geometry) -> int | None:
    """Positions of the longest batch: of text as recorded, else the most a bench's tokenizer gives; of pictures all they have."""
    if geometry.architecture and geometry.architecture.vocab:
        longest: int | None = run.metrics.get("longest_tokens")
        return longest or MAX_TOKENS
    return picture_positions(geometry)


def picture_positions(geometry: Geometry) -> int | None:
    """A picture's patches and the class token, a row each in the base's table of positions; None where there is no such table."""
    positions = next((part for part in geometry.loose if part.name.endswith("position_embeddings")), None)
    hidden = geometry.architecture.hidden if geometry.architecture else 0
    return positions.params // hidden if positions and hidden else None


def _formula_bytes(run: Run, geometry: Geometry, step: StepSpec) -> int | None:
    try:
        peak_bytes = formula(geometry, run.spec.tuning, step).peak
    except SpecError:  # a base whose memory the formula cannot tell
        return None
    head_params: int = run.metrics["head_params"]
    return peak_bytes + _HEAD_BYTES_A_PARAM * head_params


def _trace_bytes(run: Run, geometry: Geometry, step: StepSpec) -> int:
    bench = find_bench(run.spec.bench, run.spec.data)

    def attached(base: nn.Module) -> nn.Module:
        heads = bench.head_modules(geometry)
        return attach_method(base, run.spec.tuning, head_modules=heads, task_type=bench.task_type)

    return trace_attached(_model(bench, geometry), attached, step)[0].peak


def _model(bench: Bench, geometry: Geometry) -> Model:
    """The bench's base as the budget knows models; a config alone does not say that there is a classifier on it."""
    base = bench.build(meta=True)
    config = {**base.config.to_dict(), "architectures": [type(base).__name__]}
    return Model(bench.name, geometry, config, source=bench.title)
