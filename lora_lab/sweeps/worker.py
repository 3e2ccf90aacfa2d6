"""What a worker process does: train the runs it is handed into the store, and say what happens."""

from collections.abc import Generator
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from lora_lab.errors import LabError
from lora_lab.events import DoneEvent, Event, StepEvent
from lora_lab.specs import RunSpec
from lora_lab.sweeps.store import Draft, RunStore
from lora_lab.training import train_events


def record_run(spec: RunSpec, store: RunStore, *, device: str | None = None) -> Generator[Event, None, None]:
    """`train_events` into the store: Done is yielded after the run is in place.

    Closing the generator keeps what was learned as a stopped run, unless nothing was. An error leaves nothing.
    """
    draft = store.begin(spec)
    step, elapsed_s = 0, 0.0
    try:
        with closing(train_events(spec, draft.folder, device=device)) as events:
            for event in events:
                draft.record(event)
                if isinstance(event, StepEvent):
                    step, elapsed_s = event.step, event.elapsed_s
                if isinstance(event, DoneEvent):
                    break
                yield event
    except (GeneratorExit, KeyboardInterrupt):
        _keep_stopped(draft, step, elapsed_s)
        raise
    except BaseException:
        draft.discard()
        raise
    draft.commit()
    yield event


def _keep_stopped(draft: Draft, step: int, elapsed_s: float) -> None:
    if step == 0:
        draft.discard()
        return
    draft.record(DoneEvent("stopped", step, "Stopped.", elapsed_s, None))
    draft.commit()


def record_or_fail(spec: RunSpec, store: RunStore, *, device: str | None = None) -> Generator[Event, None, None]:
    """`record_run`, an error turned into the Done event of a failed run: the others of a sweep go on."""
    step = 0
    try:
        with closing(record_run(spec, store, device=device)) as events:
            for event in events:
                step = event.step if isinstance(event, StepEvent) else step
                yield event
    except LabError as err:
        yield DoneEvent("failed", step, str(err), 0.0, None)
    except Exception as err:
        yield DoneEvent("failed", step, f"Training failed at step {step}: {type(err).__name__}: {err}", 0.0, None)


def work(pipe: Connection, root: Path, device: str | None) -> None:
    """The worker's main: runs arrive on the pipe, events leave on it; None ends it, a message during a run stops that."""
    torch.set_num_threads(1)  # what a run needs beyond that it takes while it computes: idle threads would spin
    store = RunStore(root)
    try:
        while (order := pipe.recv()) is not None:
            if isinstance(order, RunSpec):  # a stop that comes between two runs finds nothing to stop
                pipe.send(_train_one(order, store, pipe, device))
    except (EOFError, ConnectionError, KeyboardInterrupt):
        return  # the parent is gone: the run in hand was kept as stopped


def _train_one(spec: RunSpec, store: RunStore, pipe: Connection, device: str | None) -> DoneEvent:
    step = 0
    with closing(record_or_fail(spec, store, device=device)) as events:
        for event in events:
            if isinstance(event, DoneEvent):
                return event
            step = event.step if isinstance(event, StepEvent) else step
            pipe.send(event)
            if pipe.poll():
                pipe.recv()
                break
    return DoneEvent("stopped", step, "Stopped.", 0.0, None)
