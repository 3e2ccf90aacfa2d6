"""What a worker does: train the runs it is handed into the store, and say what happens."""

import os
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar

import torch

from lora_lab.benches import find_bench
from lora_lab.errors import LabError
from lora_lab.events import DoneEvent, Event, StepEvent
from lora_lab.specs import RunSpec
from lora_lab.sweeps.groups import Group, affordable
from lora_lab.sweeps.recorder import Recorder
from lora_lab.sweeps.store import RunStore
from lora_lab.training import group_events, train_events

Tagged = tuple[str, Event]
_T = TypeVar("_T")
_SAY_EVERY_S = 0.1


def record_run(spec: RunSpec, store: RunStore, *, device: str | None = None) -> Generator[Event, None, None]:
    """`record_group` of one run."""
    for _, event in record_group(Group((spec,)), store, device=device):
        yield event


def record_group(group: Group, store: RunStore, *, device: str | None = None) -> Generator[Tagged, None, None]:
    """Train runs into the store, in one pass where they are several: a run's Done is yielded after the run is in place.

    Closing the generator keeps what was learned as stopped runs, unless nothing was. An error leaves nothing of the runs under
    way. Nothing is said of a run that another process has in hand, or has ended by now.
    """
    recorder = Recorder(group.specs, store)
    try:
        with closing(_events(group, recorder, device)) as events:
            for run_id, event in events:
                recorder.take(run_id, event)
                yield run_id, event
    except (GeneratorExit, KeyboardInterrupt):
        recorder.keep_stopped()
        raise
    except BaseException:
        recorder.discard()
        raise


def _events(group: Group, recorder: Recorder, device: str | None) -> Generator[Tagged, None, None]:
    specs, folders = recorder.specs, {run_id: draft.folder for run_id, draft in recorder.drafts.items()}
    if len(specs) == 1:
        with closing(train_events(specs[0], folders[specs[0].run_id], device=device)) as alone:
            for event in alone:
                yield specs[0].run_id, event
    elif specs:
        yield from group_events(specs, folders, device=device, threads=group.threads)


def record_or_fail(group: Group, store: RunStore, *, device: str | None = None) -> Generator[Tagged, None, None]:
    """`record_group` in parts that fit the memory. Where a pass fails its runs are tried alone, one that fails alone has failed:
    the others of a sweep go on."""
    for part in _parts(group, device):
        yield from _part_or_fail(part, store, device)


def _parts(group: Group, device: str | None) -> list[Group]:
    if len(group.specs) == 1:
        return [group]
    bench = find_bench(group.specs[0].bench, group.specs[0].data)
    try:
        return affordable(group, bench, bench.geometry(), device=device)
    except LabError:  # each run says it for itself
        return [Group((spec,)) for spec in group.specs]


def _part_or_fail(group: Group, store: RunStore, device: str | None) -> Generator[Tagged, None, None]:
    steps: dict[str, int] = {}
    ended: set[str] = set()
    try:
        with closing(record_group(group, store, device=device)) as events:
            for run_id, event in events:
                steps[run_id] = event.step if isinstance(event, StepEvent) else steps.get(run_id, 0)
                if isinstance(event, DoneEvent):
                    ended.add(run_id)
                yield run_id, event
    except Exception as err:
        message = _sentence(err, max(steps.values(), default=0))
    else:
        return
    # out here the error is gone, and with it the model that it kept in memory
    for spec in [spec for spec in group.specs if spec.run_id not in ended]:
        if len(group.specs) > 1:
            yield from _part_or_fail(Group((spec,)), store, device)
        else:
            yield spec.run_id, DoneEvent("failed", steps.get(spec.run_id, 0), message, 0.0, None)


def _sentence(err: Exception, step: int) -> str:
    return str(err) if isinstance(err, LabError) else f"Training failed at step {step}: {type(err).__name__}: {err}"


def work_apart(pipe: Connection, root: Path, device: str | None) -> None:
    """The main of a worker process. It leaves its parent's group, as signals to that are not for it: a worker hears of a stop, and
    of its parent's end, on the pipe. So a notebook that is interrupted goes on training, and one that is killed with all its group
    leaves whole runs."""
    if hasattr(os, "setsid"):
        os.setsid()
    work(pipe, root, device)


def work(pipe: Connection, root: Path, device: str | None) -> None:
    """Groups arrive on the pipe, lists of events leave on it, and None when a group is through. None ends it, a
    message during a group stops that."""
    torch.set_num_threads(1)  # what a run needs beyond that it takes while it computes: idle threads would spin
    store = RunStore(root)
    try:
        while (order := pipe.recv()) is not None:
            if isinstance(order, Group):  # a stop that comes between two groups finds nothing to stop
                _train(order, store, pipe, device)
                pipe.send(None)
    except (EOFError, ConnectionError, KeyboardInterrupt):
        return  # the parent is gone: the runs in hand were kept as stopped


def _train(group: Group, store: RunStore, pipe: Connection, device: str | None) -> None:
    with closing(record_or_fail(group, store, device=device)) as events:
        for said in batched(events):
            pipe.send(said)
            if pipe.poll():
                pipe.recv()
                return


def batched(said: Iterable[tuple[str, _T]]) -> Iterator[list[tuple[str, _T]]]:
    """What is said, in lists: one for every tenth of a second, and each up to the end of a run."""
    batch: list[tuple[str, _T]] = []
    sent_s = 0.0
    for tagged in said:
        batch.append(tagged)
        if isinstance(tagged[1], DoneEvent) or time.monotonic() - sent_s > _SAY_EVERY_S:
            yield batch
            batch, sent_s = [], time.monotonic()
    if batch:
        yield batch
