"""A search over a space of runs: drawn at random, halved rung by rung, its best confirmed over further seeds.

Every trial of a rung is a RunSpec of its own, so that a rung is a list that any runner trains and the store keeps; what the store
has is not trained again. Trials are scored on the validation split alone.
"""

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_lab.analysis.comparison import all_pairs
from lora_lab.analysis.search_records import Confirmed, Placed, Rung, SearchRecord, best_first
from lora_lab.benches import Bench, find_bench
from lora_lab.errors import LabError, SpecError, out_of_range
from lora_lab.geometry import Geometry
from lora_lab.metrics import METRICS
from lora_lab.search_spec import SearchSpec
from lora_lab.specs import DataSpec, MethodSpec, RunSpec, unique
from lora_lab.sweep_spec import SweepSpec
from lora_lab.sweeps.api import Sweep, Watch, run_specs
from lora_lab.sweeps.grid import expand
from lora_lab.sweeps.groups import Grouped, check_grouped
from lora_lab.sweeps.jobs import More
from lora_lab.sweeps.optuna_study import propose, study_of
from lora_lab.sweeps.run import Run
from lora_lab.sweeps.runners import check_runner
from lora_lab.sweeps.store import RunStore

if TYPE_CHECKING:
    import optuna

_MOST_DRAWS = 20  # for each trial asked for: a small space has not so many


@dataclass(frozen=True)
class Trial:
    """A point of the space, and the run that it makes at the steps of each rung."""

    number: int
    point: Mapping[str, Any]
    runs: Mapping[int, RunSpec]


@dataclass(frozen=True)
class SearchPlan:
    """What a SearchSpec comes to on a bench: its trials, all different, and (trials, steps) of every rung."""

    spec: SearchSpec
    bench: Bench
    trials: tuple[Trial, ...]
    ladder: tuple[tuple[int, int], ...]

    def first_round(self) -> tuple[RunSpec, ...]:
        """The runs of the first rung."""
        return self.wanted(())

    def wanted(self, runs: Iterable[Run], lost: Collection[str] = ()) -> tuple[RunSpec, ...]:
        """All runs that the search takes, as far as these tell who goes on.

        Args:
            runs: those there are; only complete ones count.
            lost: ids of runs that were to be trained and did not come about: nobody waits for them.
        """
        runs = list(runs)
        rungs = self._rungs(runs, lost)
        halved = [self.trials[trial].runs[rung.steps] for rung in rungs for trial in sorted(one.trial for one in rung.placed)]
        confirmed = [spec for trial in self._confirmed(rungs) for spec in self._with_further_seeds(trial)]
        return unique([*halved, *confirmed])

    def most_runs(self) -> tuple[RunSpec, ...]:
        """As many runs as the search can come to, with the steps they have: the trials drawn first stand for the best."""
        halved = [trial.runs[steps] for most, steps in self.ladder for trial in self.trials[:most]]
        confirmed = [spec for trial in self.trials[: self.spec.confirm] for spec in self._with_further_seeds(trial)]
        return unique([*halved, *confirmed])

    def more(self) -> More:
        """What a Job is to ask after each of its rounds, from `first_round` on: the next rung, or the further seeds.

        A run that has had its turn and is not there is lost.
        """
        asked = {spec.run_id for spec in self.first_round()}

        def next_round(runs: Sequence[Run]) -> Sequence[RunSpec]:
            wanted = self.wanted(runs, asked - {run.run_id for run in runs if run.is_complete})
            asked.update(spec.run_id for spec in wanted)
            return wanted

        return next_round

    def record(self, runs: Iterable[Run], lost: Collection[str] = ()) -> SearchRecord:
        """What these runs say of the search; arguments as for `wanted`."""
        done = _complete(runs)
        rungs = self._rungs(done.values(), lost)
        rows = [self._row(trial, done) for trial in self._confirmed(rungs)]
        metric = _metric_of(done.values())
        sign = METRICS[metric].sign
        rows.sort(key=lambda row: (row.mean is None, -sign * (row.mean or 0.0)))
        points = tuple(trial.point for trial in self.trials)
        return SearchRecord(self.bench.name, metric, points, rungs, len(self.ladder), tuple(rows), all_pairs(rows))

    def _rungs(self, runs: Iterable[Run], lost: Collection[str]) -> tuple[Rung, ...]:
        """The rungs up to the first that waits for a run, or that nobody goes on from."""
        done = _complete(runs)
        sign = METRICS[_metric_of(done.values())].sign
        found: list[Rung] = []
        alive: Sequence[Trial] = self.trials
        for i, (_, steps) in enumerate(self.ladder):
            placed = best_first([_placed(trial, steps, done, lost) for trial in alive], sign=sign)
            most = self.ladder[i + 1][0] if i + 1 < len(self.ladder) else 0
            rung = Rung(steps, placed)
            alive = [self.trials[one.trial] for one in placed[:most] if one.score is not None] if rung.is_settled else []
            found.append(Rung(steps, tuple(replace(one, goes_on=self.trials[one.trial] in alive) for one in placed)))
            if not alive:
                break
        return tuple(found)

    def _confirmed(self, rungs: tuple[Rung, ...]) -> tuple[Trial, ...]:
        """The trials to train with further seeds, once all rungs are settled."""
        record = SearchRecord(self.bench.name, "loss", (), rungs, len(self.ladder))
        ranked = record.ranked() if record.is_settled else ()
        return tuple(self.trials[one.trial] for one in ranked[: self.spec.confirm])

    def _with_further_seeds(self, trial: Trial) -> tuple[RunSpec, ...]:
        whole, first = trial.runs[self.ladder[-1][1]], self.spec.seed + 1
        return tuple(replace(whole, seed=seed) for seed in range(first, first + self.spec.confirm_seeds))

    def _row(self, trial: Trial, done: Mapping[str, Run]) -> Confirmed:
        specs = self._with_further_seeds(trial)
        runs = [done.get(spec.run_id) for spec in specs]
        return Confirmed(
            trial=trial.number,
            seeds=tuple(spec.seed for spec in specs),
            scores=tuple(None if run is None else _score(run) for run in runs),
            test_scores=tuple(None if run is None else _score(run, test=True) for run in runs),
            run_ids=tuple(spec.run_id for spec in specs),
        )


def plan_search(bench: Bench, spec: SearchSpec, *, geometry: Geometry | None = None) -> SearchPlan:
    """Draw the trials and plan their runs at the steps of every rung.

    There are fewer trials than asked for where the space has no more.

    Raises:
        SpecError: a point that the base cannot take, a space too small to be halved, or Optuna is not installed; nothing is
            planned then.
    """
    geometry = geometry or bench.geometry()
    steps = spec.steps or bench.defaults.steps
    spec.ladder(steps)  # refused before anything is drawn
    drawn = _different(bench, geometry, spec, steps)
    if spec.eta is not None and len(drawn) < spec.eta:
        raise SpecError(out_of_range("space", "SearchSpec", f"of at least eta={spec.eta} different runs", len(drawn)))
    ladder = replace(spec, trials=len(drawn)).ladder(steps)
    trials = [
        Trial(number, point, {steps: _run_at(bench, geometry, spec, point, steps) for _, steps in ladder})
        for number, point in enumerate(drawn)
    ]
    return SearchPlan(spec, bench, tuple(trials), ladder)


def _different(bench: Bench, geometry: Geometry, spec: SearchSpec, steps: int) -> list[Mapping[str, Any]]:
    """As many points as there are to be trials, each another run."""
    draws, seen = propose(spec.space, seed=spec.seed), set()
    found: dict[RunSpec, Mapping[str, Any]] = {}
    for _ in range(_MOST_DRAWS * spec.trials):
        point = next(draws)
        if (key := tuple(point.values())) not in seen:
            seen.add(key)
            found.setdefault(_run_at(bench, geometry, spec, point, steps), point)
        if len(found) == spec.trials:
            break
    return list(found.values())


def _run_at(bench: Bench, geometry: Geometry, spec: SearchSpec, point: Mapping[str, Any], steps: int) -> RunSpec:
    given: dict[str, Any] = {"r": MethodSpec().r, **{name: (value,) for name, value in point.items()}}
    (run,) = expand(bench, SweepSpec(**given, seeds=spec.seed, steps=steps), geometry=geometry)
    return run


def _complete(runs: Iterable[Run]) -> dict[str, Run]:
    return {run.run_id: run for run in runs if run.is_complete}


def _metric_of(runs: Iterable[Run]) -> str:
    return next((run.metrics["metric"] for run in runs), "accuracy")


def _score(run: Run, *, test: bool = False) -> float | None:
    """None where it diverged, whatever it had scored before."""
    return None if run.metrics["status"] == "diverged" else run.score(split="test" if test else "validation")


def _placed(trial: Trial, steps: int, done: Mapping[str, Run], lost: Collection[str]) -> Placed:
    run_id = trial.runs[steps].run_id
    run = done.get(run_id)
    if run is None:
        return Placed(trial.number, run_id, "lost" if run_id in lost else "waiting", None, None)
    return Placed(trial.number, run_id, run.metrics["status"], _score(run), run.metrics["loss"])


@dataclass(frozen=True)
class Search:
    """A finished search: what it says, all its runs, and what did not come about."""

    plan: SearchPlan
    record: SearchRecord
    runs: tuple[Run, ...]
    skipped: tuple[str, ...]
    failed: dict[str, str]
    wall_s: float

    @property
    def best(self) -> Run | None:
        """The run of the best trial at the most steps that it was trained for, with the seed of the search."""
        best = self.record.best
        return next((run for run in self.runs if best and run.run_id == best.run_id), None)

    def study(self) -> "optuna.Study":
        """The search as an Optuna study, in memory."""
        return study_of(self.record, self.plan.spec.space)


def search(
    bench: str,
    spec: SearchSpec,
    *,
    data: DataSpec | None = None,
    runs: str | Path = "runs",
    runner: str = "process",
    device: str | None = None,
    grouped: Grouped = "auto",
    address: str | None = None,
    watch: Watch = lambda spec, event: None,
) -> Search:
    """`run_search` of what the spec comes to on a bench; arguments as for `sweep`.

    Raises:
        LabError: whatever the user can mend, in one sentence.
    """
    plan = plan_search(find_bench(bench, data), spec)
    return run_search(plan, runs, runner=runner, device=device, grouped=grouped, address=address, watch=watch)


def run_search(
    plan: SearchPlan,
    runs: str | Path,
    *,
    runner: str,
    device: str | None,
    grouped: Grouped = "auto",
    address: str | None = None,
    watch: Watch = lambda spec, event: None,
) -> Search:
    """Train what the store lacks, rung after rung and then the further seeds, and gather it.

    Raises:
        LabError: no run came to its end.
    """
    check_runner(runner, device, address)
    check_grouped(grouped)
    began_s, store = time.perf_counter(), RunStore(runs)
    rounds: list[Sweep] = []
    tried: dict[str, RunSpec] = {}
    lost: set[str] = set()
    while todo := [wanted for wanted in plan.wanted(store.find(tried), lost) if wanted.run_id not in tried]:
        tried |= {wanted.run_id: wanted for wanted in todo}
        rounds.append(run_specs(todo, runs, runner=runner, device=device, grouped=grouped, address=address, watch=watch))
        lost = set(tried) - set(_complete(store.find(tried)))
    kept = list(_complete(store.find(tried)).values())
    failed = {run_id: why for done in rounds for run_id, why in done.failed.items()}
    if not kept:
        raise LabError(next(iter(failed.values()), "No run of the search came to its end."))
    return Search(
        plan=plan,
        record=plan.record(kept, lost),
        runs=tuple(kept),
        skipped=tuple(run_id for done in rounds for run_id in done.skipped),
        failed=failed,
        wall_s=time.perf_counter() - began_s,
    )
