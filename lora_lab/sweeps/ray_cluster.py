"""A cluster of Ray, as this process finds it or starts it. Ray is an extra: this alone imports it, when it is asked for."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import ModuleType
from typing import Any

from lora_lab.errors import SpecError, out_of_range
from lora_lab.sweeps.orders import Orders
from lora_lab.sweeps.slots import Slots

_ANSWER_S = 120.0  # a cluster that is busy takes a while to start a process
_QUIET = {"log_to_driver": False, "logging_level": "ERROR"}
_AUTH_MODE = "RAY_AUTH_MODE"


def import_ray() -> ModuleType:
    """Ray itself.

    Raises:
        SpecError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it tells nobody of itself
    try:
        import ray as library  # noqa: PLC0415 (an extra)
    except ImportError as err:
        raise SpecError("The runner ray needs Ray, which is not installed: pip install ray.") from err
    found: ModuleType = library
    return found


def check_ray(orders: Orders) -> None:
    """Refuse what no cluster can do, before anything is written.

    Raises:
        SpecError: Ray is not installed, or a device or address that it has not.
    """
    import_ray()
    if orders.device not in (None, "cuda", "cpu"):
        raise SpecError(out_of_range("device", "sweep_events", "cuda or cpu where the runner is ray", orders.device))
    if orders.address is not None and "://" in orders.address:
        raise SpecError(out_of_range("address", "sweep_events", "auto or HOST:PORT", orders.address))


@contextmanager
def connected(address: str | None) -> Iterator[bool]:
    """A block with a cluster. This process is left as it was: a cluster that it is connected to already is taken, and stays.

    Args:
        address: of a cluster that this machine is part of, `auto` or HOST:PORT; where it is None one is started here.

    Yields:
        Whether the cluster is of this machine alone, as it was started for the block.

    Raises:
        SpecError: Ray is not installed, there is no cluster at the address, or none can be started here.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield False
        return
    with _process_left_alone(ray):
        _connect(ray, address)
        try:
            yield address is None
        finally:
            ray.shutdown()


def _connect(ray: ModuleType, address: str | None) -> None:
    try:
        with nullcontext() if address else on_loopback(ray):
            ray.init(address=address or "local", include_dashboard=None if address else False, **_QUIET)
    except Exception as err:  # it has many ways to say no, some of them plain exceptions
        where = "The address must be that of a Ray cluster here" if address else "A Ray cluster must start on this machine"
        raise SpecError(f"{where}. Got {address!r}: {str(err).splitlines()[0]}") from err


@contextmanager
def _process_left_alone(ray: ModuleType) -> Iterator[None]:
    """Ray takes a signal, and turns on tokens for a cluster that it starts: another that has none would not hear this process."""
    handler, auth_mode = signal.getsignal(signal.SIGTERM), os.environ.get(_AUTH_MODE)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)
        if auth_mode is None and os.environ.pop(_AUTH_MODE, ""):
            ray._raylet.Config.initialize("")  # it reads its environment once


@contextmanager
def on_loopback(ray: ModuleType) -> Iterator[None]:
    """Ray's switch for systems whose firewalls ask: a cluster started in this block listens on 127.0.0.1 and nowhere else."""
    constants = ray._private.ray_constants
    before, constants.ENABLE_RAY_CLUSTER = constants.ENABLE_RAY_CLUSTER, False
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before


def cluster_slots(device: str | None) -> Slots:
    """The cluster's accelerators, or its cores where it has none or they are not wanted.

    Raises:
        SpecError: an accelerator is wanted and there is none, or there is no core.
    """
    machines = [node["Resources"] for node in import_ray().nodes() if node["Alive"]]
    cores, gpus = (sum(int(machine.get(kind, 0)) for machine in machines) for kind in ("CPU", "GPU"))
    if device == "cuda" and not gpus:
        raise SpecError(f"The device cuda must be one that the cluster has. Its {len(machines)} machines have no GPU.")
    if not cores:
        raise SpecError(f"The cluster must have a CPU core for each group. Its {len(machines)} machines have none.")
    on_cpu = device == "cpu" or not gpus
    of_one = max(int(machine.get("CPU", 0)) for machine in machines)
    return Slots(cores if on_cpu else gpus, on_cpu, of_one)


def stop_queue() -> Any:
    """A queue beside this process which tasks look into: what is in it asks them to stop.

    Raises:
        SpecError: the cluster does not answer.
    """
    ray = import_ray()
    from ray.util.queue import Queue  # noqa: PLC0415 (an extra)

    here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    queue = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
    try:
        ray.get(queue.actor.empty.remote(), timeout=_ANSWER_S)
    except ray.exceptions.RayError as err:
        must = f"The Ray cluster must answer this process, which it does if both have the same token or none ({_AUTH_MODE})."
        raise SpecError(f"{must} Got {type(err).__name__}.") from err
    return queue
