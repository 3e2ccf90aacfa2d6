"""Frozen descriptions of something to do. They refuse bad values at once, turn into JSON and back, and name their run.

MethodSpec is what to attach (`LoraSpec` writes one in PEFT's words), StepSpec one training step of it as a budget needs it,
RunSpec one run whole. Many runs are a SweepSpec or a SearchSpec, in files of their own.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal, get_args

from lora_lab.errors import SpecError, out_of_range

ALL_LINEAR = "all-linear"
Number = int | float  # a user may write alpha 16 or 16.0: both are kept as 16.0, and name one run
_SCHEMA = 5  # raise it when a field changes what a run is: old ids then stay apart from new ones


def _require(ok: bool, parameter: str, owner: object, allowed: str, got: object) -> None:
    if not ok:
        raise SpecError(out_of_range(parameter, type(owner).__name__, allowed, got))


def _is_int(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_number(value: object, *, above: Number) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > above


def _is_pattern(text: object) -> bool:
    try:
        return bool(re.compile(str(text)))
    except re.error:
        return False


def _as_floats(spec: object, *names: str) -> None:
    for name in names:
        object.__setattr__(spec, name, float(getattr(spec, name)))


@dataclass(frozen=True, slots=True)
class Method:
    """A way to fine-tune: its name among people, and what `r` means to it ("" where it has none).

    `lr_factor` is the learning rate it takes where nothing is said, as a multiple of what LoRA takes on the same bench: the best of
    three or four tried on the digits, turned and inverted, with one seed.
    """

    label: str
    r_is: str = "rank"
    has_targets: bool = True
    default_targets: tuple[str, ...] = ("q", "v")
    lr_factor: float = 1.0


METHODS: dict[str, Method] = {
    "lora": Method("LoRA"),
    "rslora": Method("rsLoRA"),
    "lora+": Method("LoRA+", lr_factor=0.2),
    "dora": Method("DoRA"),
    "vera": Method("VeRA", lr_factor=20.0),
    "adalora": Method("AdaLoRA", r_is="initial rank", lr_factor=4.0),
    "qlora": Method("QLoRA"),
    "lora+prefix": Method("LoRA with prefix"),
    "lora+preembed": Method("LoRA with PreEmbed"),
    "ia3": Method("IA³", r_is="", default_targets=("k", "v", "down"), lr_factor=20.0),
    "ln_tuning": Method("LayerNorm tuning", r_is="", has_targets=False, lr_factor=10.0),
    "bitfit": Method("BitFit", r_is="", has_targets=False, lr_factor=4.0),
    "adapter": Method("Adapter (Houlsby)", r_is="bottleneck width", has_targets=False, lr_factor=2.0),
    "adapter_pfeiffer": Method("Adapter (Pfeiffer)", r_is="bottleneck width", has_targets=False, lr_factor=4.0),
    "prefix": Method("Prefix tuning", r_is="virtual tokens", has_targets=False),
    "preembed": Method("PreEmbed (prompt)", r_is="virtual tokens", has_targets=False),
    "prelayer": Method("PreLayer", r_is="virtual tokens", has_targets=False),
    "partial": Method("Top layers", r_is="top layers", has_targets=False, lr_factor=0.2),
    "full": Method("Full fine-tuning", r_is="", has_targets=False, lr_factor=0.4),
}
COMBINED = {"lora+prefix": "prefix", "lora+preembed": "preembed"}  # LoRA, and the method of virtual tokens beside it
PLAIN_LORA = ("lora", "rslora", "lora+", "qlora", *COMBINED)  # W0 + scaling B A and nothing else on a matrix
LORA_KIN = (*PLAIN_LORA, "dora", "vera", "adalora")
FACTORED = (*PLAIN_LORA, "vera", "adalora")  # their ΔW is a product of thin factors, and not a dense change or none
IN_PLACE = ("full", "partial", "bitfit")  # they train the base's own parameters
MOVING_INITS = ("pissa", "olora")  # start values that are taken out of the base, so that it moves
Bias = Literal["none", "all", "lora_only"]
Dtype = Literal["bf16", "fp16", "fp32"]
Quant = Literal["none", "int8", "nf4", "nf4-dq"]
AdapterDtype = Literal["fp32", "bf16"]
Optimizer = Literal["adamw", "adamw8bit", "paged-adamw8bit", "adafactor", "sgd"]
Attention = Literal["sdpa", "flash", "eager"]
Init = Literal["default", "gaussian", "orthogonal", "pissa", "olora", "eva", "loftq"]
Task = Literal["", "classification", "regression", "completion", "text"]
COLUMNS = ("text_column", "label_column", "pair_column", "prompt_column", "completion_column")  # what of a DataSpec names one


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodSpec:
    """Any method in PEFT's words. `r` is the rank, the bottleneck width, the virtual tokens or the top layers, as `METHODS` says.

    No targets means the method's own. `layers_to_transform` keeps the method to these layers; a key of `rank_pattern` is
    a regular expression for the end of a module's name, as in PEFT. `init_lora_weights` are the start values of A and B,
    `default` being PEFT's True (A Kaiming-uniform, B zero). Where LoRA goes with a prefix or a prompt, `num_virtual_tokens`
    is the length of that.

    Source: Hu et al. 2021 (arXiv 2106.09685), section 4; rsLoRA: Kalajdzievski 2023 (arXiv 2312.03732).
    """

    method: str = "lora"
    r: int = 8
    lora_alpha: Number = 16.0
    lora_dropout: Number = 0.0
    target_modules: tuple[str, ...] = ()
    layers_to_transform: tuple[int, ...] | None = None
    rank_pattern: tuple[tuple[str, int], ...] = ()
    bias: Bias = "none"
    init_lora_weights: Init = "default"
    num_virtual_tokens: int = 8

    def __post_init__(self) -> None:
        _require(self.method in METHODS, "method", self, f"one of {', '.join(METHODS)}", self.method)
        for name in ("r", "num_virtual_tokens"):
            value = getattr(self, name)
            _require(_is_int(value, 1), name, self, "an int of at least 1", value)
        _require(_is_number(self.lora_alpha, above=0), "lora_alpha", self, "a number above 0", self.lora_alpha)
        dropout_ok = isinstance(self.lora_dropout, int | float) and 0 <= self.lora_dropout < 1
        _require(dropout_ok, "lora_dropout", self, "a number in 0..1, 1 left out", self.lora_dropout)
        names = self.target_modules
        names_ok = isinstance(names, tuple) and all(isinstance(n, str) and n for n in names)
        _require(names_ok, "target_modules", self, "a tuple of names", names)
        layers = self.layers_to_transform
        layers_ok = layers is None or (bool(layers) and all(_is_int(layer, 0) for layer in layers))
        _require(layers_ok, "layers_to_transform", self, "at least one layer, numbered from 0", layers)
        ranks_ok = all(_is_pattern(pattern) and _is_int(r, 1) for pattern, r in self.rank_pattern)
        _require(ranks_ok, "rank_pattern", self, "made of regular expressions with ranks of at least 1", self.rank_pattern)
        for name, choices in (("bias", get_args(Bias)), ("init_lora_weights", get_args(Init))):
            value = getattr(self, name)
            _require(value in choices, name, self, f"one of {', '.join(choices)}", value)
        if layers is not None:  # however they were named
            object.__setattr__(self, "layers_to_transform", tuple(sorted(set(layers))))
        _as_floats(self, "lora_alpha", "lora_dropout")

    @property
    def targets(self) -> tuple[str, ...]:
        """The targets, the method's own where none are given; none where it takes none."""
        info = METHODS[self.method]
        return (self.target_modules or info.default_targets) if info.has_targets else ()

    @property
    def has_r(self) -> bool:
        """Whether r means something to the method."""
        return bool(METHODS[self.method].r_is)

    @property
    def has_alpha(self) -> bool:
        """Whether lora_alpha means something to the method: VeRA's vectors are its scaling."""
        return self.method in LORA_KIN and self.method != "vera"

    @property
    def scaling(self) -> float:
        """The factor of B A: lora_alpha / r, or lora_alpha / sqrt(r) with rsLoRA."""
        return self.lora_alpha / (math.sqrt(self.r) if self.method == "rslora" else self.r)

    @property
    def virtual_tokens(self) -> int:
        """Virtual tokens that the method puts before a text."""
        if self.method in COMBINED:
            return self.num_virtual_tokens
        return self.r if METHODS[self.method].r_is == "virtual tokens" else 0

    def parts(self) -> tuple["MethodSpec", ...]:
        """The methods that this one is made of: LoRA and the one of virtual tokens, or itself."""
        if self.method not in COMBINED:
            return (self,)
        return replace(self, method="lora"), MethodSpec(method=COMBINED[self.method], r=self.num_virtual_tokens)

    @property
    def unused_fields(self) -> tuple[str, ...]:
        """The fields that the method has no use for."""
        info = METHODS[self.method]
        unused = {
            "r": not self.has_r,
            "lora_alpha": not self.has_alpha,
            "lora_dropout": self.method not in LORA_KIN,
            "target_modules": not info.has_targets,
            "init_lora_weights": self.method not in LORA_KIN,
            "num_virtual_tokens": self.method not in COMBINED,
        }
        return tuple(name for name, is_unused in unused.items() if is_unused)

    def canonical(self) -> "MethodSpec":
        """The same with every field that the method has no use for at its default, so that one thing has one spec.

        Fields that ask for something (layers, patterns, biases) stay: a method that cannot give it says so when it attaches.
        """
        plain = MethodSpec()
        return replace(self, **{name: getattr(plain, name) for name in self.unused_fields})


def LoraSpec(*, use_rslora: bool = False, use_dora: bool = False, **fields: Any) -> MethodSpec:
    """A LoRA adapter in PEFT's words: a MethodSpec of `lora`, `rslora` or `dora`, on q and v where no targets are named.

    Raises:
        SpecError: a value out of range, or both variants at once.

    >>> LoraSpec(r=4, use_rslora=True).scaling
    8.0
    """
    if use_rslora and use_dora:
        raise SpecError(out_of_range("use_dora", "LoraSpec", "False where use_rslora is True", use_dora))
    method = "rslora" if use_rslora else "dora" if use_dora else "lora"
    return MethodSpec(method=method, **fields)


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
    """Data of the user's own choice, and the columns to take.

    `path` is a CSV or JSONL file, the id of a dataset on the Hub (`owner/name`, or `owner/name:config`), or a name of
    `HUB_DATASETS`. A task of "" is told by the columns: prompt and completion, a text as the only column, else text and label.
    """

    path: str
    text_column: str = "text"
    label_column: str = "label"
    sha256: str = ""  # filled in when a run is planned
    task: Task = ""
    prompt_column: str = "prompt"
    completion_column: str = "completion"
    pair_column: str = ""  # of the second text, where a label is of two

    def __post_init__(self) -> None:
        told = ", ".join(filter(None, get_args(Task)))
        _require(self.task in get_args(Task), "task", self, f"one of {told}, or empty", self.task)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """One run, whole: the same RunSpec on the same machine gives the same adapter.

    `base_sha256` is of the base's weights and `data.sha256` of the user's own file, so that a run on other bytes is
    another run. `optimizer` is the name of a class of torch.optim or bitsandbytes.optim; `loraplus_lr_ratio` is LoRA+'s, the
    learning rate of B over that of A. `snapshots` is how many ΔW are kept in all, at even steps, the last of them the final
    adapter itself; with 0 that alone is. The device is not part of it.
    """

    bench: str
    base_sha256: str
    data: DataSpec | None = None
    tuning: MethodSpec = field(default_factory=MethodSpec)
    quant: Quant = "none"
    steps: int = 200
    batch_size: int = 32
    optimizer: str = "AdamW"
    learning_rate: Number = 5e-3
    loraplus_lr_ratio: Number = 16.0
    warmup_steps: int = 10
    weight_decay: Number = 0.0
    max_grad_norm: Number = 1.0
    eval_every_steps: int = 50
    snapshots: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("steps", 0), ("batch_size", 1), ("warmup_steps", 0), ("eval_every_steps", 1), ("seed", 0)):
            value = getattr(self, name)
            _require(_is_int(value, least), name, self, f"an int of at least {least}", value)
        for name in ("learning_rate", "loraplus_lr_ratio", "max_grad_norm"):
            value = getattr(self, name)
            _require(_is_number(value, above=0), name, self, "a number above 0", value)
        few = _is_int(self.snapshots, 0) and self.snapshots <= self.steps
        _require(few, "snapshots", self, f"an int in 0..steps={self.steps}", self.snapshots)
        _require(self.quant in get_args(Quant), "quant", self, f"one of {', '.join(get_args(Quant))}", self.quant)
        decay = self.weight_decay
        decay_ok = isinstance(decay, int | float) and math.isfinite(decay) and decay >= 0
        _require(decay_ok, "weight_decay", self, "a number of at least 0", decay)
        _as_floats(self, "learning_rate", "loraplus_lr_ratio", "weight_decay", "max_grad_norm")

    @property
    def snapshot_steps(self) -> tuple[int, ...]:
        """The steps after which ΔW is kept on the way; the final adapter comes after these.

        >>> RunSpec(bench="digits", base_sha256="", steps=40, snapshots=4).snapshot_steps
        (10, 20, 30)
        """
        return tuple(i * self.steps // self.snapshots for i in range(1, self.snapshots))

    @property
    def run_id(self) -> str:
        """Twelve hex digits: the hash of the spec."""
        return _hash_of(self)

    def to_json(self) -> dict[str, Any]:
        """The spec as a JSON-able dict."""
        return dict(json.loads(json.dumps(asdict(self))))  # tuples become lists, as they do in a file

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "RunSpec":
        """The spec that `to_json` wrote."""
        said = dict(record["tuning"])
        layers = said["layers_to_transform"]
        said["target_modules"] = tuple(said["target_modules"])
        said["layers_to_transform"] = None if layers is None else tuple(layers)
        said["rank_pattern"] = tuple((pattern, r) for pattern, r in said["rank_pattern"])
        data = DataSpec(**record["data"]) if record["data"] else None
        return cls(**{**record, "tuning": MethodSpec(**said), "data": data})


@lru_cache(maxsize=4096)
def _hash_of(spec: RunSpec) -> str:
    canonical = json.dumps({"schema": _SCHEMA, **asdict(spec)}, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(canonical.encode(), digest_size=6).hexdigest()


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
