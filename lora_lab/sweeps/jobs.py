"""A sweep under way, as somebody watching it sees it."""

import atexit
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict
from typing import Literal

from lora_lab.errors import LabError
from lora_lab.events import Event, StepEvent
from lora_lab.specs import RunSpec
from lora_lab.sweeps.crew import GRACE_S
from lora_lab.sweeps.groups import Grouped
from lora_lab.sweeps.orders import Orders
from lora_lab.sweeps.progress import RunProgress
from lora_lab.sweeps.run import Run
from lora_lab.sweeps.runners import Tagged, sweep_events
from lora_lab.sweeps.store import RunStore

More = Callable[[Sequence[Run]], Sequence[RunSpec]]  # what is wanted, all in all, once these runs are there
_MOST_WAIT_S = 2 * GRACE_S
JobState = Literal["waiting", "running", "stopping", "finished", "stopped", "failed"]


class Job:
    """A sweep that trains in the background. Reading it never waits; `stop` returns at once.

    Args:
        specs: the planned runs.
        store: where they go; runs that it has already are shown as they ended.
        runner: as for `sweep_events`.
        device: as for `train_events`.
        turn: held while it trains, so that jobs which share one go one after the other.
        grouped: as for `sweep_events`.
        address: as for `sweep_events`.
        more: asked after each round with the runs that there are by then; runs that it wants besides are the next round.
    """

    def __init__(
        self,
        specs: Sequence[RunSpec],
        store: RunStore,
        *,
        runner: str = "process",
        device: str | None = None,
        turn: threading.Semaphore | None = None,
        grouped: Grouped = "auto",
        address: str | None = None,
        more: More | None = None,
    ) -> None:
        self.store, self.runner, self._more = store, runner, more
        self._orders = Orders(device, grouped, address)
        self.specs: tuple[RunSpec, ...] = ()
        self.runs: dict[str, RunProgress] = {}
        self.skipped: tuple[str, ...] = ()
        self._add(specs)
        self.state: JobState = "waiting"
        self.message = ""
        self._stop = threading.Event()
        self._turn = turn or threading.Semaphore()
        self._lock = threading.Lock()  # a stop and the end may come at once
        self._thread = threading.Thread(target=self._drive, daemon=True, name="lora-lab-job")
        self._first_step_s: float | None = None
        self._steps_seen = 0
        self.events_seen = 0

    def start(self) -> "Job":
        """Train in a thread of this process, which drives the runner. A process that ends meanwhile stops it first."""
        atexit.register(self.end)  # runs before multiprocessing's, which would end the workers in the middle of a run
        self._thread.start()
        return self

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the end, no longer than that; whether it has come."""
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def end(self) -> None:
        """Stop, and wait until every worker is gone."""
        self.stop()
        self.wait(_MOST_WAIT_S)

    def stop(self) -> None:
        """Ask the sweep to stop; what was learned is kept."""
        with self._lock:
            if not self.ended:
                self.state = "stopping"
                self._stop.set()

    @property
    def ended(self) -> bool:
        """Whether anything more will happen."""
        return self.state in ("finished", "stopped", "failed")

    @property
    def total_steps(self) -> int:
        """Optimizer steps of all runs together."""
        return sum(spec.steps for spec in self.specs)

    @property
    def steps_done(self) -> int:
        """Of those, the ones done."""
        return sum(progress.step for progress in self.runs.values())

    @property
    def runs_ended(self) -> int:
        """Runs that nothing more will happen to, those included that were there before."""
        return sum(progress.done is not None for progress in self.runs.values())

    @property
    def share_done(self) -> float:
        """Steps done of all steps, in 0..1; 1 where there are none to do."""
        return self.steps_done / self.total_steps if self.total_steps else 1.0

    @property
    def time_left_s(self) -> float | None:
        """At the pace so far; None before the first step."""
        if self._first_step_s is None or self._steps_seen < 2:
            return None
        elapsed_s = time.monotonic() - self._first_step_s
        return (self.total_steps - self.steps_done) * elapsed_s / (self._steps_seen - 1)

    def pump(self, events: Generator[Tagged, None, None], *, closes: bool = False) -> Iterator[Tagged]:
        """Take every event into the job's view and pass it on. Whoever iterates this drives the sweep.

        Args:
            events: what a runner yields.
            closes: stop by closing `events`, where the runner cannot see this job's stop (another process has it).
        """
        with self._lock:
            self.state = "running" if self.state == "waiting" else self.state
        try:
            for run_id, event in events:
                self._take(run_id, event)
                yield run_id, event
                if closes and self._stop.is_set():
                    break
        except LabError as err:
            self._end("failed", str(err))
        except Exception as err:  # whoever drives may have nobody to raise to: the page shows the sentence
            self._end("failed", f"The sweep failed: {type(err).__name__}: {err}")
        finally:  # also where the driver goes away
            events.close()
            self._end()

    def rounds(self, train: Callable[[Sequence[RunSpec]], Generator[Tagged, None, None]]) -> Generator[Tagged, None, None]:
        """What `train` says of the runs it is given, round after round, until nothing more is wanted or the job is stopped."""
        todo = self.specs
        while todo:
            yield from train(todo)
            todo = () if self._stop.is_set() else self._wanted_besides()
            self._add(todo)

    def _wanted_besides(self) -> tuple[RunSpec, ...]:
        wanted = self._more(self.store.find(self.runs)) if self._more else ()
        return tuple(spec for spec in wanted if spec.run_id not in self.runs)

    def _add(self, specs: Sequence[RunSpec]) -> None:
        """Runs come in, those that the store has as they ended; whoever reads meanwhile sees all of them or none."""
        had = {run.run_id: run for run in self.store.find(spec.run_id for spec in specs) if run.is_complete}
        new = {s.run_id: RunProgress.of(s, had[s.run_id].events() if s.run_id in had else ()) for s in specs}
        self.runs = {**self.runs, **new}
        self.specs, self.skipped = (*self.specs, *specs), (*self.skipped, *had)

    def _take(self, run_id: str, event: Event) -> None:
        if isinstance(event, StepEvent):
            self._first_step_s = self._first_step_s or time.monotonic()
            self._steps_seen += 1
        self.runs[run_id].take(event)
        self.events_seen += 1

    def _drive(self) -> None:
        try:
            self._take_turn()
        finally:
            atexit.unregister(self.end)

    def _take_turn(self) -> None:
        while not (has_turn := self._turn.acquire(timeout=0.2)) and not self._stop.is_set():
            pass
        if not has_turn:
            self._end()
            return
        try:
            for _ in self.pump(self.rounds(self._sweep)):
                pass
        finally:
            self._turn.release()

    def _sweep(self, specs: Sequence[RunSpec]) -> Generator[Tagged, None, None]:
        return sweep_events(specs, self.store, runner=self.runner, stop=self._stop, **asdict(self._orders))

    def _end(self, state: JobState | None = None, message: str = "") -> None:
        broken = [p.done.message for p in self.runs.values() if p.done and p.done.status in ("failed", "diverged")]
        failed = any(p.done and p.done.status == "failed" for p in self.runs.values())
        stopped = self._stop.is_set() or any(p.done is None for p in self.runs.values())
        with self._lock:
            if not self.ended:
                self.message = message or (broken[0] if broken else "")
                self.state = state or ("failed" if failed else "stopped" if stopped else "finished")
