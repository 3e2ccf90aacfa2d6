"""Devices: only what is there, and random numbers that stay in their block."""

import subprocess
import sys

import pytest
import torch

from lora_lab.errors import SpecError
from lora_lab.training import devices
from lora_lab.training.devices import (
    peak_memory_bytes,
    peak_reserved_bytes,
    pick_device,
    pinned_threads,
    precision_on,
    seeded,
    threads_for,
)

CPU = torch.device("cpu")
THERE = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}


@pytest.mark.parametrize("name", [*(name for name, there in THERE.items() if not there), "tpu", "", "CPU", "cpu:x"])
def test_a_device_that_is_not_there_is_refused_in_one_sentence(name: str) -> None:
    with pytest.raises(SpecError) as caught:
        pick_device(name)
    message = str(caught.value)
    assert message.startswith("The device parameter of training must be one of ")
    assert message.endswith(f"Got {name!r}.")


@pytest.mark.parametrize("name", [name for name, there in THERE.items() if there])
def test_a_device_that_is_there_is_picked(name: str) -> None:
    assert pick_device(name).type == name


def test_the_best_device_is_picked_where_none_is_asked_for() -> None:
    best = "cuda" if THERE["cuda"] else "mps" if THERE["mps"] else "cpu"
    assert pick_device().type == best


def test_the_cpu_computes_in_fp32_and_counts_no_memory() -> None:
    assert precision_on(CPU) == "fp32"
    assert peak_memory_bytes(CPU) is None
    assert peak_reserved_bytes(CPU) is None


def test_a_seeded_block_leaves_the_global_stream_untouched() -> None:
    state = torch.get_rng_state()
    with seeded(CPU, 0):
        torch.rand(5)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_seeded_block_that_fails_leaves_the_global_stream_untouched() -> None:
    def failing() -> None:
        with seeded(CPU, 0):
            torch.rand(5)
            raise ZeroDivisionError

    state = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError):
        failing()
    assert torch.equal(torch.get_rng_state(), state)


def test_a_seeded_block_draws_from_its_seed_alone() -> None:
    drawn = []
    for seed in (3, 3, 4):
        torch.rand(1)
        with seeded(CPU, seed):
            drawn.append(torch.rand(4))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_threads_are_pinned_for_a_block_and_come_back() -> None:
    before = torch.get_num_threads()
    with pinned_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_a_run_takes_the_threads_of_its_bench_or_every_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "cpu_count", lambda: 6)
    assert (threads_for(1), threads_for(None)) == (1, 6)


def test_a_process_bound_to_one_core_takes_one_thread() -> None:
    bound = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})"
    code = f"{bound}; from lora_lab.training.devices import threads_for; print(threads_for(None))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "1"
