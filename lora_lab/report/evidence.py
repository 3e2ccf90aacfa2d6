"""Runs of a store become the evidence of a report: scores, overlaps, amplifications."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

import torch

from lora_lab.analysis import Overlap, amplification, overlap
from lora_lab.analysis.base_records import Amplification
from lora_lab.analysis.comparison import all_pairs
from lora_lab.analysis.random_subspaces import random_generator
from lora_lab.benches import Bench
from lora_lab.benches.base_weights import base_of
from lora_lab.lowrank import LowRank
from lora_lab.report.plan import ReproductionPlan
from lora_lab.report.records import Evidence, PairMaps, ScoreCell, ScoreTable
from lora_lab.specs import RunSpec
from lora_lab.sweeps.results import settings_of
from lora_lab.sweeps.run import Run

__all__ = ["Evidence", "gather"]
Factors = Mapping[str, LowRank]


def gather(plan: ReproductionPlan, runs: Iterable[Run]) -> Evidence:
    """What the runs that there are show; one that is missing or diverged leaves a gap.

    Reads every adapter of q and v once, and one matrix of the base at a time.
    """
    by_id = {run.run_id: run for run in runs if run.is_complete}
    trained = {r: _adapters(plan.pair(r), by_id) for r in (plan.small, plan.large)}
    started = {r: _adapters(plan.pair(r, start=True), by_id) for r in (plan.small, plan.large)}
    metric = _metric_of(by_id)
    return Evidence(
        bench=plan.bench.name,
        metric_name=metric,
        small=plan.small,
        large=plan.large,
        seeds=plan.seeds,
        ranks=_scores(plan.by_rank, by_id, metric),
        targets=_scores(plan.by_targets, by_id, metric) if plan.by_targets else None,
        two_ranks=two_ranks(trained[plan.small], trained[plan.large], plan.small, plan.large),
        two_seeds=two_seeds(trained[plan.large], plan.large),
        two_ranks_at_start=two_ranks(started[plan.small], started[plan.large], plan.small, plan.large),
        two_seeds_at_start=two_seeds(started[plan.large], plan.large),
        two_random=two_random(trained[plan.large]),
        amplifications={r: _amplified(plan.bench, trained[r]) for r in (plan.small, plan.large)},
    )


def _adapters(specs: Sequence[RunSpec], by_id: Mapping[str, Run]) -> dict[int, Factors]:
    """By seed."""
    return {spec.seed: by_id[spec.run_id].adapter() for spec in specs if spec.run_id in by_id}


def score_table(runs: Iterable[Run]) -> ScoreTable:
    """The test scores of runs of one bench, a cell a choice of targets and rank in the order in which they come.

    Every pair of cells is judged by its spread over the seeds; a run that diverged leaves a gap.
    """
    by_id = {run.run_id: run for run in runs if run.is_complete}
    return _scores([run.spec for run in by_id.values()], by_id, _metric_of(by_id))


def _metric_of(by_id: Mapping[str, Run]) -> str:
    return next((str(run.metrics["metric"]) for run in by_id.values()), "accuracy")


def _scores(specs: Sequence[RunSpec], by_id: Mapping[str, Run], metric: str) -> ScoreTable:
    """A cell a choice of targets and rank, in the order of the specs."""
    found: dict[tuple[str, int], list[float | None]] = {}
    for spec in specs:
        run = by_id.get(spec.run_id)
        scored = run.score(split="test") if run and run.metrics["status"] == "finished" else None
        found.setdefault((settings_of(spec)["target_roles"], spec.tuning.r), []).append(scored)
    cells = tuple(ScoreCell(targets, r, tuple(scores)) for (targets, r), scores in found.items())
    there = [by_id[spec.run_id] for spec in specs if spec.run_id in by_id]
    base = there[0].score(base=True, split="test") if there else None
    return ScoreTable(metric, cells, all_pairs([cell for cell in cells if cell.mean is not None]), base)


def two_ranks(small: Mapping[int, Factors], large: Mapping[int, Factors], r: int, r_large: int) -> PairMaps:
    """A at one rank against A at another, seed by seed.

    Source: Hu et al. 2021, figure 3.
    """
    title = f"r = {r} against r = {r_large}"
    return PairMaps(title, tuple(_maps(small[seed], large[seed]) for seed in small if seed in large))


def two_seeds(adapters: Mapping[int, Factors], r: int) -> PairMaps:
    """A of every two seeds at one rank.

    Source: Hu et al. 2021, figure 4.
    """
    pairs = combinations(adapters.values(), 2)
    return PairMaps(f"two seeds, r = {r}", tuple(_maps(first, second) for first, second in pairs))


def two_random(adapters: Mapping[int, Factors]) -> PairMaps:
    """Independent Gaussian A of the same shapes: what nothing in common looks like.

    Source: Hu et al. 2021, figure 4, its third panel.
    """
    like = next(iter(adapters.values()), {})
    first, second = ({name: _gaussian(name, delta, draw) for name, delta in like.items()} for draw in (0, 1))
    return PairMaps("two random matrices", (_maps(first, second),) if like else ())


def _gaussian(name: str, like: LowRank, draw: int) -> LowRank:
    generator = random_generator("two random matrices", name, draw)
    lora_a = torch.randn(like.lora_a.shape, generator=generator, dtype=torch.float64)
    lora_b = torch.randn(like.lora_b.shape, generator=generator, dtype=torch.float64)
    return LowRank(lora_b, lora_a, 1.0)


def _maps(first: Factors, second: Factors) -> dict[str, Overlap]:
    return {one.name: one for one in overlap(first, second, of="a", side="in")}


def _amplified(bench: Bench, adapters: Mapping[int, Factors]) -> dict[str, Amplification]:
    first = next(iter(adapters.values()), None)
    if first is None:
        return {}
    return {one.name: one for one in amplification(first, base_of(bench))}
