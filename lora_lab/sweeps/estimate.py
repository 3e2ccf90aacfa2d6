"""A sweep before it starts: how many runs and steps it takes, what they leave on disk, and how long that takes here."""

import heapq
import math
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import torch
from torch import nn

from lora_lab.benches import Bench, Split, find_bench
from lora_lab.errors import SpecError, out_of_range
from lora_lab.specs import RunSpec
from lora_lab.sweeps.disk import RunBytes, evaluations, run_bytes, spectra
from lora_lab.sweeps.groups import Group, Grouped, Phase, plan_phases
from lora_lab.sweeps.runners import LOCAL_RUNNERS, check_runner
from lora_lab.sweeps.slots import Slots
from lora_lab.sweeps.store import RunStore
from lora_lab.training import evaluate, pick_device, threads_for
from lora_lab.training.devices import pinned_threads
from lora_lab.training.engine import Engine
from lora_lab.training.grouped import GroupedEngine
from lora_lab.training.plain import PlainEngine

_WARM_UP_STEPS, _LOOKS = 2, 3
_FEWEST_STEPS, _MOST_STEPS, _ENOUGH_S = 3, 20, 1.0  # timed steps: as many as go into a second, within these
Kind = Hashable
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Pace:
    """What the parts of one kind of pass take on this machine, in seconds, measured on a few of them.

    Args:
        begin_s: the model built, the methods attached, the data at hand.
        step_s: one optimizer step of all runs of the pass, the median of a few.
        spectra_s: the singular values of every ΔW of all of them.
        loss_s: the loss of one run on the validation split, by its first batch.
        score_s: the metric on top of that, where it takes answers that have to be written.
        retention_s: what the base could before, measured once.
    """

    begin_s: float
    step_s: float
    spectra_s: float
    loss_s: float
    score_s: float
    retention_s: float

    def pass_s(self, specs: Sequence[RunSpec]) -> float:
        """A whole pass: its steps; the base scored on both splits, and then each run."""
        steps, watched, looks = specs[0].steps, evaluations(specs[0]), spectra(specs[0])
        score_s = self.loss_s + self.score_s
        base_s = 2 * score_s + self.retention_s
        run_s = self.retention_s + (2 * score_s + (watched - 1) * self.loss_s if steps else 0.0)
        return self.begin_s + steps * self.step_s + looks * self.spectra_s + base_s + len(specs) * run_s


@dataclass(frozen=True, slots=True)
class SweepPlan:
    """What a sweep comes to before it starts.

    Args:
        runs: how many runs it has.
        kept: of those, how many the store has already; what follows is of the others.
        steps: optimizer steps, each run's counted.
        adapter_bytes: the adapters' files.
        snapshot_bytes: of ΔW on the way.
        log_bytes: logs of events, and the small files beside them.
        passes: groups of runs that train together, and runs that train alone.
        workers: passes at the same time, at most.
        time_s: how long it takes, the start of worker processes apart; None where nothing was timed.
    """

    runs: int
    kept: int
    steps: int
    adapter_bytes: int
    snapshot_bytes: int
    log_bytes: int
    passes: int
    workers: int
    time_s: float | None

    @property
    def disk_bytes(self) -> int:
        """Everything that the sweep leaves behind."""
        return self.adapter_bytes + self.snapshot_bytes + self.log_bytes

    def to_json(self) -> dict[str, Any]:
        """The plan with its sum."""
        return {**asdict(self), "disk_bytes": self.disk_bytes}


def plan_sweep(
    specs: Sequence[RunSpec],
    kept: Collection[str] = (),
    *,
    phases: Sequence[Phase] | None = None,
    paces: Mapping[Kind, Pace] | None = None,
) -> SweepPlan:
    """Count what planned runs of one bench come to.

    Args:
        specs: the runs.
        kept: ids of runs that are there already.
        phases: how the others are to be trained; as `plan_phases` does where nothing is said.
        paces: what `measure_paces` found for these.
    """
    todo = [spec for spec in specs if spec.run_id not in kept]
    phases = plan_phases(todo, Slots.here(None)) if phases is None else phases
    sizes = _sizes(todo)
    return SweepPlan(
        runs=len(specs),
        kept=len(specs) - len(todo),
        steps=sum(spec.steps for spec in todo),
        adapter_bytes=sum(size.adapter for size in sizes),
        snapshot_bytes=sum(size.snapshots for size in sizes),
        log_bytes=sum(size.log for size in sizes),
        passes=sum(len(phase.groups) for phase in phases),
        workers=max((phase.workers for phase in phases), default=0),
        time_s=None if paces is None else math.fsum(_phase_s(phase, paces) for phase in phases),
    )


def plan_here(
    specs: Sequence[RunSpec],
    runs: str | Path,
    *,
    runner: str = "process",
    device: str | None = None,
    grouped: Grouped = "auto",
) -> SweepPlan:
    """`plan_sweep` against a store, which is not made if it is not there, with times measured on this machine.

    Raises:
        LabError: an unknown runner, device or way to group, a runner that trains elsewhere, or a run that cannot be begun.
    """
    check_runner(runner, device)
    if runner not in LOCAL_RUNNERS:
        allowed = f"one of {', '.join(LOCAL_RUNNERS)}, whose pace can be timed here"
        raise SpecError(out_of_range("runner", "a plan", allowed, runner))
    kept = RunStore(runs).complete_ids() if Path(runs).is_dir() else set()
    todo = [spec for spec in specs if spec.run_id not in kept]
    phases = plan_phases(todo, Slots.here(device), grouped=grouped)
    if runner == "inline":
        phases = tuple(replace(phase, workers=1) for phase in phases)
    groups = [group for phase in phases for group in phase.groups]
    return plan_sweep(specs, kept, phases=phases, paces=measure_paces(groups, device=device))


def _sizes(specs: Sequence[RunSpec]) -> list[RunBytes]:
    if not specs:
        return []
    bench = find_bench(specs[0].bench, specs[0].data)
    geometry = bench.geometry()
    heads = bench.head_modules(geometry)
    return [run_bytes(geometry, spec, heads) for spec in specs]


def _phase_s(phase: Phase, paces: Mapping[Kind, Pace]) -> float:
    return makespan_s([paces[kind_of(group)].pass_s(group.specs) for group in phase.groups], phase.workers)


def makespan_s(durations_s: Sequence[float], workers: int) -> float:
    """How long passes take together: each begins, in their order, as soon as one of the workers is free.

    >>> makespan_s([2.0, 1.0, 1.0, 3.0], 2), makespan_s([], 2)
    (5.0, 0.0)
    """
    free_s = [0.0] * workers
    for duration_s in durations_s:
        heapq.heapreplace(free_s, free_s[0] + duration_s)
    return max(free_s)


def kind_of(group: Group) -> Kind:
    """What passes have in common that go at one pace; ranks and targets of their runs move it less than that."""
    first = group.specs[0]
    method = first.tuning.method if len(group.specs) == 1 else ""
    return first.bench, first.data, method, first.quant, first.optimizer, first.batch_size, len(group.specs), group.threads


def measure_paces(groups: Sequence[Group], *, device: str | None = None) -> dict[Kind, Pace]:
    """The pace of every kind among the groups, timed on the one of middling rank."""
    kinds: dict[Kind, list[Group]] = defaultdict(list)
    for group in groups:
        kinds[kind_of(group)].append(group)
    return {kind: measure_pace(sorted(alike, key=_width)[len(alike) // 2], device=device) for kind, alike in kinds.items()}


def _width(group: Group) -> int:
    return max(spec.tuning.r * max(1, len(spec.tuning.targets)) for spec in group.specs)


def measure_pace(group: Group, *, device: str | None = None) -> Pace:
    """Time a few real steps of a pass, after a warm-up, and a look of each kind; nothing is kept."""
    first = group.specs[0]
    bench, on_device = find_bench(first.bench, first.data), pick_device(device)
    threads = group.threads if group.threads and len(group.specs) > 1 else threads_for(bench.defaults.threads)
    with pinned_threads(threads), TemporaryDirectory() as folder:
        begin_s, engine = _timed(lambda: _engine(group, bench, Path(folder), on_device))
        step_s = _step_s(engine)
        held_out, retention = bench.splits().validation, bench.retention()
        with engine.model_of(engine.specs[0]) as model:
            return Pace(
                begin_s=begin_s,
                step_s=step_s,
                spectra_s=_usual_s(engine.spectra),
                loss_s=_split_s(model, held_out),
                score_s=_answers_s(model, held_out) if held_out.task.is_slow else 0.0,
                retention_s=_split_s(model, retention.split) if retention else 0.0,
            )


def _engine(group: Group, bench: Bench, folder: Path, device: torch.device) -> Engine:
    """What takes the group's steps, with as many of them as may be timed."""
    specs = [replace(spec, steps=max(spec.steps, _WARM_UP_STEPS + _MOST_STEPS)) for spec in group.specs]
    if len(specs) == 1:
        return PlainEngine(specs[0], bench, bench.splits(), folder, device)
    return GroupedEngine(specs, bench, bench.splits(), device)


def _timed(do: Callable[[], T]) -> tuple[float, T]:
    began_s = time.perf_counter()
    found = do()
    return time.perf_counter() - began_s, found


def _usual_s(do: Callable[[], object]) -> float:
    """The median of a few, as what is timed here counts many times."""
    return median(_timed(do)[0] for _ in range(_LOOKS))


def _step_s(engine: Engine) -> float:
    found: list[float] = []
    for step in range(1, _WARM_UP_STEPS + _MOST_STEPS + 1):
        began_s = time.perf_counter()
        engine.backward(step)  # a GPU has done it when the loss is told
        engine.update()
        found.append(time.perf_counter() - began_s)
        if step >= _WARM_UP_STEPS + _FEWEST_STEPS and sum(found[_WARM_UP_STEPS:]) > _ENOUGH_S:
            break
    return median(found[_WARM_UP_STEPS:])


def _split_s(model: nn.Module, split: Split) -> float:
    """The loss of a whole split, by its first batch."""
    some = split.take(torch.arange(min(len(split), split.task.rows_a_batch)))
    return _usual_s(lambda: evaluate(model, some, score=False)) * len(split) / len(some)


def _answers_s(model: nn.Module, split: Split) -> float:
    """Written answers to as many rows as are scored, by those to a first batch."""
    scored = min(len(split), getattr(split.task, "scored_rows", len(split)))
    some = split.take(torch.arange(min(scored, split.task.rows_a_batch)))
    loss_s, both_s = _timed(lambda: evaluate(model, some, score=False))[0], _timed(lambda: evaluate(model, some))[0]
    return max(0.0, both_s - loss_s) * scored / len(some)
