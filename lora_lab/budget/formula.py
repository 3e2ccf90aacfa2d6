"""The bill of a training step in closed form: integers from shapes, at once, without torch.

Every constant follows from what a tensor is (its elements and their type); none is fitted to a measurement. Source: the
code of transformers 5 and PEFT 0.21, which the trace runs and this does not.
"""

from dataclasses import dataclass

from lora_lab.budget.activations import DTYPE_BYTES, Span, spans
from lora_lab.budget.counts import method_params, targeted
from lora_lab.budget.ledger import Ledger
from lora_lab.geometry import Geometry, Matrix
from lora_lab.specs import IN_PLACE, MethodSpec, StepSpec

_NF4_BLOCK, _DQ_BLOCK = 64, 256
_SMALL_TENSOR = 4096  # bitsandbytes keeps smaller ones in 32 bits


def formula(geometry: Geometry, spec: MethodSpec, step: StepSpec) -> Ledger:
    """What a training step holds at its peak.

    Raises:
        SpecError: the method finds nothing in the base, or the base has no hidden size.
    """
    return max(_moments(geometry, spec, step).values(), key=lambda ledger: ledger.peak)


def peak_moment(geometry: Geometry, spec: MethodSpec, step: StepSpec) -> str:
    """When the peak is: at the `loss`, in the `backward` of a layer, or in the `optimizer`'s step."""
    moments = _moments(geometry, spec, step)
    return max(moments, key=lambda name: moments[name].peak)


def _moments(geometry: Geometry, spec: MethodSpec, step: StepSpec) -> dict[str, Ledger]:
    held = _Held.of(geometry, spec, step)
    saved, recomputed, working = _activations(geometry, spec, step)
    logits, at_loss = _loss_bytes(geometry, spec, step)
    standing = {"weights": held.weights, "adapters": held.adapters}
    loss = Ledger(**standing, optimizer=held.states, activations=saved, loss=at_loss)
    last = max(recomputed + working, _embedding_gradients(geometry, spec, step))
    begun = Ledger(**standing, optimizer=held.states, activations=saved + recomputed + working, loss=logits)
    ended = Ledger(**standing, gradients=held.gradients, optimizer=held.states, activations=last, loss=logits)
    stepping = Ledger(**standing, gradients=held.gradients, optimizer=held.states + held.temporaries, loss=logits)
    return {"loss": loss, "backward": begun, "last backward": ended, "optimizer": stepping}


@dataclass(frozen=True, slots=True)
class _Held:
    """What stays from step to step, and what the optimizer's step adds for a moment."""

    weights: int
    adapters: int
    gradients: int
    states: int
    temporaries: int

    @classmethod
    def of(cls, geometry: Geometry, spec: MethodSpec, step: StepSpec) -> "_Held":
        trained = method_params(geometry, spec)
        own = spec.method in IN_PLACE
        each = _trained_bytes(spec, step)
        states, temporaries = _optimizer_bytes(geometry, spec, step, trained, each)
        adapters = 0 if own else each * trained + _frozen_projections(geometry, spec, step)
        return cls(_weight_bytes(geometry, step), adapters, each * trained, states, temporaries)


def _trained_bytes(spec: MethodSpec, step: StepSpec) -> int:
    if spec.method in (*IN_PLACE, "ln_tuning"):
        return 4 if step.kbit_prepare else DTYPE_BYTES[step.dtype]
    return DTYPE_BYTES[step.adapter_dtype]


def _frozen_projections(geometry: Geometry, spec: MethodSpec, step: StepSpec) -> int:
    """VeRA's A and B: one pair for all targets, as wide as the widest of them."""
    if spec.method != "vera":
        return 0
    matrices = targeted(geometry, spec)
    return DTYPE_BYTES[step.adapter_dtype] * spec.r * (max(m.d_in for m in matrices) + max(m.d_out for m in matrices))


def _weight_bytes(geometry: Geometry, step: StepSpec) -> int:
    plain = 4 if step.kbit_prepare else DTYPE_BYTES[step.dtype]
    if step.quant == "none":
        return plain * geometry.total_params
    packed, elements = geometry.once(("packed", step.quant), lambda: _packed(geometry, step))
    return packed + plain * (geometry.total_params - elements)


def _packed(geometry: Geometry, step: StepSpec) -> tuple[int, int]:
    """(bytes of the quantized matrices, their elements)."""
    quantized = [m for m in geometry.matrices if m.is_quantizable]
    return sum(_packed_bytes(m, step) for m in quantized), sum(m.weight_params for m in quantized)


def _packed_bytes(m: Matrix, step: StepSpec) -> int:
    """int8 with a scale a row; NF4 with a scale a block of 64, or with scales that are quantized themselves."""
    n = m.weight_params
    if step.quant == "int8":
        return n + 4 * m.d_out
    blocks = -(-n // _NF4_BLOCK)
    scales = 4 * blocks if step.quant == "nf4" else blocks + 4 * -(-blocks // _DQ_BLOCK)
    return -(-n // 2) + scales


def _optimizer_bytes(geometry: Geometry, spec: MethodSpec, step: StepSpec, trained: int, each: int) -> tuple[int, int]:
    """(states, temporaries of a step). AdamW's foreach kernel holds the square roots of all second moments at once."""
    if step.optimizer == "sgd":
        return 0, 0
    if step.optimizer == "adamw":
        return 2 * each * trained, each * trained
    if step.optimizer == "adafactor":
        return _factored_bytes(geometry, spec, each), each * trained
    small = _small_params(geometry, spec)
    large = trained - small
    return 2 * (4 * small + large + 4 * -(-large // 256)), 0


def _small_params(geometry: Geometry, spec: MethodSpec) -> int:
    """Parameters in tensors under 4,096 elements."""
    if spec.method in IN_PLACE or not targeted(geometry, spec):
        return 0
    sizes = [spec.r * width for m in targeted(geometry, spec) for width in (m.d_in, m.d_out)]
    return sum(size for size in sizes if size < _SMALL_TENSOR)


def _factored_bytes(geometry: Geometry, spec: MethodSpec, each: int) -> int:
    """A row and a column for each matrix instead of all its second moments."""
    matrices = targeted(geometry, spec) or geometry.matrices
    adapter = bool(targeted(geometry, spec))
    rows = sum((m.d_in + m.d_out + 2 * spec.r) if adapter else m.experts * (m.d_in + m.d_out) for m in matrices)
    return each * rows


def _activations(geometry: Geometry, spec: MethodSpec, step: StepSpec) -> tuple[int, int, int]:
    """(kept until the backward begins, recomputed for one layer, gradients in flight), bytes.

    Without checkpointing nothing is recomputed: one layer's share of what is kept.
    """
    found = spans(geometry, spec, step)
    tokens = _tokens(spec, step)
    reached = _reached(geometry, spec, step, found)
    each = [(span.layer.bytes_per_token(), sum(place > reached for place in span.places), span) for span in found]
    lowest = next(span.layer for span in found if reached in span.places)
    recording = [(bytes_, span) for bytes_, n, span in each if n or reached in span.places]
    widest = max((bytes_ for bytes_, _ in recording), default=0)
    working = tokens * max((span.layer.working_bytes_per_token() for _, span in recording), default=0)
    working += max(_dequantized_bytes(geometry, step), *(span.layer.working_weight_bytes for span in found))
    outside = tokens * _outside_bytes_per_token(geometry, spec, step) + _mask_bytes(step)
    weights = max((span.layer.kept_weight_bytes for span in found), default=0)
    if step.checkpointing:
        inputs = sum(span.layer.checkpointed_bytes_per_token * len(span.places) for span in found)
        return tokens * inputs + outside, tokens * widest + weights, working
    starts_inside = bool(lowest.adapted) or spec.method in ("adapter", "adapter_pfeiffer")
    kept = lowest.bytes_per_token(lowest=starts_inside) + sum(bytes_ * n for bytes_, n, _ in each)
    copies = sum(n * span.layer.kept_weight_bytes for _, n, span in each)
    return tokens * kept + copies + outside, 0, working


def _embedding_gradients(geometry: Geometry, spec: MethodSpec, step: StepSpec) -> int:
    """A tied embedding gets its gradient twice, from the head and from the lookup: both and their sum stand for a moment."""
    if spec.method != "full" or not any(m.tied for m in geometry.matrices):
        return 0
    return 2 * DTYPE_BYTES[step.dtype] * max(table.params for table in geometry.tables)


def _tokens(spec: MethodSpec, step: StepSpec) -> int:
    return step.batch * (step.seq + sum(part.r for part in spec.parts() if part.method == "preembed"))


def _reached(geometry: Geometry, spec: MethodSpec, step: StepSpec, found: list[Span]) -> int:
    """The lowest layer that the backward reaches: below it nothing is kept."""
    touched = [min(s.places) for s in found if s.layer.adapted or s.layer.trained]
    above_embedding = spec.method in ("partial",) or bool(targeted(geometry, spec))
    return min(touched, default=0) if above_embedding and not step.checkpointing else 0


def _outside_bytes_per_token(geometry: Geometry, spec: MethodSpec, step: StepSpec) -> int:
    """The last norm, the head's input where the head is trained, the embedding's dropout."""
    architecture = geometry.architecture
    assert architecture is not None
    h = architecture.hidden
    s = 4 if step.kbit_prepare else DTYPE_BYTES[step.dtype]
    last = geometry.once("last norms", lambda: [norm for norm in geometry.norms if norm.layer is None])
    trained = spec.method in ("full", "ln_tuning")
    norms = sum((4 if norm.is_rms else s) + (s if norm.is_rms and trained else 0) for norm in last) * h
    return norms + (s * h if spec.method == "full" else 0) + (h if architecture.hidden_dropout else 0)


def _mask_bytes(step: StepSpec) -> int:
    """SDPA's padding mask: a byte a pair of positions."""
    return step.batch * step.seq**2 if step.attention == "sdpa" else 0


def _dequantized_bytes(geometry: Geometry, step: StepSpec) -> int:
    """The backward through a quantized matrix unpacks it whole."""
    if step.quant == "none":
        return 0
    return DTYPE_BYTES[step.dtype] * max((m.weight_params for m in geometry.matrices if m.is_quantizable), default=0)


def _loss_bytes(geometry: Geometry, spec: MethodSpec, step: StepSpec) -> tuple[int, int]:
    """(the logits, all that stands at the loss): logits, their fp32 log-softmax, and two fp32 gradients of them."""
    architecture = geometry.architecture
    assert architecture is not None
    vocab = architecture.vocab
    writes = geometry.once("writes", lambda: any(m.role == "head" and m.d_out == vocab for m in geometry.matrices))
    if step.fused_loss or not writes:
        return 0, 0
    s = 4 if step.kbit_prepare else DTYPE_BYTES[step.dtype]
    n = _tokens(spec, step) * architecture.vocab
    capped = s * n if architecture.soft_cap else 0
    return s * n, (s + 4 + 8) * n + capped
