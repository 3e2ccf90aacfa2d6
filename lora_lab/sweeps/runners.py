"""Runners: specs in, (run id, event) out. In this process, or in worker processes that may be stopped or killed."""

import multiprocessing
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from types import ModuleType

from lora_lab.benches import find_bench
from lora_lab.errors import SpecError, out_of_range
from lora_lab.events import DoneEvent, Event, StepEvent
from lora_lab.specs import RunSpec
from lora_lab.sweeps.store import RunStore
from lora_lab.sweeps.worker import record_or_fail, work
from lora_lab.training import pick_device, threads_for

RUNNERS = ("process", "inline")
GRACE_S = 8.0  # a worker that does not stop by itself in this time is killed: an evaluation may take a few seconds
_POLL_S = 0.1
Tagged = tuple[str, Event]


def sweep_events(
    specs: Sequence[RunSpec],
    store: RunStore,
    *,
    runner: str = "process",
    device: str | None = None,
    stop: threading.Event | None = None,
) -> Generator[Tagged, None, None]:
    """Train every spec that the store does not have, yielding what happens, each run's Done after it is in the store.

    Args:
        specs: the runs.
        store: where they go.
        runner: `process` (as many workers as the cores hold) or `inline`.
        device: as for `train_events`.
        stop: set it to stop; closing the generator does the same. What was learned so far is kept.

    Raises:
        SpecError: an unknown runner or device.
    """
    check_runner(runner, device)
    store.recover()
    by_id, complete = {spec.run_id: spec for spec in specs}, store.complete_ids()
    todo = [spec for run_id, spec in by_id.items() if run_id not in complete]
    stop = stop or threading.Event()
    return _inline(todo, store, device, stop) if runner == "inline" else _processes(todo, store, device, stop)


def check_runner(runner: str, device: str | None) -> None:
    """Refuse what cannot run here, before anything is written.

    Raises:
        SpecError: an unknown runner or device.
    """
    if runner not in RUNNERS:
        raise SpecError(out_of_range("runner", "sweep_events", f"one of {', '.join(RUNNERS)}", runner))
    pick_device(device)


def _inline(todo: Sequence[RunSpec], store: RunStore, device: str | None, stop: threading.Event) -> Generator[Tagged, None, None]:
    for spec in todo:
        step, event = 0, None
        with closing(record_or_fail(spec, store, device=device)) as events:
            for event in events:
                step = event.step if isinstance(event, StepEvent) else step
                yield spec.run_id, event
                if stop.is_set():
                    break
        if not isinstance(event, DoneEvent):
            yield spec.run_id, DoneEvent("stopped", step, "Stopped.", 0.0, None)
        if stop.is_set():
            return


def _context() -> BaseContext:
    """forkserver where forking is safe: one process imports torch, workers start from it at once."""
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lora_lab.sweeps.worker"])
    return context


@contextmanager
def _main_left_alone() -> Iterator[None]:
    """Workers need lora_lab and nothing of the caller's: multiprocessing would run the user's script again in each."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def warm_up() -> None:
    """Start the process that workers are forked from, so that the first sweep does not wait for its imports."""
    _context()
    if sys.platform == "linux":
        from multiprocessing.forkserver import ensure_running  # noqa: PLC0415 (not there on every platform)

        ensure_running()


@dataclass
class _Worker:
    """One worker process and the run it has in hand."""

    process: BaseProcess
    pipe: Connection
    spec: RunSpec | None = None
    step: int = 0


@dataclass
class _Crew:
    """The workers of one sweep and the runs that wait for them."""

    store: RunStore
    device: str | None
    waiting: deque[RunSpec]
    workers: list[_Worker] = field(default_factory=list)

    def hire(self) -> None:
        context = _context()
        ours, theirs = context.Pipe()
        arguments = (theirs, self.store.root, self.device)
        process = context.Process(target=work, args=arguments, daemon=True)  # type: ignore[attr-defined]
        with _main_left_alone():
            process.start()
        theirs.close()
        worker = _Worker(process, ours)
        self.workers.append(worker)
        self.assign(worker)

    def assign(self, worker: _Worker) -> None:
        """Give the worker the next run, or send it home."""
        worker.spec, worker.step = (self.waiting.popleft(), 0) if self.waiting else (None, 0)
        with suppress(OSError):  # it died since: the next look at its pipe finds out
            worker.pipe.send(worker.spec)
        if worker.spec is None:
            self.workers.remove(worker)

    def collect(self) -> Iterator[Tagged]:
        """What the workers said within one poll."""
        said = wait([w.pipe for w in self.workers], timeout=_POLL_S)
        for worker in [w for w in self.workers if w.pipe in said]:
            yield from self._listen(worker)

    def _listen(self, worker: _Worker) -> Iterator[Tagged]:
        assert worker.spec is not None
        run_id = worker.spec.run_id
        try:
            event: Event = worker.pipe.recv()
        except (EOFError, OSError):
            yield run_id, self._bury(worker)
            return
        worker.step = event.step if isinstance(event, StepEvent) else worker.step
        yield run_id, event
        if isinstance(event, DoneEvent):
            self.assign(worker)

    def _bury(self, worker: _Worker) -> DoneEvent:
        """A worker died: its run failed, another worker takes its place."""
        self.workers.remove(worker)
        worker.process.join()
        self.store.recover()
        if self.waiting:
            self.hire()
        message = f"The training process ended unexpectedly (exit code {worker.process.exitcode}) at step {worker.step}."
        return DoneEvent("failed", worker.step, message, 0.0, None)

    def ask_to_stop(self) -> None:
        self.waiting.clear()
        for worker in self.workers:
            with suppress(OSError):  # it ended by itself in the meantime
                worker.pipe.send("stop")

    def kill(self) -> Iterator[Tagged]:
        """End what is left; the last snapshots become stopped runs."""
        for worker in self.workers:
            worker.process.kill()
            worker.process.join()
        self.store.recover()
        for worker in self.workers:
            if worker.spec is not None:
                yield worker.spec.run_id, DoneEvent("stopped", worker.step, "Stopped; the last snapshot was kept.", 0.0, None)
        self.workers.clear()


def _processes(
    todo: Sequence[RunSpec], store: RunStore, device: str | None, stop: threading.Event
) -> Generator[Tagged, None, None]:
    crew = _Crew(store, device, waiting=deque(todo))
    width = min(len(todo), runs_at_once(todo, device))
    for _ in range(width):
        crew.hire()
    deadline_s: float | None = None
    try:
        while crew.workers and (deadline_s is None or time.monotonic() < deadline_s):
            if stop.is_set() and deadline_s is None:
                deadline_s = time.monotonic() + GRACE_S
                crew.ask_to_stop()
            yield from crew.collect()
        yield from crew.kill()
    finally:
        _wind_up(crew)


def runs_at_once(todo: Sequence[RunSpec], device: str | None) -> int:
    """How many runs share the machine: as many as its cores hold their threads; one on an accelerator."""
    if pick_device(device).type != "cpu":
        return 1
    most = max((threads_for(find_bench(spec.bench, spec.data).defaults.threads) for spec in todo), default=1)
    return max(1, (os.cpu_count() or 1) // most)


def _wind_up(crew: _Crew) -> None:
    """The generator was closed: stop gently, then not."""
    crew.ask_to_stop()
    deadline_s = time.monotonic() + GRACE_S
    while crew.workers and time.monotonic() < deadline_s:
        for _ in crew.collect():
            pass
    for _ in crew.kill():
        pass
