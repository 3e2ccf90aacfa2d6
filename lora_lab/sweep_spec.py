"""A grid of runs: what may vary in it, and how its values are written on one line."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar

from lora_lab.errors import SpecError, out_of_range
from lora_lab.specs import METHODS, Bias, Init, MethodSpec, Number, Quant, parse_layers

T = TypeVar("T")
Choices: TypeAlias = T | tuple[T, ...]  # one value, or a tuple of them
_SUFFIXES = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "G": 10**9}


@dataclass(frozen=True, slots=True)
class Axis:
    """One thing that may vary among runs: a field of SweepSpec, and the field of MethodSpec or RunSpec that it fills.

    `flag` is what the command line calls it, `separator` what stands between its values on a line, `spans` int or float where
    a range of numbers may be searched.
    """

    flag: str
    fills: str
    of: Literal["tuning", "run"]
    spans: type[int] | type[float] | None = None
    separator: str = ","
    parse: Callable[[str], Any] | None = None

    def read(self, text: str) -> Any:
        """One value.

        Raises:
            SpecError: the text is none.
        """
        if self.parse is not None or self.spans is None:
            return (self.parse or str.strip)(text)
        return self.number(text)

    def number(self, text: str) -> Number:
        """A number that the axis spans.

        Raises:
            SpecError: the text is none.
        """
        kind = self.spans or float
        try:
            return kind(text)
        except ValueError:
            raise SpecError(f"--{self.flag} must be {'an int' if kind is int else 'a number'}. Got {text!r}.") from None

    def read_all(self, text: str) -> tuple[Any, ...]:
        """Every value of a line.

        >>> AXES["r"].read_all("1,2, 8"), AXES["targets"].read_all("q,v;o")
        ((1, 2, 8), (('q', 'v'), ('o',)))
        """
        values = tuple(self.read(part) for part in text.split(self.separator) if part.strip())
        return values or ((self.read(""),) if self.separator == ";" else ())


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


# In the order in which a grid is gone through, the last moving fastest.
AXES: Mapping[str, Axis] = {
    "methods": Axis("method", "method", "tuning"),
    "init_lora_weights": Axis("init", "init_lora_weights", "tuning"),
    "bias": Axis("bias", "bias", "tuning"),
    "targets": Axis("targets", "target_modules", "tuning", separator=";", parse=_names),
    "layers_to_transform": Axis("layers", "layers_to_transform", "tuning", separator=";", parse=parse_layers),
    "r": Axis("r", "r", "tuning", int),
    "lora_alpha": Axis("alpha", "lora_alpha", "tuning", float, parse=str.strip),  # it may be a multiple of r
    "lora_dropout": Axis("dropout", "lora_dropout", "tuning", float),
    "num_virtual_tokens": Axis("virtual-tokens", "num_virtual_tokens", "tuning", int),
    "quant": Axis("quant", "quant", "run"),
    "optimizer": Axis("optimizer", "optimizer", "run"),
    "batch_size": Axis("batch", "batch_size", "run", int),
    "weight_decay": Axis("weight-decay", "weight_decay", "run", float),
    "learning_rate": Axis("lr", "learning_rate", "run", float),
    "loraplus_lr_ratio": Axis("loraplus-ratio", "loraplus_lr_ratio", "run", float),
    "seeds": Axis("seeds", "seed", "run", int),
}
_LEFT_OPEN = ("quant", "optimizer", "batch_size", "weight_decay", "learning_rate", "loraplus_lr_ratio")


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepSpec:
    """A grid of runs: every combination of what is given, each a value or a tuple of them.

    An alpha is a number, or a multiple of the rank such as `"2r"`. No targets are the method's own, no layers (None) all of them.
    What a method has no use for makes no second run of it. None leaves a value to the bench and the method.

    `equal_budget` takes the place of r: each choice of targets (and of whatever else the count depends on) has the r that trains
    nearest to so many parameters, or to as many as the given method does; no more than that, unless `may_exceed`.

    `snapshots` of each run are kept, as RunSpec has it.
    """

    r: Choices[int] = (1, 2, 4, 8)
    lora_alpha: Choices[Number | str] = (16.0,)
    targets: tuple[tuple[str, ...], ...] = ((),)
    layers_to_transform: tuple[tuple[int, ...] | None, ...] = (None,)
    methods: Choices[str] = ("lora",)
    init_lora_weights: Choices[Init] = ("default",)
    bias: Choices[Bias] = ("none",)
    lora_dropout: Choices[Number] = (0.0,)
    num_virtual_tokens: Choices[int] = (8,)
    quant: Choices[Quant] | None = None
    optimizer: Choices[str] | None = None
    batch_size: Choices[int] | None = None
    weight_decay: Choices[Number] | None = None
    learning_rate: Choices[Number] | None = None
    loraplus_lr_ratio: Choices[Number] | None = None
    seeds: Choices[int] = (0,)
    steps: int | None = None
    snapshots: int = 0
    equal_budget: int | MethodSpec | None = None
    may_exceed: bool = False

    def __post_init__(self) -> None:
        for name, axis in AXES.items():
            value = getattr(self, name)
            if isinstance(value, int | float | str) and axis.separator == ",":
                object.__setattr__(self, name, (value,))
            elif not (isinstance(value, tuple) and value) and not (value is None and name in _LEFT_OPEN):
                allowed = "a value or a tuple of them" if axis.separator == "," else "a tuple of at least one choice"
                raise SpecError(out_of_range(name, "SweepSpec", allowed + ", or None" * (name in _LEFT_OPEN), value))
        self._check_budget()

    def _check_budget(self) -> None:
        budget = self.equal_budget
        if budget is None:
            return
        if isinstance(budget, bool) or not (isinstance(budget, MethodSpec) or (isinstance(budget, int) and budget > 0)):
            raise SpecError(
                out_of_range("equal_budget", "SweepSpec", "an int of at least 1, or a method that trains as many", budget)
            )
        without = [method for method in self.choices("methods") if method in METHODS and not METHODS[method].r_is]
        if without:
            raise SpecError(out_of_range("methods", "SweepSpec", "methods with an r where equal_budget is given", without[0]))

    def choices(self, axis: str) -> tuple[Any, ...]:
        """The values of one of `AXES`; a None where it is left open."""
        values = getattr(self, axis)
        return (None,) if values is None else tuple(values)


def parse_budget(text: str, *, method: str = "lora") -> int | MethodSpec:
    """A budget as people write it: a number of parameters, or targets and an r, for as many as those train.

    Args:
        text: such as `18M`, `18,874,368` or `q,v@8`.
        method: whose targets and r they are.

    Raises:
        SpecError: neither.

    >>> parse_budget("18.9M"), parse_budget("18,874,368"), parse_budget("q,v@8").target_modules
    (18900000, 18874368, ('q', 'v'))
    """
    targets, at, r = text.rpartition("@")
    if at and r.strip().isdecimal():
        return MethodSpec(method=method, r=int(r), target_modules=_names(targets))
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMBG]?)", text.replace(",", "").replace("_", "").strip().upper())
    if found is None:
        raise SpecError(f"--equal-budget must be a number such as 18M, or targets and an r such as q,v@8. Got {text!r}.")
    return round(float(found[1]) * _SUFFIXES[found[2]])
