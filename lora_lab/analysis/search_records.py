"""What a search found, and what may be said of it: plain numbers that print and pickle without torch."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from lora_lab.analysis.method_records import Difference, OverSeeds, mean_of, sd_of
from lora_lab.metrics import Scored
from lora_lab.specs import Number

Fate = Literal["waiting", "finished", "diverged", "lost"]


@dataclass(frozen=True, slots=True)
class Placed:
    """One trial on one rung: what it scored on the validation split, None where it was not scored, and whether it goes on."""

    trial: int
    run_id: str
    fate: Fate
    score: float | None
    loss: float | None
    goes_on: bool = False


@dataclass(frozen=True, slots=True)
class Rung:
    """The trials of one rung, best first as far as it is known, and the steps that each was trained for."""

    steps: int
    placed: tuple[Placed, ...]

    @property
    def is_settled(self) -> bool:
        """Whether nothing of it waits to be trained."""
        return all(one.fate != "waiting" for one in self.placed)

    def of(self, trial: int) -> Placed | None:
        """How a trial fared on it; None where it did not come so far."""
        return next((one for one in self.placed if one.trial == trial), None)


@dataclass(frozen=True, slots=True)
class Confirmed(OverSeeds):
    """One of the best trials trained again, with seeds that the search did not use.

    Args:
        trial: its number.
        seeds: the further seeds.
        scores: the metric on the validation split, one a seed; None where that is not known, as where a run diverged.
        test_scores: the same on the test split, which nothing was chosen by.
        run_ids: one a seed.
    """

    trial: int
    seeds: tuple[int, ...]
    scores: tuple[float | None, ...]
    test_scores: tuple[float | None, ...]
    run_ids: tuple[str, ...]

    @property
    def name(self) -> tuple[str, int | None]:
        """What tells it from every other."""
        return "trial", self.trial

    def to_json(self) -> dict[str, Any]:
        """The row with what is reckoned from it."""
        test = {"test_mean": mean_of(self.test_scores), "test_sd": sd_of(self.test_scores)}
        return {**asdict(self), "mean": self.mean, "sd": self.sd, **test}


@dataclass(frozen=True, slots=True)
class SearchRecord(Scored):
    """A search: its points, its rungs as far as they have come, the best trials over further seeds, and what tells those apart.

    Args:
        bench: where.
        metric_name: what trials are scored by.
        points: a point of the space a trial, in the order in which they were drawn.
        rungs: the last one may have runs that wait.
        rungs_in_all: as many as there will be.
        confirmed: best mean first.
        pairs: of the confirmed, each with its verdict among all pairs.
    """

    bench: str
    metric_name: str
    points: tuple[Mapping[str, Any], ...]
    rungs: tuple[Rung, ...]
    rungs_in_all: int
    confirmed: tuple[Confirmed, ...] = ()
    pairs: tuple[Difference, ...] = ()

    @property
    def is_settled(self) -> bool:
        """Whether every rung has been trained."""
        return len(self.rungs) == self.rungs_in_all and self.rungs[-1].is_settled

    @property
    def best(self) -> Placed | None:
        """The trial to take: of the confirmed the best mean, else the best of the last rung; None before that is known."""
        if not self.is_settled:
            return None
        confirmed = next((row.trial for row in self.confirmed if row.mean is not None), None)
        return next((one for one in self.ranked() if confirmed in (None, one.trial)), None)

    def ranked(self) -> tuple[Placed, ...]:
        """Every trial with a score, once: those that came farthest first, of equal ones the better."""
        found: dict[int, Placed] = {}
        for rung in reversed(self.rungs):
            for one in rung.placed:
                if one.score is not None:
                    found.setdefault(one.trial, one)
        return tuple(found.values())

    def varied(self, trial: int) -> dict[str, Any]:
        """What of a trial's point is not the same in all."""
        point = self.points[trial]
        differ = {name: value for name, value in point.items() if any(other[name] != value for other in self.points)}
        return differ or dict(point)

    def between(self, first: Confirmed, second: Confirmed) -> Difference | None:
        """The pair of these two, whichever way round it was reckoned."""
        wanted = {first.name, second.name}
        return next((pair for pair in self.pairs if {pair.first, pair.second} == wanted), None)

    def to_json(self) -> dict[str, Any]:
        """Rungs, confirmed trials and the best, each trial with its point."""
        rungs = [{"steps": rung.steps, "trials": [self._told(asdict(one)) for one in rung.placed]} for rung in self.rungs]
        confirmed = [self._told(row.to_json()) for row in self.confirmed]
        best = self.best
        over_seeds = next((row for row in confirmed if best and row["trial"] == best.trial), None)
        chosen = None if best is None else self._told({**asdict(best), "over_seeds": over_seeds})
        return {"rungs": rungs, "confirmed": confirmed, "pairs": [pair.to_json() for pair in self.pairs], "best": chosen}

    def _told(self, row: dict[str, Any]) -> dict[str, Any]:
        return {**row, "point": dict(self.points[row["trial"]])}


def best_first(rows: Sequence[Placed], *, sign: int) -> tuple[Placed, ...]:
    """By score, of equal ones the lower loss, then as they were drawn; those without a score last."""

    def rank(one: Placed) -> tuple[Number, ...]:
        if one.score is None:
            return (1.0, 0.0, 0.0, one.trial)
        return (0.0, -sign * one.score, one.loss or 0.0, one.trial)

    return tuple(sorted(rows, key=rank))
