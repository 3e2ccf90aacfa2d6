"""Which configuration of a sweep is best on the validation split, and what the spread over its seeds supports."""

from collections.abc import Iterable
from dataclasses import replace

from lora_lab.analysis.comparison import all_pairs, places
from lora_lab.analysis.configuration_records import Configuration, Ranked, Ranking
from lora_lab.metrics import METRICS
from lora_lab.specs import RunSpec
from lora_lab.sweeps.run import Run

MOST_COMPARED = 40  # the best ones, each with each: what lies further back is not in question


def rank_configurations(runs: Iterable[Run]) -> Ranking:
    """The runs' configurations, best first. Complete runs of one bench and data are ranked, those of the newest.

    The forty best are compared, each with each; a configuration beyond them has no place.
    """
    complete = [run for run in runs if run.is_complete]
    alike = [run for run in complete if _bench_of(run) == _bench_of(complete[-1])]
    metric = alike[0].metrics.get("metric", "accuracy") if alike else "accuracy"
    sign = METRICS[metric].sign
    by_choice: dict[RunSpec, list[Run]] = {}
    for run in alike:
        by_choice.setdefault(replace(run.spec, seed=0), []).append(run)
    rows = [_configuration(number, of_one) for number, of_one in enumerate(by_choice.values())]
    rows.sort(key=lambda row: (row.mean is None, -sign * (row.mean or 0.0)))
    pairs = all_pairs([row for row in rows[:MOST_COMPARED] if row.mean is not None])
    found = places(rows[:MOST_COMPARED], pairs, sign=sign)
    return Ranking(metric, tuple(Ranked(row, *found.get(row.name, (None, None))) for row in rows), pairs)


def _bench_of(run: Run) -> tuple[object, ...]:
    return run.spec.bench, run.spec.base_sha256, run.spec.data, run.metrics.get("metric", "accuracy")


def _configuration(number: int, runs: list[Run]) -> Configuration:
    runs = sorted(runs, key=lambda run: run.spec.seed)
    return Configuration(
        number=number,
        spec=runs[0].spec,
        seeds=tuple(run.spec.seed for run in runs),
        scores=tuple(_score(run) for run in runs),
        test_scores=tuple(run.score(split="test") for run in runs),
        run_ids=tuple(run.run_id for run in runs),
        trainable_params=runs[0].metrics.get("trainable_params"),
    )


def _score(run: Run) -> float | None:
    return run.score() if run.metrics["status"] == "finished" else None
