"""Frozen descriptions of something to do. They refuse bad values at once, turn into JSON and back, and name their run.

LoraSpec is what to attach, RunSpec one run whole, SweepSpec a grid of runs. MethodSpec is any method and StepSpec one
training step of it, as a budget needs them.
"""

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from lora_lab.errors import SpecError, out_of_range

ALL_LINEAR = "all-linear"
Number = int | float  # a user may write alpha 16 or 16.0: both are kept as 16.0, and name one run
_SCHEMA = 1  # raise it when a field changes what a run is: old ids then stay apart from new ones


def _require(ok: bool, parameter: str, owner: object, allowed: str, got: object) -> None:
    if not ok:
        raise SpecError(out_of_range(parameter, type(owner).__name__, allowed, got))


def _is_int(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_number(value: object, *, above: Number) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > above


def _as_floats(spec: object, *names: str) -> None:
    for name in names:
        object.__setattr__(spec, name, float(getattr(spec, name)))


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraSpec:
    """A LoRA adapter in PEFT's words. Target names are module-name endings, roles (`q`, `v`) or `all-linear`.

    Source: Hu et al. 2021 (arXiv 2106.09685), section 4; rsLoRA: Kalajdzievski 2023 (arXiv 2312.03732).
    """

    r: int = 8
    lora_alpha: Number = 16.0
    lora_dropout: Number = 0.0
    target_modules: tuple[str, ...] = ("q", "v")
    use_rslora: bool = False

    def __post_init__(self) -> None:
        _require(_is_int(self.r, 1), "r", self, "an int of at least 1", self.r)
        _require(_is_number(self.lora_alpha, above=0), "lora_alpha", self, "a number above 0", self.lora_alpha)
        dropout_ok = isinstance(self.lora_dropout, int | float) and 0 <= self.lora_dropout < 1
        _require(dropout_ok, "lora_dropout", self, "a number in 0..1, 1 left out", self.lora_dropout)
        names = self.target_modules
        names_ok = isinstance(names, tuple) and bool(names) and all(isinstance(n, str) and n for n in names)
        _require(names_ok, "target_modules", self, "a tuple of at least one name", names)
        _as_floats(self, "lora_alpha", "lora_dropout")

    @property
    def scaling(self) -> float:
        """The factor of B A: lora_alpha / r, or lora_alpha / sqrt(r) with rsLoRA."""
        return self.lora_alpha / (math.sqrt(self.r) if self.use_rslora else self.r)


@dataclass(frozen=True, slots=True)
class Method:
    """A way to fine-tune: its name among people, and what `r` means to it ("" where it has none)."""

    label: str
    r_is: str = "rank"
    has_targets: bool = True
    default_targets: tuple[str, ...] = ("q", "v")


METHODS: dict[str, Method] = {
    "lora": Method("LoRA"),
    "rslora": Method("rsLoRA"),
    "lora+": Method("LoRA+"),
    "dora": Method("DoRA"),
    "vera": Method("VeRA"),
    "adalora": Method("AdaLoRA", r_is="initial rank"),
    "qlora": Method("QLoRA"),
    "ia3": Method("IA³", r_is="", default_targets=("k", "v", "down")),
    "ln_tuning": Method("LayerNorm tuning", r_is="", has_targets=False),
    "bitfit": Method("BitFit", r_is="", has_targets=False),
    "adapter": Method("Adapter (Houlsby)", r_is="bottleneck width", has_targets=False),
    "adapter_pfeiffer": Method("Adapter (Pfeiffer)", r_is="bottleneck width", has_targets=False),
    "prefix": Method("Prefix tuning", r_is="virtual tokens", has_targets=False),
    "preembed": Method("PreEmbed (prompt)", r_is="virtual tokens", has_targets=False),
    "prelayer": Method("PreLayer", r_is="virtual tokens", has_targets=False),
    "partial": Method("Top layers", r_is="top layers", has_targets=False),
    "full": Method("Full fine-tuning", r_is="", has_targets=False),
}
LORA_KIN = ("lora", "rslora", "lora+", "dora", "vera", "adalora", "qlora")
Bias = Literal["none", "all", "lora_only"]
Dtype = Literal["bf16", "fp16", "fp32"]
Quant = Literal["none", "int8", "nf4", "nf4-dq"]
AdapterDtype = Literal["fp32", "bf16"]
Optimizer = Literal["adamw", "adamw8bit", "paged-adamw8bit", "adafactor", "sgd"]
Attention = Literal["sdpa", "flash", "eager"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodSpec:
    """Any method in PEFT's words. `r` is the rank, the bottleneck width, the virtual tokens or the top layers, as `METHODS` says.

    No targets means the method's own. `layers_to_transform` keeps the method to these layers; a key of `rank_pattern` is
    a regular expression for the end of a module's name, as in PEFT.
    """

    method: str = "lora"
    r: int = 8
    lora_alpha: Number = 16.0
    lora_dropout: Number = 0.0
    target_modules: tuple[str, ...] = ()
    layers_to_transform: tuple[int, ...] | None = None
    rank_pattern: tuple[tuple[str, int], ...] = ()
    bias: Bias = "none"

    def __post_init__(self) -> None:
        _require(self.method in METHODS, "method", self, f"one of {', '.join(METHODS)}", self.method)
        _require(_is_int(self.r, 1), "r", self, "an int of at least 1", self.r)
        _require(_is_number(self.lora_alpha, above=0), "lora_alpha", self, "a number above 0", self.lora_alpha)
        dropout_ok = isinstance(self.lora_dropout, int | float) and 0 <= self.lora_dropout < 1
        _require(dropout_ok, "lora_dropout", self, "a number in 0..1, 1 left out", self.lora_dropout)
        layers = self.layers_to_transform
        layers_ok = layers is None or (bool(layers) and all(_is_int(layer, 0) for layer in layers))
        _require(layers_ok, "layers_to_transform", self, "at least one layer, numbered from 0", layers)
        ranks_ok = all(_is_int(r, 1) for _, r in self.rank_pattern)
        _require(ranks_ok, "rank_pattern", self, "ranks of at least 1", self.rank_pattern)
        _require(self.bias in get_args(Bias), "bias", self, f"one of {', '.join(get_args(Bias))}", self.bias)
        _as_floats(self, "lora_alpha", "lora_dropout")

    @property
    def targets(self) -> tuple[str, ...]:
        """The targets, the method's own where none are given; none where it takes none."""
        info = METHODS[self.method]
        return (self.target_modules or info.default_targets) if info.has_targets else ()

    @classmethod
    def of(cls, spec: "LoraSpec | MethodSpec") -> "MethodSpec":
        """The MethodSpec that says the same as a LoraSpec."""
        if isinstance(spec, MethodSpec):
            return spec
        return cls(
            method="rslora" if spec.use_rslora else "lora",
            r=spec.r,
            lora_alpha=spec.lora_alpha,
            lora_dropout=spec.lora_dropout,
            target_modules=spec.target_modules,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSpec:
    """One training step, as far as memory feels it: a batch of `batch` sequences, all of `seq` tokens."""

    batch: int = 1
    seq: int = 512
    dtype: Dtype = "bf16"
    quant: Quant = "none"
    adapter_dtype: AdapterDtype = "fp32"
    optimizer: Optimizer = "adamw"
    checkpointing: bool = False
    attention: Attention = "sdpa"
    fused_loss: bool = False
    kbit_prepare: bool = False

    def __post_init__(self) -> None:
        for name in ("batch", "seq"):
            value = getattr(self, name)
            _require(_is_int(value, 1), name, self, "an int of at least 1", value)
        choices = {"dtype": Dtype, "quant": Quant, "adapter_dtype": AdapterDtype, "optimizer": Optimizer, "attention": Attention}
        for name, allowed in choices.items():
            value = getattr(self, name)
            _require(value in get_args(allowed), name, self, f"one of {', '.join(get_args(allowed))}", value)

    @property
    def tokens(self) -> int:
        """Tokens of the batch."""
        return self.batch * self.seq


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSpec:
    """A data file of the user's own, CSV or JSONL, and the columns to take."""

    path: str
    text_column: str = "text"
    label_column: str = "label"
    sha256: str = ""  # filled in when a run is planned


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """One run, whole: the same RunSpec on the same machine gives the same adapter.

    `base_sha256` is of the base's weights and `data.sha256` of the user's own file, so that a run on other bytes is
    another run. The device is not part of it.
    """

    bench: str
    base_sha256: str
    data: DataSpec | None = None
    lora: LoraSpec = field(default_factory=LoraSpec)
    steps: int = 200
    batch_size: int = 32
    learning_rate: Number = 5e-3
    warmup_steps: int = 10
    weight_decay: Number = 0.0
    max_grad_norm: Number = 1.0
    eval_every_steps: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("steps", 0), ("batch_size", 1), ("warmup_steps", 0), ("eval_every_steps", 1), ("seed", 0)):
            value = getattr(self, name)
            _require(_is_int(value, least), name, self, f"an int of at least {least}", value)
        for name in ("learning_rate", "max_grad_norm"):
            value = getattr(self, name)
            _require(_is_number(value, above=0), name, self, "a number above 0", value)
        decay = self.weight_decay
        decay_ok = isinstance(decay, int | float) and math.isfinite(decay) and decay >= 0
        _require(decay_ok, "weight_decay", self, "a number of at least 0", decay)
        _as_floats(self, "learning_rate", "weight_decay", "max_grad_norm")

    @property
    def run_id(self) -> str:
        """Twelve hex digits: the hash of the spec."""
        canonical = json.dumps({"schema": _SCHEMA, **asdict(self)}, sort_keys=True, separators=(",", ":"))
        return hashlib.blake2b(canonical.encode(), digest_size=6).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """The spec as a JSON-able dict."""
        record = asdict(self)
        record["lora"]["target_modules"] = list(self.lora.target_modules)
        return record

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "RunSpec":
        """The spec that `to_json` wrote."""
        lora = {**record["lora"], "target_modules": tuple(record["lora"]["target_modules"])}
        data = DataSpec(**record["data"]) if record["data"] else None
        return cls(**{**record, "lora": LoraSpec(**lora), "data": data})


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepSpec:
    """A grid of runs: every combination of targets, r, alpha, rsLoRA or not, learning rate and seed.

    An alpha is a number, or a multiple of the rank such as `"2r"`. None leaves a value to the bench.
    """

    r: tuple[int, ...] = (1, 2, 4, 8)
    lora_alpha: tuple[Number | str, ...] = (16.0,)
    targets: tuple[tuple[str, ...], ...] = (("q", "v"),)
    learning_rate: tuple[Number, ...] | None = None
    seeds: tuple[int, ...] = (0,)
    steps: int | None = None
    batch_size: int | None = None
    use_rslora: tuple[bool, ...] = (False,)
    lora_dropout: Number = 0.0

    def __post_init__(self) -> None:
        for name in ("r", "lora_alpha", "targets", "seeds", "use_rslora"):
            value = getattr(self, name)
            _require(isinstance(value, tuple) and bool(value), name, self, "a tuple of at least one value", value)
        rates = self.learning_rate
        rates_ok = rates is None or (isinstance(rates, tuple) and bool(rates))
        _require(rates_ok, "learning_rate", self, "a tuple of at least one value, or None", rates)


def resolve_alpha(alpha: Number | str, r: int) -> float:
    """lora_alpha as a number, `"2r"` meaning twice the rank.

    Raises:
        SpecError: the text is neither a number nor a multiple of r.

    >>> resolve_alpha("2r", 8), resolve_alpha("16", 8)
    (16.0, 16.0)
    """
    text = str(alpha).strip()
    try:
        return float(text[:-1] or 1) * r if text.endswith("r") else float(text)
    except ValueError:
        message = out_of_range("lora_alpha", "SweepSpec", "a number above 0, or a multiple of r such as '2r'", alpha)
        raise SpecError(message) from None


def parse_layers(text: str) -> tuple[int, ...] | None:
    """Layers as people write them; nothing, or `all`, is all of them.

    Raises:
        SpecError: neither numbers nor spans of them.

    >>> parse_layers("0-2,5"), parse_layers("")
    ((0, 1, 2, 5), None)
    """
    if text.strip() in ("", "all"):
        return None
    try:
        spans = [span.split("-") for span in text.split(",") if span.strip()]
        return tuple(layer for span in spans for layer in range(int(span[0]), int(span[-1]) + 1))
    except ValueError:
        raise SpecError(out_of_range("layers_to_transform", "MethodSpec", "numbers and spans such as 0-5,8", text)) from None


def unique(values: Iterable[Any]) -> tuple[Any, ...]:
    """The values in their order, each once."""
    return tuple(dict.fromkeys(values))
