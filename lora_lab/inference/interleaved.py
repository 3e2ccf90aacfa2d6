"""Timing several things against each other on a machine that others use too."""

import gc
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch

from lora_lab.errors import SpecError, out_of_range

Clock = Callable[[], float]
WARM_UP = 3  # rounds that are not counted


def interleaved(
    calls: Mapping[str, Callable[[], object]],
    *,
    repeats: int,
    passes: int = 1,
    seed: int = 0,
    warm_up: int = WARM_UP,
    clock: Clock = time.perf_counter,
) -> dict[str, list[float]]:
    """Time each call in every round, in an order shuffled anew each time: what slows the machine down slows all of them.

    Args:
        calls: what to time, by name; a call returns when its work is done.
        repeats: rounds that count.
        passes: how often a round goes through all calls; the least time of each is the round's.
        seed: of the orders.
        warm_up: rounds before those that count, of one pass each.
        clock: seconds.

    Returns:
        The seconds of every call, round by round.

    Raises:
        SpecError: not one round is asked for.
    """
    if repeats < 1:
        raise SpecError(out_of_range("repeats", "latency", "at least 1", repeats))
    order = random.Random(seed)

    def once() -> dict[str, float]:
        return {name: _timed(calls[name], clock) for name in order.sample(list(calls), len(calls))}

    with _no_collection():
        for _ in range(warm_up):
            once()
        rounds = [[once() for _ in range(passes)] for _ in range(repeats)]
    return {name: [min(taken_s[name] for taken_s in one) for one in rounds] for name in calls}


def _timed(call: Callable[[], object], clock: Clock) -> float:
    begun_s = clock()
    call()
    return clock() - begun_s


def finish(device: torch.device) -> None:
    """Wait until the device has done what it was given; a CPU has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


@contextmanager
def _no_collection() -> Iterator[None]:
    """Python collects no garbage in between, as in timeit."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
