"""A search: the space that it draws from, how often, and how many of what it draws it trains to the end."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from lora_lab.errors import SpecError, out_of_range
from lora_lab.specs import Number, unique
from lora_lab.sweep_spec import AXES

LEAST_STEPS = 10  # of a run on the first rung, where the number of rungs is left open
_SEARCHED = {axis.flag: name for name, axis in AXES.items() if name != "seeds"}


@dataclass(frozen=True, slots=True)
class Range:
    """The numbers from `low` to `high`, both included; `log` draws their logarithms evenly."""

    low: Number
    high: Number
    log: bool = False

    def __post_init__(self) -> None:
        numbers = all(isinstance(end, int | float) and not isinstance(end, bool) and math.isfinite(end) for end in self.ends)
        if not numbers or not self.low <= self.high or (self.log and self.low <= 0):
            allowed = "two numbers, the lower first" + ", both above 0" * self.log
            raise SpecError(out_of_range("low and high", "Range", allowed, self.ends))

    @property
    def ends(self) -> tuple[Number, Number]:
        """(low, high)."""
        return self.low, self.high


Dimension: TypeAlias = Range | tuple[Any, ...]
Space: TypeAlias = Mapping[str, Dimension]


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSpec:
    """So many trials, each a point of the space drawn at random; with `eta` by successive halving.

    `space` has a Range or a tuple of choices for every axis of a SweepSpec that is not left to the bench and the method; its r is
    8 where it names none. Every trial has the same seed, which is the sampler's too.

    Halving: all trials train for few steps, the best of them, one in `eta`, train anew for `eta` times as many, and so on, the
    last for `steps`. A short run is a run of its own, warm-up and cosine over its own steps. `rungs` are as many as the trials
    allow, the first of at least 10 steps.

    The best `confirm` trials are trained again with `confirm_seeds` seeds that the search did not use: the best score of many
    trials is a lucky one.

    Source: Jamieson and Talwalkar 2016 (arXiv 1502.07943), successive halving.
    """

    space: Space
    trials: int = 16
    steps: int | None = None
    eta: int | None = None
    rungs: int | None = None
    confirm: int = 3
    confirm_seeds: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("trials", 1), ("confirm", 0), ("confirm_seeds", 1), ("seed", 0)):
            self._require_int(name, least)
        for name, least in (("steps", 1), ("eta", 2), ("rungs", 1)):
            if getattr(self, name) is not None:
                self._require_int(name, least)
        if self.eta is None and self.rungs is not None:
            raise SpecError(out_of_range("rungs", "SearchSpec", "None where eta is", self.rungs))
        if self.eta is not None and self.eta > self.trials:
            raise SpecError(out_of_range("trials", "SearchSpec", f"at least eta={self.eta}", self.trials))
        if not isinstance(self.space, Mapping) or not self.space:
            raise SpecError(out_of_range("space", "SearchSpec", "a mapping of at least one axis", self.space))
        for name, dimension in self.space.items():
            _check_dimension(name, dimension)

    def _require_int(self, name: str, least: int) -> None:
        value = getattr(self, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise SpecError(out_of_range(name, "SearchSpec", f"an int of at least {least}", value))

    @property
    def confirming_runs(self) -> int:
        """How many runs the further seeds of the best trials are."""
        return self.confirm * self.confirm_seeds

    def ladder(self, steps: int) -> tuple[tuple[int, int], ...]:
        """(trials, steps) of every rung; one rung without halving.

        Args:
            steps: of the last rung, the spec's own or the bench's.

        Raises:
            SpecError: so few steps or trials have no so many rungs.

        >>> SearchSpec(space={"r": (1, 8)}, trials=27, eta=3).ladder(200)
        ((27, 22), (9, 66), (3, 200))
        """
        eta = self.eta
        if eta is None:
            return ((self.trials, steps),)
        rungs = self.rungs or _most_rungs(self.trials, steps, eta)
        parts = eta ** (rungs - 1)
        if parts > self.trials or parts > steps or (self.rungs is None and rungs == 1):
            allowed = f"at least {parts}" if self.rungs else f"at least {eta * LEAST_STEPS}, for two rungs"
            name, got = ("trials", self.trials) if parts > self.trials else ("steps", steps)
            raise SpecError(out_of_range(name, "SearchSpec", allowed, got))
        return tuple((self.trials // eta**rung, steps // eta ** (rungs - 1 - rung)) for rung in range(rungs))


def _most_rungs(trials: int, steps: int, eta: int) -> int:
    rungs = 1
    while eta**rungs <= trials and steps // eta**rungs >= LEAST_STEPS:
        rungs += 1
    return rungs


def _check_dimension(name: str, dimension: Dimension) -> None:
    if name not in _SEARCHED.values():
        raise SpecError(out_of_range("space", "SearchSpec", f"of the axes {', '.join(_SEARCHED.values())}", name))
    kind = AXES[name].spans
    if isinstance(dimension, Range):
        if kind is None or (kind is int and not all(isinstance(end, int) for end in dimension.ends)):
            allowed = "choices, which have no range" if kind is None else "a Range of two ints, or choices"
            raise SpecError(out_of_range(name, "SearchSpec", allowed, dimension))
    elif not isinstance(dimension, tuple) or not dimension:
        raise SpecError(out_of_range(name, "SearchSpec", "a Range, or a tuple of at least one choice", dimension))


def parse_space(text: str) -> dict[str, Dimension]:
    """A space as people write it on one line.

    Args:
        text: dimensions separated by semicolons, each a flag of `sweep` with a range `low:high` or `low:high:log`, or with
            choices separated by bars.

    Raises:
        SpecError: a dimension is neither.

    >>> parse_space("r=1:64:log; targets=q,v|q,k,v,o")
    {'r': Range(low=1, high=64, log=True), 'targets': (('q', 'v'), ('q', 'k', 'v', 'o'))}
    """
    space: dict[str, Dimension] = {}
    for part in filter(None, map(str.strip, text.split(";"))):
        flag, equals, values = map(str.strip, part.partition("="))
        if not equals or not values or flag not in _SEARCHED or _SEARCHED[flag] in space:
            known = f"each once and of {', '.join(_SEARCHED)}"
            raise SpecError(f"--space must be of parts such as r=1:64:log or targets=q,v|q,k,v,o, {known}. Got {part!r}.")
        space[_SEARCHED[flag]] = _dimension(flag, values)
    return space


def _dimension(flag: str, text: str) -> Dimension:
    axis = AXES[_SEARCHED[flag]]
    if ":" not in text:
        return unique(axis.read(choice) for choice in text.split("|"))
    low, high, *scale = (end.strip() for end in text.split(":"))
    if axis.spans is None or scale not in ([], ["log"]):
        allowed = "low:high or low:high:log, or choices such as a|b" if axis.spans else "choices such as a|b"
        raise SpecError(f"--space must give {flag} as {allowed}. Got {text!r}.")
    return Range(axis.number(low), axis.number(high), log=bool(scale))


def point_text(values: Mapping[str, Any]) -> str:
    """A point of a space as people read it.

    >>> point_text({"r": 8, "targets": ("q", "v"), "layers_to_transform": None, "learning_rate": 0.012})
    'r 8, targets q,v, layers all, lr 0.012'
    """
    return ", ".join(f"{AXES[name].flag} {value_text(name, value)}" for name, value in values.items())


def value_text(name: str, value: Any) -> str:
    """One value of an axis, as a line of the command line has it."""
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "own"
    if value is None:
        return "all" if name == "layers_to_transform" else "own"
    return f"{value:g}" if isinstance(value, float) else str(value)
