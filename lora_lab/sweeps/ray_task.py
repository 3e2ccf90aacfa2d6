"""What a node of a Ray cluster does: train a group in a folder of its own, and say what happens and what was learned."""

import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import torch

from lora_lab.adapters import SNAPSHOTS, saved_step, snapshot_files
from lora_lab.assets import hand_over
from lora_lab.errors import TrainingError
from lora_lab.events import DoneEvent, EvalEvent, Event, StartEvent
from lora_lab.sweeps.groups import Group
from lora_lab.sweeps.outcome import installed_versions
from lora_lab.sweeps.store import RunStore
from lora_lab.sweeps.supplies import Get, Supply, placed
from lora_lab.sweeps.worker import batched, record_or_fail

Files = dict[str, bytes]  # of a run's folder, by their paths in it
Said = tuple[str, Event | Files]
_ASK_EVERY_S = 0.5  # whether to stop


def train_group(
    group: Group, supplies: Sequence[Supply], versions: Mapping[str, str], device: str, get: Get, is_stopped: Callable[[], bool]
) -> Generator[list[Said], None, None]:
    """Train a group on this machine, yielding lists of (run id, event) and, before an event by which something was saved, the
    files of that under the run's id.

    Args:
        group: the runs.
        supplies: what their bench reads.
        versions: of the driver's packages.
        device: `cuda` or `cpu`.
        get: as for `placed`.
        is_stopped: asked now and then; what was learned so far is said then, each run's Done last.

    Raises:
        LabError: this machine has other packages, or the files cannot be had.
    """
    _require_same(versions)
    torch.set_num_threads(1)  # what a run needs beyond that it takes while it computes: idle threads would spin
    hand_over({supply.name: placed(supply, get) for supply in supplies})
    with tempfile.TemporaryDirectory(prefix="lora-lab-") as folder:
        yield from batched(_said(group, RunStore(folder), device, _rarely(is_stopped)))


def _require_same(versions: Mapping[str, str]) -> None:
    for name, found in installed_versions().items():
        if found != versions[name]:
            raise TrainingError(f"Every machine of the cluster must have the driver's {name} {versions[name]}. Got {found}.")


def _said(group: Group, store: RunStore, device: str, is_stopped: Callable[[], bool]) -> Iterator[Said]:
    begun: dict[str, int | None] = {}  # run id -> the step of the adapter that was sent
    with closing(record_or_fail(group, store, device=device)) as events:
        for run_id, event in events:
            if isinstance(event, StartEvent):
                begun[run_id] = None
            if isinstance(event, EvalEvent | DoneEvent):
                yield from _saved(store, run_id, begun)
            if isinstance(event, DoneEvent):
                begun.pop(run_id, None)
            yield run_id, event
            if is_stopped():
                break
    for run in store.find(begun):
        yield from _saved(store, run.run_id, begun)
        yield run.run_id, run.events()[-1]


def _saved(store: RunStore, run_id: str, sent: dict[str, int | None]) -> Iterator[Said]:
    """The adapter as it was saved last, if that was not said, and the snapshots of ΔW since the one that was."""
    last, step = sent.get(run_id), saved_step(store.folder_of(run_id) / "adapter")
    if step is not None and step != last:
        sent[run_id] = step
        yield run_id, saved_files(store.folder_of(run_id), after=last or 0, up_to=step)


def saved_files(folder: Path, *, after: int, up_to: int) -> Files:
    """The adapter in a run's folder, and the snapshots of ΔW of the steps after the one and up to the other."""
    snapshots = [path for step, path in snapshot_files(folder / SNAPSHOTS) if after < step <= up_to]
    adapter = [path for path in (folder / "adapter").rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in (*snapshots, *adapter)}


def _rarely(ask: Callable[[], bool]) -> Callable[[], bool]:
    """The question, put to another process no more often than it matters."""
    asked_s = time.monotonic()

    def asks() -> bool:
        nonlocal asked_s
        if time.monotonic() - asked_s < _ASK_EVERY_S:
            return False
        asked_s = time.monotonic()
        return ask()

    return asks
