"""The runs of a sweep that differ in their seed alone, taken together: plain numbers that print and pickle without torch."""

from dataclasses import asdict, dataclass
from typing import Any

from lora_lab.analysis.method_records import Difference, OverSeeds, Place, Values, mean_of, sd_of
from lora_lab.metrics import Scored
from lora_lab.specs import RunSpec


@dataclass(frozen=True, slots=True)
class Configuration(OverSeeds):
    """One choice of everything but the seed.

    Args:
        number: its own among those it is ranked with.
        spec: of its run with the first seed.
        seeds: of its runs.
        scores: the metric on the validation split, one a seed; None where a run diverged.
        test_scores: the same on the test split, which nothing was chosen by.
        run_ids: one a seed.
        trainable_params: of one run.
    """

    number: int
    spec: RunSpec
    seeds: tuple[int, ...]
    scores: Values
    test_scores: Values
    run_ids: tuple[str, ...]
    trainable_params: int | None = None

    @property
    def name(self) -> tuple[str, int | None]:
        """What tells it from every other."""
        return "configuration", self.number


@dataclass(frozen=True, slots=True)
class Ranked(Place):
    """A configuration with the places that the spread over seeds leaves open to it; None where it has no mean."""

    row: Configuration
    best: int | None
    worst: int | None


@dataclass(frozen=True, slots=True)
class Ranking(Scored):
    """Configurations of one bench from the best mean on the validation split to the worst, and the pairs behind their places."""

    metric_name: str
    ranked: tuple[Ranked, ...]
    pairs: tuple[Difference, ...]

    @property
    def best(self) -> Configuration | None:
        """The best mean on the validation split."""
        return next((one.row for one in self.ranked if one.row.mean is not None), None)

    def between(self, first: Configuration, second: Configuration) -> Difference | None:
        """The pair of these two, whichever way round it was reckoned; None where they were not compared."""
        wanted = {first.name, second.name}
        return next((pair for pair in self.pairs if {pair.first, pair.second} == wanted), None)

    def to_json(self) -> list[dict[str, Any]]:
        """A row a configuration, best first, with what is reckoned from it."""
        return [_row(one) for one in self.ranked]


def _row(one: Ranked) -> dict[str, Any]:
    row = one.row
    test = {"test_mean": mean_of(row.test_scores), "test_sd": sd_of(row.test_scores)}
    reckoned = {"place": one.text, "mean": row.mean, "sd": row.sd, **test}
    return {**asdict(row), "spec": row.spec.to_json(), **reckoned}
