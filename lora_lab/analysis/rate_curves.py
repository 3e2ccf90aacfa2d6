"""What the learning rate does to each choice of everything else: plain numbers that print and pickle without torch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lora_lab.analysis.configuration_records import Configuration, Ranking
from lora_lab.analysis.method_records import Values
from lora_lab.metrics import Scored
from lora_lab.specs import METHODS, RunSpec


@dataclass(frozen=True, slots=True)
class RateCurve(Scored):
    """One choice of everything but learning rate and seed.

    Attributes:
        metric_name: what it is scored by.
        spec: of its first run, at the lowest rate.
        rates: those tried, lowest first.
        means: score on the validation split at each, over the seeds; None where a seed diverged.
        sds: of those, over the seeds.
    """

    metric_name: str
    spec: RunSpec
    rates: tuple[float, ...]
    means: Values
    sds: Values

    @property
    def best_rate(self) -> float | None:
        """The rate of the best mean; None where every rate diverged."""
        known = [(self.metric.sign * mean, rate) for rate, mean in zip(self.rates, self.means, strict=True) if mean is not None]
        return max(known)[1] if known else None

    @property
    def best_mean(self) -> float | None:
        """The best mean."""
        return None if self.best_rate is None else self.at(self.best_rate)

    def at(self, rate: float) -> float | None:
        """The mean at a rate; None where it was not tried, or a seed diverged."""
        return dict(zip(self.rates, self.means, strict=True)).get(rate)


def rate_curves(ranking: Ranking) -> tuple[RateCurve, ...]:
    """A curve for every choice of everything but rate and seed, methods together, the smaller rank first.

    Args:
        ranking: of the runs of one bench, as `rank_configurations` has it.
    """
    by_choice: dict[RunSpec, list[Configuration]] = {}
    for one in ranking.ranked:
        by_choice.setdefault(replace(one.row.spec, learning_rate=1.0, seed=0), []).append(one.row)
    curves = [_curve(ranking.metric_name, rows) for rows in by_choice.values()]
    methods = list(METHODS)
    return tuple(sorted(curves, key=lambda curve: (methods.index(curve.spec.tuning.method), curve.spec.tuning.r)))


def _curve(metric_name: str, rows: Sequence[Configuration]) -> RateCurve:
    rows = sorted(rows, key=lambda row: row.spec.learning_rate)
    rates = tuple(row.spec.learning_rate for row in rows)
    return RateCurve(metric_name, rows[0].spec, rates, tuple(row.mean for row in rows), tuple(row.sd for row in rows))
