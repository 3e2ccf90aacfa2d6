"""Runners: specs in, (run id, event) out. In this process, in worker processes, or on a cluster of Ray."""

import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import closing

from lora_lab.errors import SpecError, out_of_range
from lora_lab.events import DoneEvent
from lora_lab.specs import RunSpec
from lora_lab.sweeps.crew import crew_events, warm_up
from lora_lab.sweeps.groups import Group, Grouped, Phase, check_grouped, plan_phases
from lora_lab.sweeps.orders import Orders
from lora_lab.sweeps.ray_cluster import check_ray
from lora_lab.sweeps.ray_runner import ray_events
from lora_lab.sweeps.slots import Slots
from lora_lab.sweeps.store import RunStore
from lora_lab.sweeps.under_way import UnderWay
from lora_lab.sweeps.worker import Tagged, record_or_fail
from lora_lab.training import pick_device

__all__ = ["LOCAL_RUNNERS", "RUNNERS", "Tagged", "check_runner", "sweep_events", "warm_up"]

_OTHERS_POLL_S = 0.5
_Events = Generator[Tagged, None, None]
_Runner = Callable[[Sequence[RunSpec], RunStore, Orders, threading.Event], _Events]


def sweep_events(
    specs: Sequence[RunSpec],
    store: RunStore,
    *,
    runner: str = "process",
    device: str | None = None,
    grouped: Grouped = "auto",
    address: str | None = None,
    stop: threading.Event | None = None,
) -> Generator[Tagged, None, None]:
    """Train every spec that the store does not have, yielding what happens, each run's Done after it is in the store.

    A run that another process is training is waited for, and told as that left it; if it was left unfinished it is trained here.
    A run that begins again, as after the death of its worker, says so by another Start.

    Args:
        specs: the runs.
        store: where they go.
        runner: `process` (a worker process for every core), `inline`, or `ray`.
        device: as for `train_events`.
        grouped: `auto` trains runs that can share a pass in one, `never` each alone; or the most runs of a pass.
        address: of the cluster for `ray`: `auto` or HOST:PORT; one is started on this machine where it is None.
        stop: set it to stop; closing the generator does the same. What was learned so far is kept.

    Raises:
        SpecError: an unknown runner or device, or a `grouped` that is neither.
    """
    check_runner(runner, device, address)
    check_grouped(grouped)
    store.recover()
    by_id, complete = {spec.run_id: spec for spec in specs}, store.complete_ids()
    todo = [spec for run_id, spec in by_id.items() if run_id not in complete]
    return _to_the_last(todo, store, RUNNERS[runner], Orders(device, grouped, address), stop or threading.Event())


def check_runner(runner: str, device: str | None, address: str | None = None) -> None:
    """Refuse what cannot run here, before anything is written.

    Raises:
        SpecError: an unknown runner or device, or an address for a runner that has none.
    """
    if runner not in RUNNERS:
        raise SpecError(out_of_range("runner", "sweep_events", f"one of {', '.join(RUNNERS)}", runner))
    if runner == "ray":
        check_ray(Orders(device, address=address))
        return
    pick_device(device)
    if address is not None:
        raise SpecError(out_of_range("address", "sweep_events", f"left out where the runner is {runner}", address))


def _to_the_last(todo: Sequence[RunSpec], store: RunStore, run: _Runner, orders: Orders, stop: threading.Event) -> _Events:
    """Round after round, as a round says nothing of runs that another process has in hand."""
    while todo and not stop.is_set():
        ended = set()
        with closing(run(todo, store, orders, stop)) as events:
            for run_id, event in events:
                if isinstance(event, DoneEvent):
                    ended.add(run_id)
                yield run_id, event
        if stop.is_set():
            return
        todo = yield from _of_others([spec for spec in todo if spec.run_id not in ended], store, stop)


def _of_others(specs: Sequence[RunSpec], store: RunStore, stop: threading.Event) -> Generator[Tagged, None, list[RunSpec]]:
    """Wait until another process is through with one of its runs, and tell what it completed.

    Returns:
        The runs that are still to be trained.
    """
    while specs and all(store.is_claimed(spec.run_id) for spec in specs) and not stop.wait(_OTHERS_POLL_S):
        pass
    complete = {run.run_id: run for run in store.find(spec.run_id for spec in specs) if run.is_complete}
    for run_id, run in complete.items():
        for event in run.events():
            yield run_id, event
    return [spec for spec in specs if spec.run_id not in complete]


def _inline(todo: Sequence[RunSpec], store: RunStore, orders: Orders, stop: threading.Event) -> _Events:
    for phase in _phases_here(todo, orders):
        for group in phase.groups:
            yield from _group_inline(group, store, orders.device, stop)
            if stop.is_set():
                return


def _group_inline(group: Group, store: RunStore, device: str | None, stop: threading.Event) -> _Events:
    under_way = UnderWay()
    with closing(record_or_fail(group, store, device=device)) as events:
        for run_id, event in events:
            under_way.take(run_id, event)
            yield run_id, event
            if stop.is_set():
                break
    yield from under_way.stopped()


def _processes(todo: Sequence[RunSpec], store: RunStore, orders: Orders, stop: threading.Event) -> _Events:
    for phase in _phases_here(todo, orders):
        yield from crew_events(phase.groups, phase.workers, store, orders.device, stop)
        if stop.is_set():
            return


def _phases_here(todo: Sequence[RunSpec], orders: Orders) -> tuple[Phase, ...]:
    return plan_phases(todo, Slots.here(orders.device), grouped=orders.grouped)


LOCAL_RUNNERS: dict[str, _Runner] = {"process": _processes, "inline": _inline}
RUNNERS: dict[str, _Runner] = {**LOCAL_RUNNERS, "ray": ray_events}
