"""Runs side by side: mean and spread over seeds."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from statistics import mean, stdev

from lora_lab.metrics import METRICS, Metric
from lora_lab.specs import RunSpec, unique
from lora_lab.sweeps.progress import RunProgress
from lora_lab.sweeps.run import Run

_NO_R = 0  # the column of a method without r


@dataclass(frozen=True, slots=True)
class Cell:
    """The task's metric over the seeds of one configuration; `sd` is None for a single seed."""

    mean: float
    sd: float | None
    seeds: int


@dataclass(frozen=True, slots=True)
class RankTable:
    """One row a choice of everything but r and seed, one column an r; a cell that was not measured is None.

    A method without r has a row of one cell. A row's spec is that of its runs at r = 1, seed 0. Where alpha was a fixed multiple
    of the rank, so is the row's (`alpha_by_rank`), and runs of different rank stand in one row.
    """

    ranks: tuple[int, ...]
    rows: tuple[tuple[RunSpec, tuple[Cell | None, ...]], ...]
    base_score: float | None
    alpha_by_rank: bool = False
    metric: Metric = METRICS["accuracy"]


def rank_table(runs: Iterable[RunProgress]) -> RankTable:
    """How the score on the validation split depends on the rank."""
    runs = list(runs)
    by_rank = _alpha_follows_rank([run.spec for run in runs])
    groups: dict[tuple[RunSpec, int], list[float]] = defaultdict(list)
    for run in runs:
        value = run.value(run.score) if run.score else None
        if run.done and run.done.status == "finished" and value is not None:
            r = run.spec.tuning.r if run.spec.tuning.has_r else _NO_R
            groups[_row_of(run.spec, by_rank), r].append(value)
    ranks = unique(sorted(run.spec.tuning.r for run in runs if run.spec.tuning.has_r))
    specs = unique(_row_of(run.spec, by_rank) for run in runs)
    columns = {spec: ranks if spec.tuning.has_r else (_NO_R,) for spec in specs}
    rows = tuple((spec, tuple(_cell(groups.get((spec, r), [])) for r in columns[spec])) for spec in specs)
    base = next((run.value(run.evals[0]) for run in runs if run.evals), None)
    return RankTable(ranks, rows, base, by_rank, runs[0].metric if runs else METRICS["accuracy"])


def best_run(runs: Iterable[RunProgress]) -> RunProgress | None:
    """The first of the runs with the best score on the validation split; None where none has been scored."""
    scored = [(run, value) for run in runs if run.score and (value := run.value(run.score)) is not None]
    sign = scored[0][0].metric.sign if scored else 1
    return max(scored, key=lambda pair: sign * pair[1], default=(None, 0.0))[0]


def best_kept(runs: Iterable[Run]) -> Run | None:
    """`best_run` of runs that the store keeps, by what is written of them."""
    scored = [(run, value) for run in runs if (value := run.score()) is not None]
    sign = scored[0][0].metric.sign if scored else 1
    return max(scored, key=lambda pair: sign * pair[1], default=(None, 0.0))[0]


def base_name(runs: Iterable[RunProgress]) -> str:
    """What an evaluation at step 0 is of: the base, or the base under a head that nobody has trained yet."""
    return "frozen base under an untrained head" if any(run.start and run.start.head_params for run in runs) else "frozen base"


def _alpha_follows_rank(specs: list[RunSpec]) -> bool:
    specs = [spec for spec in specs if spec.tuning.has_alpha]
    ratios = {spec.tuning.lora_alpha / spec.tuning.r for spec in specs}
    return len(ratios) == 1 and len({spec.tuning.lora_alpha for spec in specs}) > 1


def _row_of(spec: RunSpec, by_rank: bool) -> RunSpec:
    alpha = spec.tuning.lora_alpha / spec.tuning.r if by_rank and spec.tuning.has_alpha else spec.tuning.lora_alpha
    return replace(spec, seed=0, tuning=replace(spec.tuning, r=1, lora_alpha=alpha))


def _cell(accuracies: list[float]) -> Cell | None:
    if not accuracies:
        return None
    return Cell(mean(accuracies), stdev(accuracies) if len(accuracies) > 1 else None, len(accuracies))
