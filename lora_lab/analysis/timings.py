"""What was timed side by side, as plain numbers: medians with their spread, ratios within a round, what can be told from 1."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from lora_lab.errors import SpecError, out_of_range

CONFIDENCE = 0.99


@dataclass(frozen=True, slots=True)
class Shape:
    """A batch of `batch` examples of `tokens` tokens each; None where the base reads none."""

    batch: int
    tokens: int | None = None

    @property
    def label(self) -> str:
        """As people read it: `8 × 128`, or `batch 8`."""
        return f"batch {self.batch}" if self.tokens is None else f"{self.batch} × {self.tokens}"

    @property
    def size(self) -> int:
        """Tokens of the batch; its examples where there are none."""
        return self.batch * (self.tokens or 1)


def parse_shape(text: str) -> Shape:
    """A shape as it is typed.

    Raises:
        SpecError: neither a batch size nor a batch size and a length.

    >>> parse_shape("8x128"), parse_shape("64")
    (Shape(batch=8, tokens=128), Shape(batch=64, tokens=None))
    """
    parts = text.strip().lower().replace("×", "x").split("x")
    if len(parts) > 2 or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise SpecError(out_of_range("shape", "latency", "batch x tokens such as 8x128, or a batch size alone", text))
    return Shape(*map(int, parts))


@dataclass(frozen=True, slots=True)
class Spread:
    """A number measured `rounds` times.

    `low` and `high` hold the median of all that could have been measured, at a confidence of 99 % or more whatever its
    distribution; None where there are too few rounds (below 8) for that.
    """

    rounds: int
    median: float
    q1: float
    q3: float
    least: float
    low: float | None
    high: float | None


def spread(values: Sequence[float]) -> Spread:
    """Median, quartiles, least value, and the interval of order statistics that holds the median: the sign test's.

    The k-th least and the k-th largest of n hold it unless fewer than k values fall on one side, with a chance of
    2 · P(Bin(n, 1/2) < k).

    >>> spread([3.0, 1.0, 2.0]).median, spread([3.0, 1.0, 2.0]).low
    (2.0, None)
    """
    ordered, n = sorted(values), len(values)
    k = _rank_of_bound(n)
    low, high = (ordered[k - 1], ordered[n - k]) if k else (None, None)
    return Spread(n, median(ordered), _quantile(ordered, 0.25), _quantile(ordered, 0.75), ordered[0], low, high)


def _rank_of_bound(n: int) -> int:
    """The largest k whose interval misses the median at most once in a hundred; 0 where there is none."""
    missed, k = 0.0, 0
    while k < n // 2 + 1:
        missed += 2 * math.comb(n, k) / 2**n
        if missed > 1 - CONFIDENCE:
            break
        k += 1
    return k


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Linear between the two values that it falls between."""
    place = share * (len(ordered) - 1)
    below, above = math.floor(place), math.ceil(place)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


@dataclass(frozen=True, slots=True)
class Timing:
    """One forward pass of a variant at a shape: seconds, and its time over the base's in the same round.

    `ratio` is None for the base itself. Dividing within a round takes out what slows a whole round down.
    """

    name: str
    seconds: Spread
    ratio: Spread | None

    @property
    def told(self) -> bool | None:
        """Whether it can be told from the base: the interval of the ratio leaves out 1. None where nothing can be said."""
        if self.ratio is None or self.ratio.low is None or self.ratio.high is None:
            return None
        return not self.ratio.low <= 1 <= self.ratio.high


@dataclass(frozen=True, slots=True)
class ShapeTimings:
    """All variants at one shape, the base first."""

    shape: Shape
    timings: tuple[Timing, ...]

    def of(self, name: str) -> Timing | None:
        """The timing of a variant, where it was timed."""
        return next((timing for timing in self.timings if timing.name == name), None)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A variant that was not timed, and why; at one shape, or at all of them."""

    name: str
    why: str
    shape: Shape | None = None


@dataclass(frozen=True, slots=True)
class Latency:
    """Forward passes of a base and of what adapts it, round by round in turn.

    Attributes:
        source: the bench or the model.
        params: the base's parameters.
        r: rank of LoRA, width of the bottlenecks, tokens of the prefix.
        device: `cpu`, `cuda` or `mps`, and how many `threads` computed on the CPU.
        dtype: what the weights are kept in.
    """

    source: str
    params: int
    r: int
    device: str
    threads: int
    dtype: str
    shapes: tuple[ShapeTimings, ...]
    refused: tuple[Refusal, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The variants that were timed, in their order, the base first."""
        return tuple(dict.fromkeys(timing.name for at in self.shapes for timing in at.timings))


def timings_of(times_s: dict[str, list[float]]) -> tuple[Timing, ...]:
    """Times a round each, of the base and of variants: each with its ratio to the base of the same round."""
    base = times_s["base"]
    ratios = {name: [a / b for a, b in zip(times, base, strict=True)] for name, times in times_s.items() if name != "base"}
    return tuple(Timing(name, spread(times), spread(ratios[name]) if name in ratios else None) for name, times in times_s.items())


@dataclass(frozen=True, slots=True)
class LogitDifference:
    """The largest absolute difference of a logit, merged against unmerged, all weights in `dtype`.

    `difference` and `largest_logit` are None where it could not be computed, and `why` says why.
    """

    dtype: str
    difference: float | None
    largest_logit: float | None
    why: str = ""

    @property
    def relative(self) -> float | None:
        """The difference as a share of the largest |logit|."""
        return self.difference / self.largest_logit if self.difference is not None and self.largest_logit else None


@dataclass(frozen=True, slots=True)
class LogitDifferences:
    """Merged against unmerged, of one adapter in several precisions, on the same `examples`."""

    adapter: str
    examples: str
    ways: tuple[LogitDifference, ...]


@dataclass(frozen=True, slots=True)
class Switch:
    """A way to change the task, and the seconds until the other task's first answer is there; `bytes` is what is read."""

    name: str
    seconds: Spread
    read_bytes: int


@dataclass(frozen=True, slots=True)
class Switching:
    """Changing the task by another adapter against another model; `answer` is a forward pass with nothing to change before it."""

    source: str
    adapter: str
    adapter_bytes: int
    model_bytes: int
    answer: Spread
    ways: tuple[Switch, ...]
    tasks: int
    as_models_bytes: int
    as_adapters_bytes: int
