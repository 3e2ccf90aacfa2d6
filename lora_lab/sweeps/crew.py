"""Worker processes that may be stopped or killed: groups in, (run id, event) out."""

import multiprocessing
import sys
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from types import ModuleType

from lora_lab.events import DoneEvent
from lora_lab.sweeps.groups import Group
from lora_lab.sweeps.store import RunStore
from lora_lab.sweeps.tries import MOST_TRIES, Tries
from lora_lab.sweeps.under_way import UnderWay
from lora_lab.sweeps.worker import Tagged, work_apart

GRACE_S = 8.0  # a worker that does not stop by itself in this time is killed: an evaluation may take a few seconds
_POLL_S = 0.1
_MAIN = threading.Lock()


def crew_events(
    groups: Sequence[Group], workers: int, store: RunStore, device: str | None, stop: threading.Event
) -> Generator[Tagged, None, None]:
    """Train the groups on so many worker processes. A worker that dies has its runs trained again by another.

    Args:
        groups: in the order in which they are handed out.
        workers: processes at once.
        store: where runs go.
        device: as for `train_events`.
        stop: set it to stop; closing the generator does the same. What was learned so far is kept.
    """
    crew = _Crew(store, device, waiting=deque(groups))
    for _ in range(min(workers, len(groups))):
        crew.hire()
    deadline_s: float | None = None
    try:
        while crew.workers and (deadline_s is None or time.monotonic() < deadline_s):
            if stop.is_set() and deadline_s is None:
                deadline_s = time.monotonic() + GRACE_S
                crew.ask_to_stop()
            yield from crew.collect()
        crew.kill()
        if stop.is_set():
            yield from crew.under_way.stopped()
    finally:
        crew.wind_up()


def _context() -> BaseContext:
    """forkserver where forking is safe: one process imports torch, workers start from it at once."""
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lora_lab.sweeps.worker"])
    return context


@contextmanager
def _main_left_alone() -> Iterator[None]:
    """Workers need lora_lab and nothing of the caller's: multiprocessing would run the user's script again in each.

    One thread at a time: a second would take the empty module for the caller's, and leave it there.
    """
    with _MAIN:
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
    """One worker process, the group it has in hand and the runs of that which have ended."""

    process: BaseProcess
    pipe: Connection
    group: Group | None = None
    ended: set[str] = field(default_factory=set)


@dataclass
class _Crew:
    """The workers of one sweep and the groups that wait for them.

    Attributes:
        under_way: runs that a worker has in hand, or that wait for another as theirs has died.
    """

    store: RunStore
    device: str | None
    waiting: deque[Group]
    workers: list[_Worker] = field(default_factory=list)
    under_way: UnderWay = field(default_factory=UnderWay)
    tries: Tries = field(default_factory=Tries)
    stopping: bool = False

    def hire(self) -> None:
        context = _context()
        ours, theirs = context.Pipe()
        arguments = (theirs, self.store.root, self.device)
        process = context.Process(target=work_apart, args=arguments, daemon=True)  # type: ignore[attr-defined]
        with _main_left_alone():
            process.start()
        theirs.close()
        worker = _Worker(process, ours)
        self.workers.append(worker)
        self.assign(worker)

    def assign(self, worker: _Worker) -> None:
        """Give the worker the next group, or send it home."""
        worker.group, worker.ended = self.waiting.popleft() if self.waiting else None, set()
        with suppress(OSError):  # it died since: the next look at its pipe finds out
            worker.pipe.send(worker.group)
        if worker.group is None:
            self.workers.remove(worker)

    def collect(self) -> Iterator[Tagged]:
        """What the workers said within one poll."""
        said = wait([w.pipe for w in self.workers], timeout=_POLL_S)
        for worker in [w for w in self.workers if w.pipe in said]:
            yield from self._listen(worker)

    def _listen(self, worker: _Worker) -> Iterator[Tagged]:
        try:
            said: list[Tagged] | None = worker.pipe.recv()
        except (EOFError, OSError):
            yield from self._bury(worker)
            return
        for run_id, event in said or ():
            self.under_way.take(run_id, event)
            if isinstance(event, DoneEvent):
                worker.ended.add(run_id)
            yield run_id, event
        if said is None:  # it is through with its group
            self.assign(worker)

    def _bury(self, worker: _Worker) -> Iterator[Tagged]:
        """A worker died: another takes its place, and its runs are tried again, first together and then alone."""
        self.workers.remove(worker)
        worker.process.join()
        self.store.recover()
        if self.stopping:
            return
        assert worker.group is not None
        again, given_up = self.tries.again(worker.group, worker.ended)
        self.waiting.extendleft(reversed(again))
        for spec in given_up:
            yield spec.run_id, self._failed(worker, spec.run_id)
        if self.waiting:
            self.hire()

    def _failed(self, worker: _Worker, run_id: str) -> DoneEvent:
        step = self.under_way.over(run_id)
        ended = f"The training process ended unexpectedly {MOST_TRIES} times (exit code {worker.process.exitcode}), at step {step}."
        return DoneEvent("failed", step, ended, 0.0, None)

    def ask_to_stop(self) -> None:
        self.stopping = True
        self.waiting.clear()
        for worker in self.workers:
            with suppress(OSError):  # it ended by itself in the meantime
                worker.pipe.send("stop")

    def kill(self) -> None:
        """End what is left; the adapters as last saved become stopped runs."""
        for worker in self.workers:
            worker.process.kill()
            worker.process.join()
        if self.workers:
            self.store.recover()
        self.workers.clear()

    def wind_up(self) -> None:
        """Nobody listens any more: stop gently, then not."""
        self.ask_to_stop()
        deadline_s = time.monotonic() + GRACE_S
        while self.workers and time.monotonic() < deadline_s:
            for _ in self.collect():
                pass
        self.kill()
