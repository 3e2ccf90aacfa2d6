"""Parameter counts in closed form: every count is a sum of terms, and a term shows its numbers."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from lora_lab.errors import SpecError, out_of_range
from lora_lab.geometry import Geometry, Loose, Matrix, Norm
from lora_lab.roles import stack_of
from lora_lab.specs import METHODS, MethodSpec


@dataclass(frozen=True, slots=True)
class Term:
    """One summand: what it is, its arithmetic with the numbers put in, its value."""

    name: str
    text: str
    params: int


def count_terms(geometry: Geometry, spec: MethodSpec) -> tuple[Term, ...]:
    """What a method trains in `geometry`, a task head left out, term by term.

    Source: Hu et al. 2021 (LoRA, and its sections 5.1 and D for the baselines), Liu et al. 2024 (DoRA), Kopiczko et al. 2023
    (VeRA), Zhang et al. 2023 (AdaLoRA), Liu et al. 2022 (IA3), Houlsby et al. 2019, Pfeiffer et al. 2021, Ben Zaken et al. 2021
    (BitFit), Li and Liang 2021 (prefix, as PEFT attaches it).

    Raises:
        SpecError: a target names no matrix, or the base has nothing that the method trains.
    """
    terms = (term for part in spec.parts() for term in _COUNTS[part.method](geometry, part))
    return (*terms, *_bias_terms(geometry, spec))


def method_params(geometry: Geometry, spec: MethodSpec) -> int:
    """The sum of `count_terms`."""
    return sum(term.params for term in count_terms(geometry, spec))


def lora_params(geometry: Geometry, targets: Iterable[str], *, r: int) -> int:
    """Parameters that LoRA trains: r · (d_in + d_out) over the targeted matrices. A task head is not in it.

    Source: Hu et al. 2021, section 4.1, for matrices of any shape.

    Raises:
        SpecError: a target names no matrix.
    """
    return sum(m.experts * r * (m.d_in + m.d_out) for m in geometry.targeted(targets))


def head_params(geometry: Geometry, head_modules: Iterable[str]) -> int:
    """Parameters of a task head that is trained in full, its bias included."""
    heads = tuple(head_modules)
    if not heads:
        return 0
    within = tuple(f"{head}." for head in heads)
    return sum(m.weight_params + m.bias_params for m in geometry.matrices if m.name in heads or m.name.startswith(within))


def targeted(geometry: Geometry, spec: MethodSpec) -> tuple[Matrix, ...]:
    """The matrices that a method adapts, kept to `layers_to_transform`.

    Raises:
        SpecError: a target names no matrix, or no layer is left.
    """
    if not METHODS[spec.method].has_targets:
        return ()
    return geometry.targeted(spec.targets, spec.layers_to_transform)


def rank_of(spec: MethodSpec, name: str) -> int:
    """The rank of one module: `rank_pattern` where it matches as PEFT matches, else r."""
    return _own_rank(spec, name) or spec.r


def _own_rank(spec: MethodSpec, name: str) -> int | None:
    return next((r for pattern, r in spec.rank_pattern if re.match(rf"(.*\.)?({pattern})$", name)), None)


def _shapes(geometry: Geometry, spec: MethodSpec) -> Iterator[tuple[Matrix, int, int]]:
    """The adapted matrices by shape: (one of them, its rank, how many there are)."""

    def count() -> list[tuple[Matrix, int | None, int]]:
        alike: dict[object, tuple[Matrix, int | None, list[None]]] = {}
        for m in targeted(geometry, spec):
            own = _own_rank(spec, m.name)
            alike.setdefault((m.role, m.d_out, m.d_in, m.experts, m.bias, own), (m, own, []))[2].append(None)
        return [(m, own, len(found)) for m, own, found in alike.values()]

    counted = geometry.once(("shapes", spec.targets, spec.layers_to_transform, spec.rank_pattern), count)
    return ((m, own or spec.r, n) for m, own, n in counted)


def _lora(geometry: Geometry, spec: MethodSpec) -> list[Term]:
    """r (d_in + d_out) a matrix; a 3-D stack of experts has factors for each expert."""
    return [
        Term(
            f"B and A of {m.role}", f"{_times(n, m.experts)} · {r} · ({m.d_out} + {m.d_in})", n * m.experts * r * (m.d_out + m.d_in)
        )
        for m, r, n in _shapes(geometry, spec)
    ]


def _dora(geometry: Geometry, spec: MethodSpec) -> list[Term]:
    magnitudes = [Term(f"magnitude of {m.role}", f"{n} · {m.d_out}", n * m.d_out) for m, _, n in _shapes(geometry, spec)]
    return _lora(geometry, spec) + magnitudes


def _vera(geometry: Geometry, spec: MethodSpec) -> list[Term]:
    """Two vectors a matrix, d of length r and b of length d_out; A and B are drawn once, shared and frozen."""
    return [
        Term(f"vectors of {m.role}", f"{n} · ({spec.r} + {m.d_out})", n * (spec.r + m.d_out)) for m, _, n in _shapes(geometry, spec)
    ]


def _adalora(geometry: Geometry, spec: MethodSpec) -> list[Term]:
    matrices = targeted(geometry, spec)
    diagonal = Term("Λ of each matrix", f"{len(matrices)} · {spec.r}", len(matrices) * spec.r)
    return [*_lora(geometry, spec), diagonal]


def _ia3(geometry: Geometry, spec: MethodSpec) -> list[Term]:
    """A vector a matrix: over its outputs, or over its inputs where it is the MLP's way down."""
    widths = [(m.role, m.d_in if m.role == "down" else m.d_out, n) for m, _, n in _shapes(geometry, spec)]
    return [Term(f"vector of {role}", f"{n} · {width}", n * width) for role, width, n in widths]


def _ln_tuning(geometry: Geometry, spec: MethodSpec) -> list[Term]:
    norms = Counter(norm.params for norm in geometry.norms if _kept(norm.layer, spec))
    return _needed([Term("norms", f"{n} · {params}", n * params) for params, n in norms.items()], "norms", spec)


def _bitfit(geometry: Geometry, spec: MethodSpec) -> list[Term]:
    return _needed(_all_biases(geometry, spec), "biases", spec)


def _all_biases(geometry: Geometry, spec: MethodSpec) -> list[Term]:
    heads = geometry.task_heads
    parts: tuple[Matrix | Norm | Loose, ...] = (*geometry.matrices, *geometry.norms, *geometry.loose)
    own = (p for p in parts if _kept(p.layer, spec) and p.bias_params and not p.name.startswith(heads or ("\0",)))
    sizes = Counter(p.bias_params for p in own)
    return [Term("biases", f"{n} · {size}", n * size) for size, n in sizes.items()]


def _needed(terms: list[Term], what: str, spec: MethodSpec) -> list[Term]:
    if not terms:
        raise SpecError(
            out_of_range("method", "MethodSpec", f"one that finds what it trains; this base has no {what}", spec.method)
        )
    return terms


def _kept(layer: int | None, spec: MethodSpec) -> bool:
    return spec.layers_to_transform is None or layer in spec.layers_to_transform


def _hidden(geometry: Geometry) -> int:
    if geometry.architecture is None or not geometry.architecture.hidden:
        raise SpecError("A method counted by width must have a model with a hidden_size. Got one without.")
    return geometry.architecture.hidden


def _adapters_a_block(each: int) -> Callable[[Geometry, MethodSpec], list[Term]]:
    def adapter(geometry: Geometry, spec: MethodSpec) -> list[Term]:
        """2 d r + r + d an adapter: two matrices and their biases (the paper's formula, its LayerNorm term left out)."""
        n, d, r = each * len(geometry.kept_stacks(spec.layers_to_transform)), _hidden(geometry), spec.r
        return [Term("bottlenecks", f"{n} · (2 · {d} · {r} + {r} + {d})", n * (2 * d * r + r + d))]

    return adapter


def _prefix(geometry: Geometry, spec: MethodSpec) -> list[Term]:
    """Keys and values of the virtual tokens in every layer, at the width that the keys have."""
    _hidden(geometry)
    architecture = geometry.architecture
    assert architecture is not None
    layers, width = architecture.layers, architecture.kv_width
    return [Term("keys and values", f"{spec.r} · {layers} · 2 · {width}", spec.r * layers * 2 * width)]


def _preembed(geometry: Geometry, spec: MethodSpec) -> list[Term]:
    """The virtual tokens' embeddings; PEFT gives an encoder and a decoder some each."""
    _hidden(geometry)
    tokens, d = (2 * spec.r if geometry.is_encoder_decoder else spec.r), geometry.token_width
    return [Term("virtual tokens", f"{tokens} · {d}", tokens * d)]


def _prelayer(geometry: Geometry, spec: MethodSpec) -> list[Term]:
    n, d = len(geometry.blocks), _hidden(geometry)
    return [Term("activations after every layer", f"{n} · {d} · {spec.r}", n * d * spec.r)]


def _partial(geometry: Geometry, spec: MethodSpec) -> list[Term]:
    stacks = geometry.top_layers(spec.r, spec.layers_to_transform)
    sizes: Counter[str] = Counter()
    for part in geometry.parts():  # T5 keeps an embedding in a layer
        if stack_of(part.name) in stacks:
            sizes[stack_of(part.name)] += part.params
    return [Term("layers", f"{n} · {size}", n * size) for size, n in Counter(sizes.values()).items()]


def _full(geometry: Geometry, _: MethodSpec) -> list[Term]:
    heads = head_params(geometry, geometry.task_heads)
    return [Term("every parameter", str(geometry.total_params - heads), geometry.total_params - heads)]


def _bias_terms(geometry: Geometry, spec: MethodSpec) -> list[Term]:
    """`bias="lora_only"` trains the biases of the adapted matrices, `"all"` every bias of the base."""
    if spec.bias == "none" or spec.method in ("bitfit", "full", "partial"):
        return []
    if spec.bias == "all":
        so_called = tuple(p for p in geometry.loose if p.name.endswith(".bias"))  # PEFT overlooks GPT-OSS's down_proj_bias
        return _all_biases(replace(geometry, loose=so_called), MethodSpec())
    sizes = Counter(m.bias_params for m in targeted(geometry, spec) if m.bias)
    return [Term("biases of the targets", f"{n} · {size}", n * size) for size, n in sizes.items()]


def _times(n: int, experts: int) -> str:
    return f"{n}" if experts == 1 else f"{n} · {experts}"


_COUNTS: dict[str, Callable[[Geometry, MethodSpec], list[Term]]] = {
    **dict.fromkeys(("lora", "rslora", "lora+", "qlora"), _lora),
    "dora": _dora,
    "vera": _vera,
    "adalora": _adalora,
    "ia3": _ia3,
    "ln_tuning": _ln_tuning,
    "bitfit": _bitfit,
    "adapter": _adapters_a_block(2),
    "adapter_pfeiffer": _adapters_a_block(1),
    "prefix": _prefix,
    "preembed": _preembed,
    "prelayer": _prelayer,
    "partial": _partial,
    "full": _full,
}
