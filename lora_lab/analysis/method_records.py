"""What the method bench found, and what may be said of it: plain numbers that print, draw and pickle without torch."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import mean, stdev
from typing import Any

from lora_lab.events import Kept
from lora_lab.metrics import Scored

Values = Sequence[float | None]
Point = tuple[int | float, int | float]


def mean_of(values: Values) -> float | None:
    """The mean; None where a value is missing, for what is left would be the mean of something else.

    >>> mean_of([1.0, 3.0]), mean_of([1.0, None]), mean_of([])
    (2.0, None, None)
    """
    known = [value for value in values if value is not None]
    return mean(known) if known and len(known) == len(values) else None


def sd_of(values: Values) -> float | None:
    """The sample standard deviation; None for fewer than two values, or where one is missing.

    >>> sd_of([1.0, 3.0]), sd_of([1.0])
    (1.4142135623730951, None)
    """
    known = [value for value in values if value is not None]
    return stdev(known) if len(known) > 1 and len(known) == len(values) else None


class OverSeeds:
    """Whatever has a score a seed."""

    __slots__ = ()
    scores: Values

    @property
    def mean(self) -> float | None:
        """The mean of the scores; None where a seed has none."""
        return mean_of(self.scores)

    @property
    def sd(self) -> float | None:
        """Their standard deviation over the seeds."""
        return sd_of(self.scores)


class Place:
    """Whatever has the places that the spread over seeds leaves open to it."""

    __slots__ = ()
    best: int | None
    worst: int | None

    @property
    def text(self) -> str:
        """The place as people read it: "1", "2–4", nothing where there is none."""
        if self.best is None:
            return ""
        return str(self.best) if self.best == self.worst else f"{self.best}–{self.worst}"


@dataclass(frozen=True, slots=True)
class RateScore:
    """One learning rate that was tried: its validation score over the seeds, None where a seed diverged."""

    learning_rate: float
    validation: float | None
    validation_loss: float | None
    diverged: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class MethodRow(OverSeeds):
    """One method at one budget, at the learning rate that the validation split chose; what it scored on the test split.

    Args:
        method: its name.
        r: the budget; None for a method without r.
        learning_rate: the chosen one.
        rates: every rate tried, in order, the chosen one among them.
        at_edge: the chosen rate is the lowest or highest tried, so that a better one may lie beyond.
        seeds: the seeds of the chosen rate.
        scores: the metric on the test split, one a seed; None where the run diverged.
        validation: mean score on the validation split, what rate and budget are chosen by.
        step_s: seconds a step, the median of the runs.
        memory_bytes: peak memory as the formula predicts it.
        measured_bytes: and as a GPU's allocator counted it.
        kept: what forgetting is measured by.
        before: what the base could, one a seed.
        after: what it still can, one a seed.
    """

    method: str
    r: int | None
    learning_rate: float
    rates: tuple[RateScore, ...]
    at_edge: bool
    seeds: tuple[int, ...]
    scores: tuple[float | None, ...]
    validation: float | None
    trainable_params: int
    head_params: int
    run_ids: tuple[str, ...] = ()
    diverged: tuple[int, ...] = ()
    base_score: float | None = None
    validation_loss: float | None = None
    file_bytes: int | None = None
    step_s: float | None = None
    memory_bytes: int | None = None
    memory_is_bound: bool = False
    measured_bytes: int | None = None
    kept: Kept | None = None
    before: tuple[float | None, ...] = ()
    after: tuple[float | None, ...] = ()

    @property
    def name(self) -> tuple[str, int | None]:
        """What tells the row from every other of its bench."""
        return self.method, self.r

    @property
    def adapter_params(self) -> int:
        """What is trained besides a task head."""
        return self.trainable_params - self.head_params

    @property
    def changes(self) -> tuple[float | None, ...]:
        """What the base can now less what it could, one a seed."""
        pairs = zip(self.before, self.after, strict=True)
        return tuple(None if a is None or b is None else a - b for b, a in pairs)

    def to_json(self) -> dict[str, Any]:
        """The row with everything that is reckoned from it."""
        forgetting = {
            "kept": self.kept,
            "before": mean_of(self.before),
            "after": mean_of(self.after),
            "after_sd": sd_of(self.after),
            "change": mean_of(self.changes),
            "change_sd": sd_of(self.changes),
        }
        reckoned = {"mean": self.mean, "sd": self.sd, "adapter_params": self.adapter_params}
        return {**asdict(self), **reckoned, "forgetting": forgetting if self.kept else None}


@dataclass(frozen=True, slots=True)
class MethodTable(Scored):
    """The bench's rows, a method's budgets together, smallest first.

    `unsettled` are methods some of whose rates have not been tried by every seed: what they can is not known yet.
    """

    bench: str
    metric_name: str
    rows: tuple[MethodRow, ...]
    seeds: tuple[int, ...] = ()
    test_examples: int | None = None
    unsettled: tuple[str, ...] = ()

    def of(self, method: str) -> tuple[MethodRow, ...]:
        """The rows of one method."""
        return tuple(row for row in self.rows if row.method == method)

    def chosen(self) -> tuple[MethodRow, ...]:
        """One row a method: the budget that is best on the validation split."""
        methods = dict.fromkeys(row.method for row in self.rows)
        return tuple(max(self.of(method), key=self._by_validation) for method in methods)

    def _by_validation(self, row: MethodRow) -> tuple[float, ...]:
        if row.validation is None:
            return (0.0, 0.0, 0.0)
        return (1.0, self.sign * row.validation, -(row.validation_loss or 0.0))


@dataclass(frozen=True, slots=True)
class Difference:
    """Two rows' means, first less second, with half the width of its 95 % interval; `p` of this pair alone, and `holm` among all.

    None where a row has no mean, or nothing tells how far seeds spread.
    """

    first: tuple[str, int | None]
    second: tuple[str, int | None]
    difference: float | None
    half_width: float | None
    p: float | None
    holm: float | None

    @property
    def is_told(self) -> bool:
        """Whether the spread over seeds supports that they differ, all pairs considered."""
        return self.holm is not None and self.holm < 0.05

    def to_json(self) -> dict[str, Any]:
        """The pair with its verdict."""
        return {**asdict(self), "told": self.is_told, "told_alone": self.is_told_alone}

    @property
    def is_told_alone(self) -> bool:
        """Whether it would, had nothing else been compared."""
        return self.p is not None and self.p < 0.05


@dataclass(frozen=True, slots=True)
class Placed(Place):
    """A row with the places that the spread over seeds leaves open to it; None where it has no mean, or is not settled."""

    row: MethodRow
    best: int | None
    worst: int | None

    def to_json(self) -> dict[str, Any]:
        """Which row has which places."""
        row = {"method": self.row.method, "r": self.row.r, "mean": self.row.mean, "sd": self.row.sd}
        return {**row, "place": self.text, "best": self.best, "worst": self.worst}


@dataclass(frozen=True, slots=True)
class Curve:
    """What more parameters do to one method: from its smallest budget to its chosen one, and on to its largest."""

    method: str
    smallest: MethodRow
    chosen: MethodRow
    largest: MethodRow
    gain: Difference | None
    loss: Difference | None

    @property
    def falls(self) -> bool:
        """Whether the largest budget is told to be worse than the chosen one."""
        return self.loss is not None and self.loss.is_told


@dataclass(frozen=True, slots=True)
class Comparison:
    """What may be said of a bench: the methods in order, the pairs behind it, LoRA against full fine-tuning, the curves."""

    order: tuple[Placed, ...]
    pairs: tuple[Difference, ...]
    lora_and_full: Difference | None
    curves: tuple[Curve, ...]
    sign: int = 1

    def between(self, first: MethodRow, second: MethodRow) -> Difference | None:
        """The pair of these two rows, whichever way round it was reckoned."""
        wanted = {first.name, second.name}
        return next((pair for pair in self.pairs if {pair.first, pair.second} == wanted), None)

    def place(self, row: MethodRow) -> str:
        """The place of a chosen row; nothing for another budget."""
        return next((placed.text for placed in self.order if placed.row.name == row.name), "")


def front(points: Iterable[Point], *, x_sign: int, y_sign: int) -> tuple[Point, ...]:
    """The points that no other beats on both axes, from small x to large; a sign is 1 where more is better, else -1.

    >>> front([(1, 1), (2, 3), (3, 2)], x_sign=-1, y_sign=1)
    ((1, 1), (2, 3))
    """
    found: list[Point] = []
    for x, y in sorted(set(points), key=lambda point: (-x_sign * point[0], -y_sign * point[1])):
        if not found or y_sign * y > y_sign * found[-1][1]:
            found.append((x, y))
    return tuple(sorted(found))
