"""The method bench: every method at several budgets and learning rates, over seeds.

Rates and budgets are chosen on the validation split; what is reported is the test split. Where the best rate is the lowest or the
highest of its grid, the grid grows that way, so that no method loses to another for want of a rate.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from statistics import median

from lora_lab.analysis.comparison import compare
from lora_lab.analysis.method_records import Comparison, MethodRow, MethodTable, RateScore, mean_of
from lora_lab.benches import Bench, find_bench
from lora_lab.errors import LabError, SpecError, out_of_range
from lora_lab.geometry import Geometry
from lora_lab.specs import METHODS, DataSpec, MethodSpec, Number, Quant, RunSpec, resolve_alpha, unique
from lora_lab.sweeps.api import Sweep, Watch, run_specs
from lora_lab.sweeps.groups import runs_at_once
from lora_lab.sweeps.memory import memory_of
from lora_lab.sweeps.run import Run
from lora_lab.sweeps.store import RunStore
from lora_lab.training import methods_for, plan_run

MOST_EXTRA_RATES = 2  # rates that a grid may grow by
_BUDGETS = {"rank": (2, 8, 32), "initial rank": (2, 8, 32), "bottleneck width": (2, 8, 32), "virtual tokens": (2, 8, 32)}
_DIGITS = 6  # of a learning rate: 0.002 × 0.3 is 0.0006 and names one run


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodBenchSpec:
    """What to compare: None leaves methods to what the base can take, budgets to the method, steps to the bench.

    `budgets` are values of r; a method without r has one. A learning rate is the bench's and the method's own times each of
    `lr_factors`.
    """

    methods: tuple[str, ...] | None = None
    budgets: tuple[int, ...] | None = None
    lr_factors: tuple[Number, ...] = (0.3, 1.0, 3.0)
    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int | None = None
    batch_size: int | None = None
    lora_alpha: Number | str = 16.0
    lora_dropout: Number = 0.0
    num_virtual_tokens: int = 8
    quant: Quant | None = None
    optimizer: str | None = None

    def __post_init__(self) -> None:
        for name in ("methods", "budgets", "lr_factors", "seeds"):
            value = getattr(self, name)
            fine = value is None if name in ("methods", "budgets") else False
            if not fine and not (isinstance(value, tuple) and value):
                raise SpecError(out_of_range(name, "MethodBenchSpec", "a tuple of at least one value", value))
        for method in self.methods or ():
            if method not in METHODS:
                raise SpecError(out_of_range("methods", "MethodBenchSpec", f"made of {', '.join(METHODS)}", method))
        if any(not 0 < factor < float("inf") for factor in self.lr_factors):
            raise SpecError(out_of_range("lr_factors", "MethodBenchSpec", "numbers above 0", self.lr_factors))


@dataclass(frozen=True)
class Grid:
    """One method at one budget: the plan of its run at the own rate and first seed, and the rates to try, lowest first."""

    plan: RunSpec
    rates: tuple[float, ...]
    extended: int = 0  # by how many rates beyond the ones asked for

    @property
    def r(self) -> int | None:
        """The budget; None for a method without r."""
        return self.plan.tuning.r if self.plan.tuning.has_r else None

    def runs_at(self, rate: float, seeds: Iterable[int]) -> tuple[RunSpec, ...]:
        """A run a seed."""
        return tuple(replace(self.plan, learning_rate=rate, seed=seed) for seed in seeds)


@dataclass(frozen=True)
class MethodPlan:
    """What a MethodBenchSpec comes to on a bench: its grids, and why what else was asked for is left out."""

    spec: MethodBenchSpec
    bench: Bench
    geometry: Geometry
    grids: tuple[Grid, ...]
    refused: dict[str, str] = field(default_factory=dict)

    def first_round(self) -> tuple[RunSpec, ...]:
        """The runs of the grids as they were asked for."""
        return self._runs_of(self.grids)

    def wanted(self, runs: Iterable[Run]) -> tuple[RunSpec, ...]:
        """All runs that the bench takes, as far as the complete ones among these tell how its grids grow."""
        return self._runs_of(self.grown(runs))

    def grown(self, runs: Iterable[Run]) -> tuple[Grid, ...]:
        """The grids with the rates that the complete runs among these call for."""
        tried = _Tried(runs, self.spec.seeds)
        return tuple(_grow(grid, tried) for grid in self.grids)

    def most_runs(self) -> tuple[RunSpec, ...]:
        """The runs there would be if every grid grew as far as grids do."""
        return self._runs_of(_as_grown(grid) for grid in self.grids)

    def _runs_of(self, grids: Iterable[Grid]) -> tuple[RunSpec, ...]:
        return unique(spec for grid in grids for rate in grid.rates for spec in grid.runs_at(rate, self.spec.seeds))


def plan_methods(bench: Bench, spec: MethodBenchSpec, *, geometry: Geometry | None = None) -> MethodPlan:
    """The grids of every method and budget that the base can take.

    Raises:
        SpecError: nothing is left of what was asked for, or a value is out of range.
    """
    geometry = geometry or bench.geometry()
    refusals = methods_for(bench, geometry=geometry)
    refused = {method: refusals[method] for method in spec.methods or METHODS if refusals[method]}
    grids = []
    for method in (m for m in METHODS if m in (spec.methods or METHODS) and m not in refused):
        for r in _budgets(method, spec, geometry):
            try:
                grids.append(_grid(bench, spec, method, r, geometry))
            except SpecError as err:
                refused[f"{method} r {r}" if METHODS[method].r_is else method] = str(err)
    if not grids:
        raise SpecError(next(iter(refused.values())))
    return MethodPlan(spec, bench, geometry, tuple(grids), refused)


def _budgets(method: str, spec: MethodBenchSpec, geometry: Geometry) -> tuple[int, ...]:
    meaning = METHODS[method].r_is
    if not meaning:
        return (MethodSpec().r,)
    if meaning != "top layers":
        return unique(sorted(spec.budgets or _BUDGETS[meaning]))
    layers = len(geometry.layers)
    return unique(sorted(spec.budgets or (1, max(1, layers // 2), layers)))


def _grid(bench: Bench, spec: MethodBenchSpec, method: str, r: int, geometry: Geometry) -> Grid:
    if METHODS[method].r_is == "top layers" and r > len(geometry.layers):  # it would be the run of all layers once more
        raise SpecError(out_of_range("r", "MethodSpec", f"at most the {len(geometry.layers)} layers of the base", r))
    tuning = MethodSpec(
        method=method,
        r=r,
        lora_alpha=resolve_alpha(spec.lora_alpha, r),
        lora_dropout=spec.lora_dropout,
        num_virtual_tokens=spec.num_virtual_tokens,
    )
    settings = {"steps": spec.steps, "batch_size": spec.batch_size, "quant": spec.quant, "optimizer": spec.optimizer}
    plan = plan_run(bench, tuning, geometry=geometry, seed=spec.seeds[0], **settings)
    rates = unique(sorted(_tidy(plan.learning_rate * factor) for factor in spec.lr_factors))
    return Grid(plan, rates)


def _tidy(rate: float) -> float:
    return float(f"{rate:.{_DIGITS}g}")


class _Tried:
    """Complete runs by the rate that they tried, and which rate is best."""

    def __init__(self, runs: Iterable[Run], seeds: Sequence[int]) -> None:
        self._by_id = {run.run_id: run for run in runs if run.is_complete}
        self._seeds = seeds

    def runs(self, grid: Grid, rate: float) -> tuple[Run, ...]:
        """The runs at that rate, one a seed; none as long as one is missing."""
        found = [self._by_id.get(spec.run_id) for spec in grid.runs_at(rate, self._seeds)]
        return tuple(run for run in found if run) if all(found) else ()

    def scores(self, grid: Grid) -> tuple[RateScore, ...]:
        """Every rate of the grid that all seeds have tried."""
        return tuple(_rate_score(rate, runs) for rate in grid.rates if (runs := self.runs(grid, rate)))


def _rate_score(rate: float, runs: Sequence[Run]) -> RateScore:
    diverged = tuple(run.spec.seed for run in runs if run.metrics["status"] == "diverged")
    if diverged:
        return RateScore(rate, None, None, diverged)
    return RateScore(rate, mean_of([run.score() for run in runs]), mean_of([run.metrics["loss"] for run in runs]))


def best_rate(rates: Sequence[RateScore], *, higher_is_better: bool) -> RateScore:
    """The best mean score on the validation split, of equal ones the lower loss.

    A rate at which a seed diverged is worse than any at which none did; of those, fewer diverged and lower is better. Where
    a run has no score the loss decides alone.
    """
    by_score = all(one.validation is not None or one.diverged for one in rates)
    sign = 1 if higher_is_better else -1

    def rank(one: RateScore) -> tuple[Number, ...]:
        score = sign * (one.validation or 0.0) if by_score else 0.0
        return (-len(one.diverged), score, -(one.validation_loss or 0.0), -one.learning_rate)

    return max(rates, key=rank)


def _grow(grid: Grid, tried: _Tried) -> Grid:
    """The grid with as many rates more as its best rate's place at an edge calls for."""
    while len(grid.rates) > 1 and grid.extended < MOST_EXTRA_RATES:
        scores = tried.scores(grid)
        if len(scores) < len(grid.rates):
            break
        rate, rates = best_rate(scores, higher_is_better=_is_higher_better(tried, grid)).learning_rate, grid.rates
        if rate == rates[0]:
            rates = (_tidy(rates[0] ** 2 / rates[1]), *rates)
        elif rate == rates[-1]:
            rates = (*rates, _tidy(rates[-1] ** 2 / rates[-2]))
        else:
            break
        grid = replace(grid, rates=rates, extended=grid.extended + 1)
    return grid


def _as_grown(grid: Grid) -> Grid:
    if len(grid.rates) == 1:
        return grid
    beyond = tuple(_tidy(grid.rates[-1] * (grid.rates[-1] / grid.rates[-2]) ** i) for i in range(1, MOST_EXTRA_RATES + 1))
    return replace(grid, rates=(*grid.rates, *beyond), extended=MOST_EXTRA_RATES)


def _is_higher_better(tried: _Tried, grid: Grid) -> bool:
    return tried.runs(grid, grid.rates[0])[0].metric.higher_is_better


def method_table(plan: MethodPlan, runs: Iterable[Run]) -> MethodTable:
    """The rows of every method and budget of which at least one rate was tried by all seeds."""
    runs = list(runs)
    tried, grids = _Tried(runs, plan.spec.seeds), plan.grown(runs)
    rows = [_row(plan, grid, tried) for grid in grids if tried.scores(grid)]
    unsettled = unique(grid.plan.tuning.method for grid in grids if len(tried.scores(grid)) < len(grid.rates))
    metric = next((run.metrics.get("metric", "accuracy") for run in runs if run.spec.bench == plan.bench.name), "accuracy")
    examples = _test_examples(plan.bench) if rows else None
    return MethodTable(plan.bench.name, metric, tuple(rows), plan.spec.seeds, examples, unsettled)


@lru_cache(maxsize=8)
def _test_examples(bench: Bench) -> int:
    return len(bench.splits().test)  # reading and tokenising them may take seconds


def _row(plan: MethodPlan, grid: Grid, tried: _Tried) -> MethodRow:
    rates = tried.scores(grid)
    known = tried.runs(grid, rates[0].learning_rate)
    best = best_rate(rates, higher_is_better=known[0].metric.higher_is_better)
    runs = tried.runs(grid, best.learning_rate)
    one, memories = runs[0].metrics, [memory_of(run, plan.geometry) for run in runs]
    forgot = [run.metrics.get("forgetting") or {} for run in runs]
    steps_s = [run.metrics["step_s"] for run in runs if run.metrics.get("step_s") is not None]
    return MethodRow(
        method=grid.plan.tuning.method,
        r=grid.r,
        learning_rate=best.learning_rate,
        rates=rates,
        at_edge=best.learning_rate in (rates[0].learning_rate, rates[-1].learning_rate),
        seeds=plan.spec.seeds,
        scores=tuple(None if run.metrics["status"] == "diverged" else run.score(split="test") for run in runs),
        validation=best.validation,
        validation_loss=best.validation_loss,
        trainable_params=one["trainable_params"],
        head_params=one["head_params"],
        run_ids=tuple(run.run_id for run in runs),
        diverged=best.diverged,
        base_score=runs[0].score(base=True, split="test"),
        file_bytes=one.get("adapter_file_bytes"),
        step_s=median(steps_s) if steps_s else None,
        memory_bytes=_largest(memory.formula_bytes for memory in memories),
        memory_is_bound=memories[0].is_bound,
        measured_bytes=_largest(memory.measured_allocated_bytes for memory in memories),
        kept=next((f["kept"] for f in forgot if f), None),
        before=tuple(f.get("before") for f in forgot),
        after=tuple(f.get("after") for f in forgot),
    )


def _largest(values: Iterable[int | None]) -> int | None:
    return max((value for value in values if value is not None), default=None)


@dataclass(frozen=True)
class MethodBench:
    """A finished bench: its table, all its runs whatever their rate, and what did not come about."""

    table: MethodTable
    runs: tuple[Run, ...]
    skipped: tuple[str, ...]
    failed: dict[str, str]
    refused: dict[str, str]
    wall_s: float

    @property
    def comparison(self) -> Comparison:
        """What may be said of the table: the methods in order, and which of them the seeds tell apart."""
        return compare(self.table)


def bench_methods(
    bench: str,
    spec: MethodBenchSpec,
    *,
    data: DataSpec | None = None,
    runs: str | Path = "runs",
    runner: str = "process",
    device: str | None = None,
    address: str | None = None,
    watch: Watch = lambda spec, event: None,
) -> MethodBench:
    """Train what the store lacks, round after round, until no grid wants another rate; arguments as for `sweep`.

    Every run goes alone, as what a step of it takes is part of the table.

    Raises:
        LabError: whatever the user can mend, in one sentence.
    """
    began_s, store = time.perf_counter(), RunStore(runs)
    plan = plan_methods(find_bench(bench, data), spec)
    rounds: list[Sweep] = []
    tried: set[str] = set()
    while todo := [wanted for wanted in plan.wanted(store.runs()) if wanted.run_id not in tried]:
        tried |= {wanted.run_id for wanted in todo}
        rounds.append(run_specs(todo, runs, runner=runner, device=device, grouped="never", address=address, watch=watch))
    kept = [run for run in store.find(tried) if run.is_complete]
    if not kept:
        raise _nothing_came_about(rounds)
    return MethodBench(
        table=method_table(plan, kept),
        runs=tuple(kept),
        skipped=tuple(run_id for done in rounds for run_id in done.skipped),
        failed={run_id: why for done in rounds for run_id, why in done.failed.items()},
        refused=plan.refused,
        wall_s=time.perf_counter() - began_s,
    )


def _nothing_came_about(rounds: Sequence[Sweep]) -> LabError:
    return LabError(next((why for done in rounds for why in done.failed.values()), "No run of the bench came to its end."))


def expected_s(specs: Sequence[RunSpec], runs: Iterable[Run], *, device: str | None = None) -> float | None:
    """How long these runs would take here, by what runs of their bench and method took that are there already.

    None where there is no run of the bench that went alone, as these would. A method that has none is taken to be as quick as the
    others.
    """
    walls: dict[str, list[float]] = defaultdict(list)
    for run in runs:
        ended_alone = run.metrics["status"] == "finished" and run.metrics.get("group_runs", 1) == 1
        if specs and ended_alone and run.spec.steps and run.spec.bench == specs[0].bench:
            walls[run.spec.tuning.method].append(run.metrics["wall_s"] / run.spec.steps)
    if not walls:
        return None
    a_step_s = {method: median(found) for method, found in walls.items()}
    usual_s = median(a_step_s.values())
    return sum(spec.steps * a_step_s.get(spec.tuning.method, usual_s) for spec in specs) / runs_at_once(specs, device=device)
