"""The sentence about who leads: the best mean on the validation split, whether that is more than luck, what the test split says."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar, runtime_checkable

from lora_lab.analysis.configuration_records import Configuration, Ranking
from lora_lab.analysis.method_records import Difference, Values, mean_of, sd_of
from lora_lab.metrics import Metric
from lora_lab.plots.labels import configuration_labels
from lora_lab.plots.method_captions import gap_text, listed

_MOST_NAMED = 3


@runtime_checkable
class Contender(Protocol):
    """Whatever has a score a seed on the validation split, and on the test split."""

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of its runs."""

    @property
    def test_scores(self) -> Values:
        """One a seed."""

    @property
    def mean(self) -> float | None:
        """On the validation split."""

    @property
    def sd(self) -> float | None:
        """Of that, over the seeds."""


C = TypeVar("C", bound=Contender)


def leader_caption(
    rows: Sequence[C],
    between: Callable[[C, C], Difference | None],
    metric: Metric,
    *,
    name: str,
    short: Callable[[C], str],
    seeds: str = "",
    others: str = "configuration",
) -> str:
    """The first of the rows, whom the spread over seeds tells it from, and its score on the test split.

    Args:
        rows: those that have a mean, best first; at least one.
        between: the judged pair of two of them.
        metric: what they are scored by.
        name: of the first, in full.
        short: of any of them, within a list.
        seeds: what there is to say of the seeds.
        others: what they are called.
    """
    first = rows[0]
    leads = f"{name} has the best mean on the validation split, {validation_text(metric, first)}"
    of = f"over {len(first.seeds)} {'seed' if len(first.seeds) == 1 else 'seeds'}{seeds}"
    verdict = _verdict(first, rows[1:], between, metric, short, others)
    return f"{leads} {of}; {verdict} {_test(metric, first)}"


def ranking_caption(ranking: Ranking) -> str:
    """Which configuration of a sweep is best, and what its spread supports; nothing before there is one."""
    rows = [one.row for one in ranking.ranked if one.row.mean is not None]
    if not rows:
        return ""
    labels = labels_by_name([one.row for one in ranking.ranked])
    name = labels[rows[0].name] or "The one configuration"
    return leader_caption(rows, ranking.between, ranking.metric, name=name, short=lambda row: labels[row.name])


def labels_by_name(rows: Sequence[Configuration]) -> Mapping[tuple[str, int | None], str]:
    """What tells each configuration from the others: its method, rank and whatever else is not one in all."""
    labels = configuration_labels([row.spec for row in rows])
    return {row.name: label for row, label in zip(rows, labels, strict=True)}


def validation_text(metric: Metric, row: Contender) -> str:
    """The mean on the validation split ± sd."""
    return _text(metric, row.mean, row.sd)


def on_test_text(metric: Metric, row: Contender) -> str:
    """The mean on the test split ± sd; nothing where a seed has none."""
    return _text(metric, mean_of(row.test_scores), sd_of(row.test_scores))


def _text(metric: Metric, mean: float | None, sd: float | None) -> str:
    if mean is None:
        return ""
    return metric.text(mean) + (f" ± {metric.text(sd)}" if sd is not None else "")


def _verdict(
    first: C,
    rows: Sequence[C],
    between: Callable[[C, C], Difference | None],
    metric: Metric,
    short: Callable[[C], str],
    others: str,
) -> str:
    if not rows:
        return f"there is no other {others} to tell it from."
    pairs = [(row, between(first, row)) for row in rows]
    if all(pair is None or pair.holm is None for _, pair in pairs):
        return f"without a spread over seeds nothing tells it from the other{'s' if len(rows) > 1 else ''}."
    open_ = [row for row, pair in pairs if pair is not None and not pair.is_told]
    second = pairs[0][1]
    gap = f" ({gap_text(metric, second)} ahead of the second)" if second is not None else ""
    if not open_:
        return f"the spread over seeds tells it from every other {others}{gap}."
    return f"the spread over seeds does not tell it from {listed(map(short, open_), most=_MOST_NAMED)}{gap}."


def _test(metric: Metric, row: Contender) -> str:
    found = on_test_text(metric, row)
    return f"On the test split it scores {found}." if found else "It has no score on the test split."
