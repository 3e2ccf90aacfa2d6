"""What the Ray runner costs beside training, measured on this machine: `python -m lora_lab.sweeps.cluster_costs`.

One real run of the digits is trained; its events and adapter are then said again by tasks that train nothing, as many runs of many
seeds. What this process takes for them is what the driver of a cluster takes, whoever trains. `docs/clusters.md` computes with it.
"""

import json
import pickle
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lora_lab.benches import find_bench
from lora_lab.events import EvalEvent, Event, StartEvent
from lora_lab.specs import MethodSpec, RunSpec
from lora_lab.sweeps.groups import Group
from lora_lab.sweeps.orders import Orders
from lora_lab.sweeps.ray_cluster import connected
from lora_lab.sweeps.ray_runner import Task, ray_events
from lora_lab.sweeps.ray_task import Files, Said, saved_files
from lora_lab.sweeps.run import Run
from lora_lab.sweeps.runners import sweep_events
from lora_lab.sweeps.store import RunStore
from lora_lab.training import plan_run


@dataclass(frozen=True, slots=True)
class Handled:
    """What the driver took for runs that were said to it, each a group of its own.

    Attributes:
        events: of one run.
        cpu_s: of the driver's process, for one run.
        wall_s: for one run, the tasks on the same cores included.
    """

    runs: int
    events: int
    cpu_s: float
    wall_s: float


@dataclass(frozen=True, slots=True)
class RunBytes:
    """What one run is on the disk and in the stream."""

    log: int
    adapter: int
    rest: int
    sent_event: float


@dataclass(frozen=True, slots=True)
class IndexTimes:
    """What a store of so many runs takes: to index them all, to ask it again, to ask it after one more run, to recover nothing."""

    runs: int
    build_s: float
    again_s: float
    one_more_s: float
    recover_s: float


@dataclass(frozen=True, slots=True)
class ClusterCosts:
    """Everything that is measured: of runs that say a few things and of runs that say all that a real one does."""

    short: Handled
    long: Handled
    run_bytes: RunBytes
    index: IndexTimes

    @property
    def cpu_event_s(self) -> float:
        """The driver's CPU time for one event more."""
        return (self.long.cpu_s - self.short.cpu_s) / (self.long.events - self.short.events)

    @property
    def cpu_run_s(self) -> float:
        """The driver's CPU time for a run and its task, without its events."""
        return self.short.cpu_s - self.short.events * self.cpu_event_s


def measure(*, groups: int = 200, index_runs: int = 10_000) -> ClusterCosts:
    """Measure it all.

    Args:
        groups: of one run each, that are said.
        index_runs: runs that are made up for the index.
    """
    with tempfile.TemporaryDirectory() as scratch:
        store = RunStore(Path(scratch) / "real")
        spec = plan_run(find_bench("digits"), MethodSpec(r=8))
        list(sweep_events([spec], store, runner="inline"))
        run = store.get(spec.run_id)
        events = run.events()
        few = [event for event in events if isinstance(event, StartEvent | EvalEvent)]
        with connected(None):
            short = handle(run, [*few, events[-1]], Path(scratch) / "short", groups=groups)
            long = handle(run, events, Path(scratch) / "long", groups=groups)
        return ClusterCosts(short, long, run_bytes(run), index_times(run, Path(scratch) / "index", runs=index_runs))


def handle(run: Run, events: Sequence[Event], root: Path, *, groups: int) -> Handled:
    """What it takes to hear and keep so many runs that say what this one did."""
    specs, store = seeds_of(run.spec, groups + 1), RunStore(root)
    heard = ray_events(specs, store, Orders(grouped=1), threading.Event(), task=_saying(events, _files(run)))
    for run_id, _ in heard:  # a cluster starts, and its workers
        if store.is_complete(run_id):
            break
    began_cpu_s, began_s = time.process_time(), time.perf_counter()
    for _ in heard:
        pass
    cpu_s, wall_s = time.process_time() - began_cpu_s, time.perf_counter() - began_s
    return Handled(groups, len(events), cpu_s / groups, wall_s / groups)


def seeds_of(spec: RunSpec, count: int) -> list[RunSpec]:
    """The run under so many seeds."""
    return [replace(spec, seed=seed) for seed in range(1, count + 1)]


def run_bytes(run: Run) -> RunBytes:
    """What the run is."""
    events = run.events()
    sent = len(pickle.dumps([(run.run_id, event) for event in events])) / len(events)
    log, adapter = (run.folder / "events.jsonl").stat().st_size, sum(map(len, _files(run).values()))
    whole = sum(path.stat().st_size for path in run.folder.rglob("*") if path.is_file())
    return RunBytes(log, adapter, whole - log - adapter, sent)


def index_times(run: Run, root: Path, *, runs: int) -> IndexTimes:
    """What so many runs like this one take in a store."""
    store, (last, *rest) = RunStore(root), seeds_of(run.spec, runs + 1)
    for spec in rest:
        _copy(run, spec, root)
    build_s, again_s, recover_s = _timed(store.complete_ids), _timed(store.complete_ids), _timed(store.recover)
    _copy(run, last, root)
    return IndexTimes(runs, build_s, again_s, _timed(store.complete_ids), recover_s)


def _copy(run: Run, spec: RunSpec, root: Path) -> None:
    folder = root / spec.run_id
    folder.mkdir()
    (folder / "spec.json").write_text(json.dumps(spec.to_json()))
    shutil.copyfile(run.folder / "metrics.json", folder / "metrics.json")


def _timed(do: Any) -> float:
    began_s = time.perf_counter()
    do()
    return time.perf_counter() - began_s


def _files(run: Run) -> Files:
    return saved_files(run.folder, after=0, up_to=run.metrics["step"])


def _saying(events: Sequence[Event], files: Files) -> Task:
    """A task that says of each of its runs that this happened, a tenth at a time, and that this is its adapter."""

    def say(group: Group, *_: Any) -> Iterator[list[Said]]:
        for spec in group.specs:
            said: list[Said] = [(spec.run_id, event) for event in events]
            said.insert(len(said) - 1, (spec.run_id, files))
            part = max(1, len(said) // 10)
            yield from (said[at : at + part] for at in range(0, len(said), part))

    return say


def main(sizes: Sequence[str]) -> None:
    """Print what was measured as one JSON document; `sizes` are the numbers of groups and of runs in the index."""
    costs = measure(**dict(zip(("groups", "index_runs"), map(int, sizes), strict=False)))
    print(json.dumps({**asdict(costs), "cpu_run_s": costs.cpu_run_s, "cpu_event_s": costs.cpu_event_s}, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
