"""Groups as tasks of a Ray cluster: events and adapters stream back to this process, which alone writes the store.

A task has a folder of its own on its node and needs no disk in common; a group whose node or worker is
lost is submitted again; what was saved last is kept whatever ends the sweep.
"""

import inspect
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from lora_lab.benches import find_bench
from lora_lab.errors import LabError
from lora_lab.events import DoneEvent
from lora_lab.specs import RunSpec
from lora_lab.sweeps.groups import Group, plan_phases, threads_of
from lora_lab.sweeps.orders import Orders
from lora_lab.sweeps.outcome import installed_versions
from lora_lab.sweeps.ray_cluster import cluster_slots, connected, import_ray, stop_queue
from lora_lab.sweeps.ray_task import Said, train_group
from lora_lab.sweeps.recorder import Recorder
from lora_lab.sweeps.slots import Slots
from lora_lab.sweeps.store import RunStore
from lora_lab.sweeps.supplies import Supply, supplies_of
from lora_lab.sweeps.tries import MOST_TRIES, Tries
from lora_lab.sweeps.under_way import UnderWay
from lora_lab.sweeps.worker import Tagged

GRACE_S = 10.0  # a task that does not stop by itself in this time is killed: an evaluation may take a few seconds
_POLL_S = 0.1
Task = Callable[[Group, Sequence[Supply], dict[str, str], str, Any], Iterator[list[Said]]]


def on_node(group: Group, supplies: Sequence[Supply], versions: dict[str, str], device: str, stops: Any) -> Iterator[list[Said]]:
    """The task: `train_group` with what a node asks of the cluster."""
    yield from train_group(group, supplies, versions, device, import_ray().get, lambda: not stops.empty())


def ray_events(
    todo: Sequence[RunSpec], store: RunStore, orders: Orders, stop: threading.Event, *, task: Task = on_node
) -> Generator[Tagged, None, None]:
    """Train runs on a cluster of Ray.

    Args:
        todo: the runs.
        store: where they go, by this process's hand alone.
        orders: `address` is of a cluster that this machine is part of, `auto` or HOST:PORT; where it is None one is started on
            this machine and ended with the sweep.
        stop: set it to stop; closing the generator does the same. What was learned so far is kept.
        task: what a node does with a group.

    Raises:
        SpecError: there is no cluster at the address, it does not answer, or none of its machines has such a device.
    """
    with connected(orders.address) as alone:
        slots = cluster_slots(orders.device)
        groups = [group for phase in plan_phases(todo, slots, grouped=orders.grouped) for group in phase.groups]
        sweep = _Sweep(import_ray(), store, slots, task, ships=not alone, waiting=deque(groups))
        try:
            yield from sweep.events(stop)
        finally:
            sweep.wind_up()


@dataclass
class _Flight:
    """A group that a task has in hand, or will have.

    Attributes:
        stream: of references to what the task says.
        heard: whether it has said anything.
        ended: runs that have.
    """

    group: Group
    stream: Any
    recorder: Recorder
    heard: bool = False
    ended: set[str] = field(default_factory=set)

    def take(self, said: list[Said]) -> list[Tagged]:
        """Record what it said, all of it before anybody hears of it. The events."""
        self.heard = True
        events = []
        for run_id, word in said:
            if isinstance(word, dict):
                self.recorder.put(run_id, word)
                continue
            self.recorder.take(run_id, word)
            if isinstance(word, DoneEvent):
                self.ended.add(run_id)
            events.append((run_id, word))
        return events


@dataclass
class _Sweep:
    """The groups of one sweep: those that wait, and those that the cluster has.

    Attributes:
        under_way: runs that a task has in hand, or that wait for another as theirs was lost.
    """

    ray: ModuleType
    store: RunStore
    slots: Slots
    task: Task
    ships: bool
    waiting: deque[Group]
    flights: list[_Flight] = field(default_factory=list)
    under_way: UnderWay = field(default_factory=UnderWay)
    tries: Tries = field(default_factory=Tries)
    stopping: bool = False

    def __post_init__(self) -> None:
        self._supplies: dict[object, tuple[Supply, ...]] = {}
        self._versions = dict(installed_versions())
        self._stops = stop_queue()
        self._remote = self.ray.remote(inspect.unwrap(self.task))  # a checker of types hides from Ray that it is a generator

    def events(self, stop: threading.Event) -> Iterator[Tagged]:
        """Until every group is through, or the sweep is stopped and has had its time."""
        deadline_s: float | None = None
        while (self.waiting or self.flights) and (deadline_s is None or time.monotonic() < deadline_s):
            if stop.is_set() and deadline_s is None:
                deadline_s = time.monotonic() + GRACE_S
                self.ask_to_stop()
            yield from self.submit()
            yield from self.collect()
        self.kill()
        if stop.is_set():
            yield from self.under_way.stopped()

    def submit(self) -> Iterator[Tagged]:
        """Keep the cluster busy, with one group more than it has room for: a claim is an open file, so that not all are taken."""
        while self.waiting and sum(threads_of(flight.group, self.slots) for flight in self.flights) <= self.slots.count:
            yield from self._take_off(self.waiting.popleft())

    def _take_off(self, group: Group) -> Iterator[Tagged]:
        try:
            recorder = Recorder(group.specs, self.store)
        except LabError as err:
            yield from self._failed(group.specs, str(err))
            return
        if not recorder.specs:
            return
        group = Group(recorder.specs, group.threads, group.workers)
        try:
            self.flights.append(_Flight(group, self._task(group), recorder))
        except BaseException as err:
            recorder.discard()
            if not isinstance(err, LabError):
                raise
            yield from self._failed(group.specs, str(err))  # what its bench reads is not to be had

    def _task(self, group: Group) -> Any:
        device = "cpu" if self.slots.on_cpu else "cuda"
        remote = self._remote.options(
            num_returns="streaming",
            num_cpus=threads_of(group, self.slots),
            num_gpus=0 if self.slots.on_cpu else 1,
            max_retries=0,  # a second time its runs begin again, for which a claim has to be had again
            name=f"lora-lab {group.specs[0].run_id}",
        )
        return remote.remote(group, self._supplies_of(group.specs[0]), self._versions, device, self._stops)

    def _supplies_of(self, spec: RunSpec) -> tuple[Supply, ...]:
        key = (spec.bench, spec.data)
        if key not in self._supplies:
            self._supplies[key] = supplies_of(find_bench(spec.bench, spec.data), self.ray.put if self.ships else None)
        return self._supplies[key]

    def collect(self) -> Iterator[Tagged]:
        """What the tasks said within one poll, of each that said something."""
        streams = [flight.stream for flight in self.flights]
        if not streams or not self.ray.wait(streams, timeout=_POLL_S)[0]:
            return
        said = self.ray.wait(streams, num_returns=len(streams), timeout=0)[0]
        for flight in [flight for flight in self.flights if any(flight.stream is stream for stream in said)]:
            yield from self._listen(flight)

    def _listen(self, flight: _Flight) -> Iterator[Tagged]:
        errors = self.ray.exceptions
        try:
            said = self.ray.get(next(flight.stream))
        except StopIteration:
            self._land(flight)
        except errors.RayTaskError as err:
            self.flights.remove(flight)
            left = flight.recorder.specs
            flight.recorder.discard()
            yield from self._failed(left, _sentence(err.cause))
        except errors.RayError as err:
            yield from self._lost(flight, type(err).__name__)
        else:
            for run_id, event in flight.take(said):
                self.under_way.take(run_id, event)
                yield run_id, event

    def _land(self, flight: _Flight) -> None:
        """It says no more: what it had begun becomes stopped runs, as last saved."""
        self.flights.remove(flight)
        flight.recorder.keep_saved()

    def _failed(self, specs: Sequence[RunSpec], message: str) -> Iterator[Tagged]:
        for spec in specs:
            yield spec.run_id, DoneEvent("failed", self.under_way.over(spec.run_id), message, 0.0, None)

    def _lost(self, flight: _Flight, how: str) -> Iterator[Tagged]:
        """A worker or its node is gone: its runs are tried again, first together and then alone."""
        self._land(flight)
        if self.stopping:
            return
        again, given_up = self.tries.again(flight.group, flight.ended)
        self.waiting.extendleft(reversed(again))
        for spec in given_up:
            step = self.under_way.over(spec.run_id)
            message = f"The training process was lost {MOST_TRIES} times ({how}), at step {step}."
            yield spec.run_id, DoneEvent("failed", step, message, 0.0, None)

    def ask_to_stop(self) -> None:
        """What has not begun never will."""
        self.stopping = True
        self.waiting.clear()
        self._stops.put(None)
        self._cancel([flight for flight in self.flights if not flight.heard])

    def kill(self) -> None:
        """End what is left: it becomes stopped runs, as last saved."""
        self._cancel(list(self.flights))

    def _cancel(self, flights: Sequence[_Flight]) -> None:
        for flight in flights:
            self.ray.cancel(flight.stream, force=True)
            self._land(flight)

    def wind_up(self) -> None:
        """Nobody listens any more: stop gently, then not."""
        self.ask_to_stop()
        deadline_s = time.monotonic() + GRACE_S
        while self.flights and time.monotonic() < deadline_s:
            for _ in self.collect():
                pass
        self.kill()
        self._stops.shutdown(force=True)


def _sentence(err: BaseException | None) -> str:
    return str(err) if isinstance(err, LabError) else f"The task failed: {type(err).__name__}: {err}"
