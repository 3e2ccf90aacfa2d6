"""What the spread over a few seeds supports: which rows differ, which share a place.

Unpaired. The same seed gives two methods the same batches, but their start values have nothing in common, and three pairs leave
two degrees of freedom: pairing would cost more than it gains. Variances are not taken to be equal (full fine-tuning's seeds lie
closer together than BitFit's), so a pair is judged as Welch does. With three seeds a variance is itself a guess of two degrees of
freedom, and no list of a dozen methods could be told apart; so each row's variance leans on those of all rows of the bench, as
far as these agree with each other (Smyth 2004, as in limma), and only ever upwards. With two rows nothing is borrowed, and the
test is Welch's own. The spread is that of seeds on one test set; what another test set would add is not in it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import mean, median, variance
from typing import Protocol, runtime_checkable

from scipy.special import digamma, polygamma, stdtr, stdtrit

from lora_lab.analysis.method_records import Comparison, Curve, Difference, MethodRow, MethodTable, Placed, Values

_FEWEST_TO_LEAN_ON = 3  # rows: with fewer, how far variances agree cannot be seen
_LEAST_SHARE = 0.02  # of the median variance: less is rounding to whole examples, and one such row would undo the prior


@runtime_checkable
class Scored(Protocol):
    """Anything that has a score a seed: a method at a budget, a trial of a search."""

    @property
    def name(self) -> tuple[str, int | None]:
        """What tells it from every other."""

    @property
    def scores(self) -> Values:
        """One a seed."""

    @property
    def mean(self) -> float | None:
        """Of the scores; None where one is missing."""

    @property
    def sd(self) -> float | None:
        """Of the scores; None where one is missing, or where there is one alone."""


@dataclass(frozen=True, slots=True)
class Prior:
    """What the variances of all rows have in common: their typical value, and how many degrees of freedom it is worth.

    `most_df` bounds what a row may have with what it borrowed: the degrees of freedom of all rows together.
    """

    variance: float = 0.0
    df: float = 0.0
    most_df: float = math.inf

    def lean(self, own: float, df: float) -> tuple[float, float]:
        """A row's variance and its degrees of freedom, once it leans on the others.

        It is never taken to be smaller than the row's own seeds show: where spreads differ between methods, shrinking the wide
        ones told two of 14 equal methods apart in 9 of 100 made-up benches; this way it is 4 to 8.
        """
        if self.df == 0:
            return own, df
        shared = self.variance if math.isinf(self.df) else (self.df * self.variance + df * own) / (self.df + df)
        return max(own, shared), min(self.df + df, self.most_df)


def prior_of(variances: Sequence[tuple[float, float]]) -> Prior:
    """The prior that (variance, degrees of freedom) of many rows support; none of fewer than three, or where most are zero.

    Source: Smyth 2004, Statistical Applications in Genetics and Molecular Biology 3(1), section 6.2: mean and variance of log s²
    are matched to those of a scaled F distribution.
    """
    typical = median(s2 for s2, _ in variances) if variances else 0.0
    if len(variances) < _FEWEST_TO_LEAN_ON or typical == 0:
        return Prior()
    logs = [math.log(max(s2, _LEAST_SHARE * typical)) - float(digamma(df / 2)) + math.log(df / 2) for s2, df in variances]
    beyond = variance(logs) - mean(float(polygamma(1, df / 2)) for _, df in variances)
    most = sum(df for _, df in variances)
    if beyond <= 0:  # they differ no more than variances of so few seeds do anyway
        return Prior(math.exp(mean(logs)), math.inf, most)
    half = trigamma_inverse(beyond)
    return Prior(math.exp(mean(logs) + float(digamma(half)) - math.log(half)), 2 * half, most)


def trigamma_inverse(y: float) -> float:
    """x > 0 with ψ′(x) = y, by Newton's steps on 1/ψ′, which is nearly straight.

    >>> round(trigamma_inverse(math.pi**2 / 6), 9)
    1.0
    """
    x = 0.5 + 1 / y
    for _ in range(50):
        trigamma = float(polygamma(1, x))
        step = trigamma * (1 - trigamma / y) / float(polygamma(2, x))
        x += step
        if abs(step) < 1e-10 * x:
            break
    return x


def difference(first: Scored, second: Scored, prior: Prior) -> Difference:
    """Welch's t of two rows, each variance leaning on the prior; without any spread two different means are told apart."""
    unknown = Difference(first.name, second.name, None, None, None, None)
    if first.mean is None or second.mean is None:
        return unknown
    gap = first.mean - second.mean
    if first.sd is None or second.sd is None:
        return replace(unknown, difference=gap)
    shares = [(*prior.lean(row.sd**2, _df(row)), len(row.scores)) for row in (first, second) if row.sd is not None]
    error2 = sum(s2 / n for s2, _, n in shares)
    if error2 == 0:
        return replace(unknown, difference=gap, half_width=0.0, p=1.0 if gap == 0 else 0.0)
    df = error2**2 / sum((s2 / n) ** 2 / own for s2, own, n in shares)  # Welch and Satterthwaite
    error = math.sqrt(error2)
    p = min(1.0, 2 * float(stdtr(df, -abs(gap) / error)))
    return replace(unknown, difference=gap, half_width=float(stdtrit(df, 0.975)) * error, p=p)


def _df(row: Scored) -> float:
    return len(row.scores) - 1.0


def holm(pairs: Sequence[Difference]) -> tuple[Difference, ...]:
    """The pairs with p-values that hold for all of them at once (Holm 1979); those without p count for nothing."""
    told = sorted((pair.p, i) for i, pair in enumerate(pairs) if pair.p is not None)
    adjusted: dict[int, float] = {}
    highest = 0.0
    for rank, (p, i) in enumerate(told):
        highest = max(highest, min(1.0, (len(told) - rank) * p))
        adjusted[i] = highest
    return tuple(replace(pair, holm=adjusted.get(i)) for i, pair in enumerate(pairs))


def all_pairs(rows: Sequence[Scored], prior: Prior | None = None) -> tuple[Difference, ...]:
    """Every two rows, judged all at once; where no prior is given, variances lean on those of these rows."""
    prior = prior or prior_over(rows)
    return holm([difference(a, b, prior) for a, b in combinations(rows, 2)])


def prior_over(rows: Sequence[Scored]) -> Prior:
    """`prior_of` the rows that have a spread."""
    return prior_of([(row.sd**2, _df(row)) for row in rows if row.sd is not None])


def compare(table: MethodTable) -> Comparison:
    """Everything that may be said of the bench: methods are judged at the budget that the validation split chose.

    A method that has rates to try yet is judged neither by itself nor against others.
    """
    settled = replace(table, rows=tuple(row for row in table.rows if row.method not in table.unsettled))
    prior = prior_over(settled.rows)
    chosen = settled.chosen()
    others = tuple(Placed(row, None, None) for row in table.chosen() if row.method in table.unsettled)
    pairs = all_pairs(chosen, prior)
    lora_and_full = next((pair for pair in map(_lora_first, pairs) if (pair.first[0], pair.second[0]) == ("lora", "full")), None)
    placed = (*order(chosen, pairs, sign=table.sign), *others)
    return Comparison(placed, pairs, lora_and_full, _curves(settled, prior), table.sign)


def order(rows: Sequence[MethodRow], pairs: Sequence[Difference], *, sign: int) -> tuple[Placed, ...]:
    """The rows from best mean to worst, each with its place. Rows without a mean come last, without one."""
    found = places(rows, pairs, sign=sign)
    ranked = [(row.mean, row) for row in rows if row.mean is not None]
    ranked.sort(key=lambda known: -sign * known[0])
    placed = [Placed(row, *found[row.name]) for _, row in ranked]
    return (*placed, *(Placed(row, None, None) for row in rows if row.mean is None))


def places(rows: Sequence[Scored], pairs: Sequence[Difference], *, sign: int) -> dict[tuple[str, int | None], tuple[int, int]]:
    """By name the places that are open to each row with a mean: 1 + how many are told to be better, up to as many as are not told
    to be worse."""
    known = [row.name for row in rows if row.mean is not None]
    wins, losses = dict.fromkeys(known, 0), dict.fromkeys(known, 0)
    for pair in pairs:
        if pair.is_told and pair.difference is not None:
            better, worse = (pair.first, pair.second) if sign * pair.difference > 0 else (pair.second, pair.first)
            wins[better] += 1
            losses[worse] += 1
    return {name: (1 + losses[name], len(known) - wins[name]) for name in known}


def _lora_first(pair: Difference) -> Difference:
    if pair.second[0] != "lora" or pair.difference is None:
        return pair
    return replace(pair, first=pair.second, second=pair.first, difference=-pair.difference)


def _curves(table: MethodTable, prior: Prior) -> tuple[Curve, ...]:
    """Of every method with several budgets: what is gained up to the chosen one, and lost beyond; judged all at once."""
    chosen = {row.method: row for row in table.chosen()}
    curves = []
    for method, best in chosen.items():
        by_params = sorted(table.of(method), key=lambda row: row.trainable_params)
        small, large = by_params[0], by_params[-1]
        if len(by_params) > 1:
            gain = difference(best, small, prior) if best is not small else None
            loss = difference(best, large, prior) if best is not large else None
            curves.append(Curve(method, small, best, large, gain, loss))
    judged = iter(holm([pair for curve in curves for pair in (curve.gain, curve.loss) if pair]))
    told = [replace(c, gain=next(judged) if c.gain else None, loss=next(judged) if c.loss else None) for c in curves]
    return tuple(told)
