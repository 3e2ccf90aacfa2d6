"""What one token leaves in one layer for the backward pass, in closed form, as transformers' eager modules keep it.

A frozen linear map keeps nothing; a norm, an activation function, attention and every trained map keep what they need.
Bytes a token unless a name says otherwise.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from lora_lab.budget.counts import rank_of, targeted
from lora_lab.errors import SpecError
from lora_lab.geometry import Architecture, Block, Geometry, Matrix
from lora_lab.specs import MethodSpec, StepSpec

DTYPE_BYTES = {"bf16": 2, "fp16": 2, "fp32": 4}
Part = Literal["norms", "attention", "mlp", "adapters"]
_PYTHON_GELUS = {"gelu_new", "gelu_fast", "gated-gelu", "quick_gelu"}  # written out in Python: each step keeps its operand
_NO_ROTARY = {"gpt2", "gpt_bigcode", "opt", "bert", "roberta", "deberta-v2", "distilbert", "electra", "vit", "t5", "bloom", "mpt"}
_SOFTMAX_AS_IT_IS = {"bert", "roberta", "distilbert", "electra", "deberta-v2", "gpt2", "falcon"}  # others: in fp32
_SPLIT_BY_COPY = {"falcon"}  # its fused q, k, v does not outlive the split, and its one key head is never repeated
_PARALLEL = {"falcon", "phi", "gpt_neox"}  # attention and MLP side by side, both reading the residual stream
_OWN_ATTENTION = {"deberta-v2"}  # no fused kernel for its relative positions
_NO_SDPA = {"gemma2"}  # its soft cap


@dataclass(frozen=True, slots=True)
class Kept:
    """One thing that is kept: what it is, its arithmetic, bytes a token, and the part of the layer that it belongs to."""

    name: str
    text: str
    bytes_per_token: int
    part: Part = "adapters"


@dataclass(frozen=True)
class Layer:
    """A layer seen from memory: its matrices, what of it is adapted or trained, and the types in use."""

    block: Block
    architecture: Architecture
    adapted: tuple[Matrix, ...]
    spec: MethodSpec
    step: StepSpec
    trained: bool

    @property
    def matrices(self) -> tuple[Matrix, ...]:
        """The base's matrices here."""
        return self.block.matrices

    @property
    def stream_bytes(self) -> int:
        """Bytes of a hidden state: k-bit preparation turns norms and embeddings, and with them the stream, to fp32."""
        return 4 if self.step.kbit_prepare else DTYPE_BYTES[self.step.dtype]

    @property
    def adapter_bytes(self) -> int:
        """Bytes of an adapter's parameter."""
        return DTYPE_BYTES[self.step.adapter_dtype]

    @property
    def attention(self) -> str:
        """The attention that runs: some families lack the one asked for."""
        family = self.architecture.model_type
        if family in _OWN_ATTENTION or (family in _NO_SDPA and self.step.attention == "sdpa"):
            return "eager"
        return self.step.attention

    @property
    def mlp_width(self) -> int:
        """Width of the MLP's inside; of one expert where there are several."""
        return next((m.d_in for m in self.matrices if m.role == "down"), 0)

    @property
    def copies(self) -> int:
        """How many experts a token goes through."""
        has_experts = any(m.experts > 1 for m in self.matrices)
        return self.architecture.experts_per_token if has_experts else 1

    @property
    def is_gated(self) -> bool:
        """Whether the MLP multiplies by a gate."""
        return any(m.role in ("gate", "gate_up") for m in self.matrices)

    @property
    def keeps_inputs(self) -> bool:
        """Whether base matrices keep their inputs: trained ones, and bitsandbytes' int8."""
        return self.trained or self.is_int8

    @property
    def has_prefix(self) -> bool:
        """Whether keys and values of virtual tokens stand before the text's."""
        return any(part.method == "prefix" for part in self.spec.parts())

    @property
    def is_int8(self) -> bool:
        """Whether bitsandbytes' int8 holds the matrices here."""
        return self.step.quant == "int8" and any(m.is_quantizable for m in self.matrices)

    def kept(self) -> tuple[Kept, ...]:
        """Everything that a token leaves here."""
        return (*self._norms(), *self._attention(), *self._mlp(), *self._dropouts(), *self._inputs(), *self._adapters())

    def bytes_per_token(self, *, lowest: bool = False) -> int:
        """The sum of `kept`; in the lowest layer that is adapted nothing is kept of what lies before its first adapter."""
        unreached = self._before_the_first_adapter() if lowest else ()
        return sum(one.bytes_per_token for one in self.kept() if one.part not in unreached)

    def _before_the_first_adapter(self) -> tuple[Part, ...]:
        if self.spec.method in ("adapter", "adapter_pfeiffer"):
            return ("norms", "attention", *(("mlp",) if self.spec.method == "adapter_pfeiffer" else ()))
        roles = {m.role for m in self.adapted}
        in_attention, in_mlp = bool(roles & {"q", "k", "v", "qkv"}), bool(roles & {"gate", "up", "gate_up", "down"})
        if self.architecture.model_type in _PARALLEL:
            return ("norms", *(() if in_mlp else ("mlp",)), *(() if in_attention else ("attention",)))
        if in_attention or not roles:
            return ()
        return ("attention",) if "o" in roles else ("norms", "attention")

    @property
    def kept_weight_bytes(self) -> int:
        """Whole weights that the backward wants: W + ΔW of experts, which PEFT adapts as one parameter; and DoRA's W under dropout.

        DoRA with dropout multiplies by W anew, in the adapter's type.
        """
        experts = self.stream_bytes * sum(m.weight_params for m in self.adapted if m.kind == "experts")
        if self.spec.method != "dora" or not self.spec.lora_dropout:
            return experts
        return experts + self.adapter_bytes * sum(m.weight_params for m in self.adapted)

    @property
    def checkpointed_bytes_per_token(self) -> int:
        """What checkpointing keeps of a layer: its input; bitsandbytes' int8 holds on to its inputs all the same."""
        quantized = tuple(m for m in self.matrices if m.is_quantizable)
        held = sum(self._distinct_inputs(quantized, all_of_them=True)) if self.is_int8 else 0
        return self.stream_bytes * (self.architecture.hidden + held)

    def working_bytes_per_token(self) -> int:
        """Gradients in flight while the backward is in the MLP; in eager attention, where the scores' are wider."""
        s, inside = self.stream_bytes, self.copies * self.mlp_width
        in_mlp = s * ((3 if self.is_gated else 2) * inside + 2 * self.copies * self.architecture.hidden)
        return max(in_mlp, 4 * self.architecture.heads * self.step.seq) if self.attention == "eager" else in_mlp

    @property
    def working_weight_bytes(self) -> int:
        """DoRA's norm wants W, BA, their sum and an identity to make BA with, in the adapter's type, one target at a time."""
        if self.spec.method != "dora":
            return 0
        return self.adapter_bytes * max((3 * m.weight_params + m.d_in**2 for m in self.adapted), default=0)

    def _norms(self) -> Iterator[Kept]:
        """An RMS norm keeps an fp32 copy of its input, a LayerNorm its input; one that is trained keeps the normalised too."""
        a, s = self.architecture, self.stream_bytes
        trained = self.trained or self.spec.method == "ln_tuning"
        for (name, width, is_rms), n in Counter((_short(norm.name), norm.width, norm.is_rms) for norm in self.block.norms).items():
            wide = {"q_norm": a.q_width, "k_norm": a.kv_width}.get(name, width)
            if a.model_type == "gpt_neox" and not is_rms and name == "post_attention_layernorm":
                continue  # it reads the same stream as input_layernorm
            normalised = 4 if a.model_type.startswith("gemma") else s  # Gemma scales in fp32
            each = (4 if is_rms else s) + (normalised if is_rms and trained else 0)
            yield Kept(name, f"{n} · {each} · {wide}", n * each * wide, "norms")

    def _attention(self) -> Iterator[Kept]:
        a, s = self.architecture, self.stream_bytes
        kv, repeated = self._kv_width()
        fused = any(m.role == "qkv" for m in self.matrices) and a.model_type not in _SPLIT_BY_COPY
        lives_on = fused and not repeated and self.attention != "eager" and not self.has_prefix
        if lives_on and a.model_type not in _NO_ROTARY:
            # q and k are turned, v is a view that keeps the fused result alive
            yield Kept("q, k and the fused q, k, v", f"{s} · {2 * a.q_width + 3 * kv}", s * (2 * a.q_width + 3 * kv), "attention")
        else:
            yield Kept("q, k, v", f"{s} · ({a.q_width} + 2 · {kv})", s * (a.q_width + 2 * kv), "attention")
        if self.has_prefix and fused and a.model_type in _NO_ROTARY:  # joined with the prefix, beside the fused result
            yield Kept("k and v with the prefix", f"2 · {s} · {kv}", 2 * s * kv, "attention")
        if self.attention == "eager":
            yield from self._scores()
        else:
            each = s * a.q_width + 4 * a.heads
            yield Kept("attention's output, a log-sum-exp a head", f"{s} · {a.q_width} + 4 · {a.heads}", each, "attention")

    def _kv_width(self) -> tuple[int, bool]:
        """Width of k and v as attention keeps them, and whether that is a copy for every query head.

        SDPA with a padded batch has a mask, and with a mask it wants the heads repeated; a single head is expanded for
        nothing. Flash reads grouped heads as they are.
        """
        a = self.architecture
        in_place = self.attention == "flash" or a.model_type in _SPLIT_BY_COPY or (a.kv_heads == 1 and self.attention == "sdpa")
        return (a.kv_width, False) if in_place else (a.q_width, a.q_width != a.kv_width)

    def _scores(self) -> Iterator[Kept]:
        """Eager attention: the softmax, its dropout, what a soft cap adds, and DeBERTa's scores by distance."""
        a, s = self.architecture, self.stream_bytes
        keys = self.step.seq
        softmax = s if a.model_type in _SOFTMAX_AS_IT_IS else 4 + s * (s != 4)
        dropped = s + 1 if a.attention_dropout else 0
        each = softmax + dropped + (s if a.soft_cap else 0)
        yield Kept("score matrix", f"{each} · {a.heads} · {keys}", each * a.heads * keys, "attention")
        if a.relative_positions:
            by_distance = 2 * s * a.heads * a.relative_positions
            yield Kept("scores by distance", f"2 · {s} · {a.heads} · {a.relative_positions}", by_distance, "attention")
            # queries and keys of the distances, a copy a sequence; the scaled keys; two tables of int64 places
            each = s * a.hidden + 2 * s * a.hidden * a.relative_positions // keys + 16 * keys // self.step.batch
            yield Kept("queries, keys and places of the distances", f"{each}", each, "attention")

    def _mlp(self) -> Iterator[Kept]:
        s, inside = self.stream_bytes, self.copies * self.mlp_width
        by_function = 4 if self.architecture.activation in _PYTHON_GELUS else 1
        parts = by_function + (2 if self.is_gated else 0)
        what = "gate, its activation, up" if self.is_gated else "the activation's input"
        times = f"{self.copies} · " if self.copies > 1 else ""
        yield Kept(f"MLP: {what}", f"{parts} · {s} · {times}{self.mlp_width}", parts * s * inside, "mlp")
        if self.copies > 1:
            h = self.architecture.hidden
            yield Kept("experts' results", f"{s} · {self.copies} · {h}", s * self.copies * h, "mlp")

    def _dropouts(self) -> Iterator[Kept]:
        if self.architecture.hidden_dropout:
            h = self.architecture.hidden
            yield Kept("the base's dropout masks", f"2 · {h}", 2 * h)

    def _inputs(self) -> Iterator[Kept]:
        if self.keeps_inputs:
            s = self.stream_bytes
            keeping = self.matrices if self.trained else tuple(m for m in self.matrices if m.is_quantizable)
            widths = self._distinct_inputs(keeping)
            yield Kept("inputs of the base's matrices", f"{s} · {sum(widths)}", s * sum(widths))

    def _distinct_inputs(self, matrices: tuple[Matrix, ...], *, all_of_them: bool = False) -> list[int]:
        """Matrices that read one tensor keep it once; what attention already keeps is not kept again."""
        groups: dict[str, int] = {}
        for m in matrices:
            reads = {"gate": "up", "gate_up": "up", "k": "q", "v": "q", "qkv": "q"}.get(m.role, m.role)
            many = self.copies if m.kind == "experts" else 1
            groups[reads] = m.d_in * many
        if self.attention != "eager" and not all_of_them:
            groups.pop("o", None)
        if self.architecture.activation == "relu" and not self.is_gated and not all_of_them:
            groups.pop("down", None)  # a ReLU keeps its result, which is what the way down reads
        if "q" in groups and len(self.block.norms) == 1:
            groups.pop("up", None)  # attention and MLP stand side by side and read one norm
        return list(groups.values())

    def _adapters(self) -> Iterator[Kept]:
        yield from _ADAPTERS.get(self.spec.method, _lora)(self)


def _lora(layer: Layer) -> Iterator[Kept]:
    """Each target keeps its own copy of its input in the adapter's type, and A's result; dropout a byte an element."""
    a, s = layer.adapter_bytes, layer.stream_bytes
    experts = tuple(m for m in layer.adapted if m.kind == "experts")
    if experts:  # their factors are multiplied out to a ΔW; its gradient wants what the experts read
        widths = layer._distinct_inputs(experts)
        yield Kept("inputs of the experts", f"{s} · {sum(widths)}", s * sum(widths))
    adapted = tuple(m for m in layer.adapted if m.kind != "experts")
    if not adapted:
        return
    ranks = sum(rank_of(layer.spec, m.name) for m in adapted)
    if a == s and not layer.spec.lora_dropout:
        widths = [] if layer.keeps_inputs else layer._distinct_inputs(adapted)
        yield Kept("inputs of the targets, shared", f"{s} · {sum(widths)}", s * sum(widths))
    else:
        d_in = sum(m.d_in for m in adapted)
        each = a + (1 if layer.spec.lora_dropout else 0)
        yield Kept("a copy of its input for each target", f"{each} · {d_in}", each * d_in)
    yield Kept("A x", f"{a} · {ranks}", a * ranks)


def _dora(layer: Layer) -> Iterator[Kept]:
    """The magnitude's gradient wants both results, the base's and B A x."""
    yield from _lora(layer)
    d_out = sum(m.d_out for m in layer.adapted)
    each = layer.adapter_bytes + (layer.adapter_bytes if layer.spec.lora_dropout else layer.stream_bytes)
    yield Kept("results of base and B A", f"{each} · {d_out}", each * d_out)


def _vera(layer: Layer) -> Iterator[Kept]:
    """A and B are frozen: only the two products that the vectors scale are kept."""
    a, d_out = layer.adapter_bytes, sum(m.d_out for m in layer.adapted)
    ranks = layer.spec.r * len(layer.adapted)
    yield Kept("A x and B d A x", f"{a} · ({ranks} + {d_out})", a * (ranks + d_out))
    if layer.spec.lora_dropout:
        masks = sum(m.d_in for m in layer.adapted)
        yield Kept("dropout masks", f"{masks}", masks)


def _ia3(layer: Layer) -> Iterator[Kept]:
    """What each vector scales: results in the stream's type, the MLP's inside in the adapter's."""
    s, a = layer.stream_bytes, layer.adapter_bytes
    after = sum(m.d_out for m in layer.adapted if m.role != "down")
    before = sum(m.d_in for m in layer.adapted if m.role == "down")
    yield Kept("what the vectors scale", f"{s} · {after} + {a} · {before}", s * after + a * before)


def _bottleneck(layer: Layer) -> Iterator[Kept]:
    """The adapter's input, in its own type, and its inside before and after the nonlinearity."""
    n = 2 if layer.spec.method == "adapter" else 1
    a, h, r = layer.adapter_bytes, layer.architecture.hidden, layer.spec.r
    yield Kept("bottlenecks", f"{n} · {a} · ({h} + 2 · {r})", n * a * (h + 2 * r))


def _nothing(_: Layer) -> Iterator[Kept]:
    return iter(())


_ADAPTERS = {
    "dora": _dora,
    "vera": _vera,
    "ia3": _ia3,
    "adapter": _bottleneck,
    "adapter_pfeiffer": _bottleneck,
    **dict.fromkeys(("full", "partial", "bitfit", "ln_tuning", "prefix", "preembed", "prelayer"), _nothing),
}


def _short(name: str) -> str:
    return name.rsplit(".", 1)[-1]


@dataclass(frozen=True)
class Span:
    """Layers that are alike: one to look at, and the places of all of them, counted from the bottom."""

    layer: Layer
    places: tuple[int, ...]


def spans(geometry: Geometry, spec: MethodSpec, step: StepSpec) -> list[Span]:
    """Every layer of the model, those that are alike together.

    Raises:
        SpecError: the model has no hidden size, or the method finds nothing in it.
    """
    architecture = geometry.architecture
    if architecture is None or not architecture.hidden:
        raise SpecError("A model whose memory is reckoned must have a config with a hidden_size. Got none.")
    trains = (spec.method == "full", spec.method == "partial" and spec.r)
    key = ("alike", spec.targets, spec.layers_to_transform, spec.rank_pattern, trains)
    alike = geometry.once(key, lambda: _alike(geometry, spec))
    return [Span(Layer(block, architecture, adapted, spec, step, trained), places) for block, adapted, trained, places in alike]


def _alike(geometry: Geometry, spec: MethodSpec) -> list[tuple[Block, tuple[Matrix, ...], bool, tuple[int, ...]]]:
    trained = _trained_stacks(geometry, spec)
    chosen = frozenset(m.name for m in targeted(geometry, spec))
    found: dict[object, tuple[Block, tuple[Matrix, ...], bool, list[int]]] = {}
    for place, block in enumerate(geometry.blocks):
        adapted = tuple(m for m in block.matrices if m.name in chosen)
        ranks = tuple((m.role, rank_of(spec, m.name)) for m in adapted) if spec.rank_pattern else len(adapted)
        kind = (block.shape, tuple(m.role for m in adapted), ranks, block.stack in trained)
        found.setdefault(kind, (block, adapted, block.stack in trained, []))[3].append(place)
    return [(block, adapted, is_trained, tuple(places)) for block, adapted, is_trained, places in found.values()]


def _trained_stacks(geometry: Geometry, spec: MethodSpec) -> frozenset[str]:
    if spec.method == "full":
        return frozenset(geometry.stacks)
    return frozenset(geometry.top_layers(spec.r, spec.layers_to_transform)) if spec.method == "partial" else frozenset()
