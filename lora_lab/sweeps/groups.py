"""Which runs go through one pass, on how many workers."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import psutil
import torch

from lora_lab.benches import Bench, find_bench
from lora_lab.budget.formula import formula
from lora_lab.errors import SpecError, out_of_range
from lora_lab.geometry import Geometry
from lora_lab.specs import RunSpec, StepSpec
from lora_lab.sweeps.memory import picture_positions
from lora_lab.sweeps.slots import Slots
from lora_lab.training import may_share, pick_device, sharing_key

MOST_ROWS = 256  # of a pass: beyond that a CPU gains nothing, and a run that fails takes more with it
_SHARE_OF_MEMORY = 0.6  # of what is free: the formula knows no allocator and no evaluation
Grouped = str | int  # auto, never, or the most runs of a group


@dataclass(frozen=True, slots=True)
class Group:
    """Runs that one worker trains in one pass, or one run alone.

    Attributes:
        specs: the runs.
        threads: on the CPU; the bench's where nothing is said.
        workers: that share the machine's memory with this one, itself among them.
    """

    specs: tuple[RunSpec, ...]
    threads: int | None = None
    workers: int = 1


@dataclass(frozen=True, slots=True)
class Phase:
    """Groups that so many workers go through."""

    groups: tuple[Group, ...]
    workers: int


def plan_phases(todo: Sequence[RunSpec], slots: Slots, *, grouped: Grouped = "auto") -> tuple[Phase, ...]:
    """Runs that share a pass first, on a worker for every slot and one thread each; then those that go alone.

    Args:
        todo: the runs.
        slots: what they are trained on.
        grouped: `auto`, `never`, or the most runs of a group.

    Raises:
        SpecError: `grouped` is none of these.
    """
    check_grouped(grouped)
    together = [spec for spec in todo if grouped != "never" and may_share(spec)]
    alone = [spec for spec in todo if grouped == "never" or not may_share(spec)]
    phases = (_together(together, slots, grouped), _alone(alone, slots))
    return tuple(phase for phase in phases if phase.groups)


def check_grouped(grouped: Grouped) -> None:
    """Refuse what is no way to group runs.

    Raises:
        SpecError: it is neither `auto` nor `never` nor a number of runs.
    """
    if grouped not in ("auto", "never") and not (isinstance(grouped, int) and not isinstance(grouped, bool) and grouped >= 1):
        raise SpecError(out_of_range("grouped", "sweep", "auto, never, or the most runs of a group", grouped))


def _together(specs: Sequence[RunSpec], slots: Slots, grouped: Grouped) -> Phase:
    by_key: dict[object, list[RunSpec]] = {}
    for spec in specs:
        by_key.setdefault(sharing_key(spec), []).append(spec)
    chunks = [chunk for alike in by_key.values() for chunk in _chunks(alike, slots.count, grouped)]
    workers = max(1, min(slots.count, len(chunks)))
    threads = slots.threads(max(1, slots.count // workers))
    beside = slots.beside(workers, threads)
    groups = [Group(chunk, min(threads, _most_threads(chunk[0]) or threads), beside) for chunk in chunks]
    return Phase(tuple(groups), workers)


def _chunks(specs: Sequence[RunSpec], workers: int, grouped: Grouped) -> list[tuple[RunSpec, ...]]:
    """Even parts, one for every worker at least; runs of like rank together, as all are padded to the largest."""
    most = grouped if isinstance(grouped, int) else max(1, MOST_ROWS // specs[0].batch_size)
    count = -(-len(specs) // most)
    count = min(len(specs), -(-count // workers) * workers)
    ordered = sorted(specs, key=lambda spec: spec.tuning.r)
    ends = [round(i * len(ordered) / count) for i in range(count + 1)]
    return [tuple(ordered[begin:end]) for begin, end in pairwise(ends)]


def _alone(specs: Sequence[RunSpec], slots: Slots) -> Phase:
    threads = max((threads_of(Group((spec,)), slots) for spec in specs), default=1)
    workers = max(1, min(len(specs), slots.at_once(threads)))
    return Phase(tuple(Group((spec,), workers=slots.beside(workers, threads)) for spec in specs), workers)


def runs_at_once(specs: Sequence[RunSpec], *, device: str | None) -> int:
    """Of runs that go alone, as many as the cores hold their threads: a run's rounding must not depend on its company. One on an
    accelerator."""
    return _alone(specs, Slots.here(device)).workers


def threads_of(group: Group, slots: Slots) -> int:
    """The CPU threads that a group computes on."""
    return slots.threads(group.threads or _most_threads(group.specs[0]))


def _most_threads(spec: RunSpec) -> int | None:
    return find_bench(spec.bench, spec.data).defaults.threads


def affordable(group: Group, bench: Bench, geometry: Geometry, *, device: str | None) -> list[Group]:
    """The group in parts that fit the memory which is free; as it is where nobody can tell what it needs.

    Args:
        group: runs of one bench.
        bench: theirs.
        geometry: of its base.
        device: as for `train_events`.
    """
    most = most_runs(group.specs, bench, geometry, free_bytes=int(free_bytes(device) * _SHARE_OF_MEMORY / group.workers))
    specs = group.specs
    parts = [specs[i : i + most] for i in range(0, len(specs), most)] if most else [specs]
    return [Group(part, group.threads, group.workers) for part in parts]


def most_runs(specs: Iterable[RunSpec], bench: Bench, geometry: Geometry, *, free_bytes: int) -> int | None:
    """How many of these runs go through one pass in so many bytes, one at least; None where the formula cannot tell.

    Of the ledger the base's weights are there once, and all else, padded to the dearest run's, once a run.
    """
    columns = bench.splits().train.columns
    seq = columns["input_ids"].shape[1] if "input_ids" in columns else picture_positions(geometry)
    if seq is None:
        return None
    found = []
    for spec in specs:
        try:
            ledger = formula(geometry, spec.tuning, StepSpec(batch=spec.batch_size, seq=seq, dtype="fp32", quant=spec.quant))
        except SpecError:
            return None
        found.append((ledger.weights, ledger.peak - ledger.weights))
    weights, each = max(found)[0], max(run for _, run in found)
    return max(1, (free_bytes - weights) // max(each, 1))


def free_bytes(device: str | None) -> int:
    """Memory that a new model could have: of the card, or of the machine."""
    if pick_device(device).type == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    return int(psutil.virtual_memory().available)
