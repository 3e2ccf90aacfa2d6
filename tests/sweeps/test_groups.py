"""Which runs go through one pass: each once, evenly on the cores, no more at once than fit the memory."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

import lora_lab as ll
from lora_lab.benches import Bench
from lora_lab.budget.formula import formula
from lora_lab.errors import SpecError
from lora_lab.geometry import Geometry
from lora_lab.specs import StepSpec
from lora_lab.sweeps import expand, groups, slots
from lora_lab.sweeps.groups import MOST_ROWS, Group, Phase, affordable, most_runs, plan_phases, runs_at_once, threads_of
from lora_lab.sweeps.slots import Slots
from lora_lab.training import may_share, sharing_key

POSITIONS = (8 // 2) ** 2 + 1  # patches of 2 × 2 pixels in a digit of 8 × 8, and the class token


def specs_of(**axes: object) -> list[ll.RunSpec]:
    return list(expand(ll.find_bench("digits"), ll.SweepSpec(**{"steps": 10, **axes})))


def shared(runs: int, *, batch_size: int = 8) -> list[ll.RunSpec]:
    """So many runs that can share a pass, their ranks in no order."""
    ranks = random.Random(0).sample(range(1, runs + 1), runs)
    return specs_of(r=tuple(ranks), batch_size=batch_size)


def mixed() -> list[ll.RunSpec]:
    """Runs of two batch sizes that can share passes, and some that go alone."""
    together = specs_of(r=(1, 8, 2, 4), seeds=(0, 1), batch_size=(8, 16))
    return [*together, *specs_of(r=(2, 4), methods=("dora",)), *specs_of(r=(2,), optimizer=("SGD",))]


def plan(specs: Sequence[ll.RunSpec], **options: object) -> tuple[Phase, ...]:
    return plan_phases(specs, Slots.here("cpu"), **options)


def groups_of(phases: Sequence[Phase]) -> list[Group]:
    return [group for phase in phases for group in phase.groups]


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """`cores(n)` makes it a machine of so many."""
    return lambda n: monkeypatch.setattr(slots, "cpu_count", lambda: n)


# Phases


@pytest.mark.parametrize("grouped", ["auto", "never", 1, 3, 100])
@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_every_run_is_planned_once(cores: Callable[[int], None], n: int, grouped: str | int) -> None:
    cores(n)
    planned = [spec for group in groups_of(plan(mixed(), grouped=grouped)) for spec in group.specs]
    assert sorted(spec.run_id for spec in planned) == sorted(spec.run_id for spec in mixed())


def test_nothing_to_do_is_no_phase() -> None:
    assert plan([]) == ()


@pytest.mark.parametrize("grouped", ["auto", 3])
def test_only_runs_that_can_share_a_pass_are_in_one(grouped: str | int) -> None:
    together, alone = plan(mixed(), grouped=grouped)
    for group in together.groups:
        assert len({sharing_key(spec) for spec in group.specs}) == 1
        assert all(may_share(spec) for spec in group.specs)
    for group in alone.groups:
        (spec,) = group.specs
        assert not may_share(spec)


def test_never_leaves_each_run_alone() -> None:
    (phase,) = plan(mixed(), grouped="never")
    assert {len(group.specs) for group in phase.groups} == {1}


@pytest.mark.parametrize("most", [1, 2, 3, 5])
def test_no_group_has_more_runs_than_are_asked_for(most: int) -> None:
    (phase,) = plan(shared(11), grouped=most)
    assert max(len(group.specs) for group in phase.groups) <= most


@pytest.mark.parametrize("runs", [1, 2, 3, 7, 8, 40])
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_groups_are_even_and_there_is_work_for_every_core_all_the_time(cores: Callable[[int], None], n: int, runs: int) -> None:
    cores(n)
    (phase,) = plan(shared(runs))
    sizes = [len(group.specs) for group in phase.groups]
    assert max(sizes) - min(sizes) <= 1
    assert phase.workers == min(n, runs)
    assert len(sizes) % phase.workers == 0


def test_a_pass_has_no_more_rows_than_a_cpu_gains_by(cores: Callable[[int], None]) -> None:
    cores(1)
    (phase,) = plan(shared(40, batch_size=32))
    assert max(len(group.specs) for group in phase.groups) * 32 == MOST_ROWS


def test_a_run_of_more_rows_than_that_goes_alone(cores: Callable[[int], None]) -> None:
    cores(1)
    (phase,) = plan(shared(2, batch_size=MOST_ROWS + 1))
    assert [len(group.specs) for group in phase.groups] == [1, 1]


def test_runs_of_like_rank_go_together(cores: Callable[[int], None]) -> None:
    """All are padded to the largest."""
    cores(4)
    (phase,) = plan(shared(11))
    ranks = [[spec.tuning.r for spec in group.specs] for group in phase.groups]
    assert all(max(low) <= min(high) for low, high in pairwise(ranks))


@pytest.mark.parametrize("grouped", ["always", "", 0, -1, True])
def test_what_is_no_way_to_group_runs_is_refused_in_a_sentence(grouped: object) -> None:
    with pytest.raises(SpecError, match=r"grouped .* must be auto, never, or the most runs of a group") as refused:
        plan([], grouped=grouped)
    assert str(refused.value).endswith(".")


# Workers and threads


def test_an_accelerator_has_one_worker(cores: Callable[[int], None], monkeypatch: pytest.MonkeyPatch) -> None:
    cores(8)
    monkeypatch.setattr(slots, "pick_device", lambda wanted: torch.device("cuda"))
    together, alone = plan_phases(mixed(), Slots.here(None))
    assert (together.workers, alone.workers) == (1, 1)
    assert {group.workers for group in groups_of((together, alone))} == {1}
    assert len({sharing_key(spec) for spec in mixed() if may_share(spec)}) == len(together.groups)


@pytest.mark.parametrize("bench", ["digits", "reviews"])
@pytest.mark.parametrize("runs", [1, 2, 5])
@pytest.mark.parametrize("n", [1, 2, 6])
def test_threads_of_all_workers_are_no_more_than_the_cores(cores: Callable[[int], None], n: int, runs: int, bench: str) -> None:
    cores(n)
    (phase,) = plan([replace(spec, bench=bench) for spec in shared(runs)])
    for group in phase.groups:
        assert group.workers == phase.workers
        assert group.threads is not None
        assert 1 <= group.threads * phase.workers <= n
        assert bench == "reviews" or group.threads == 1, "the digits are faster on one"
    assert bench == "digits" or phase.groups[0].threads == n // phase.workers


def test_workers_are_as_many_as_the_cores_hold(cores: Callable[[int], None]) -> None:
    """Alone a run of the digits takes one thread, a run of a larger base every core, whatever company it is trained in."""
    cores(4)
    digits = specs_of(r=(1, 2, 4, 8, 16))
    large = [replace(spec, bench="reviews") for spec in digits]
    assert runs_at_once(digits, device="cpu") == 4
    assert runs_at_once(digits[:3], device="cpu") == 3
    assert runs_at_once(large, device="cpu") == 1
    assert [phase.workers for phase in plan(large, grouped="never")] == [1]


@pytest.mark.parametrize(("count", "on_cpu", "cores"), [(8, True, 4), (12, True, 8), (8, False, 16), (3, False, 2)])
@pytest.mark.parametrize("bench", ["digits", "reviews"])
def test_a_group_fits_on_one_machine_of_a_cluster_and_all_workers_on_all(count: int, on_cpu: bool, cores: int, bench: str) -> None:
    cluster = Slots(count, on_cpu, cores)
    specs = [replace(spec, bench=bench) for spec in mixed()]
    for phase in plan_phases(specs, cluster):
        threads = [threads_of(group, cluster) for group in phase.groups]
        assert max(threads) <= (cores if on_cpu else 1)
        assert phase.workers * max(threads) <= count
        for group in phase.groups:
            assert 1 <= group.workers * threads_of(group, cluster) <= (cores if on_cpu else 1), "memory is of one machine"


def test_every_accelerator_of_a_cluster_has_work() -> None:
    """Beside an accelerator a group takes one thread, and nobody shares its memory."""
    (phase,) = plan_phases(shared(11), Slots(8, on_cpu=False, cores=4))
    assert phase.workers == 8
    assert {(group.threads, group.workers) for group in phase.groups} == {(1, 1)}


# Memory


@pytest.fixture(scope="module")
def bench() -> Bench:
    return ll.find_bench("digits")


@pytest.fixture(scope="module")
def geometry(bench: Bench) -> Geometry:
    return bench.geometry()


def bytes_of(geometry: Geometry, specs: Sequence[ll.RunSpec]) -> int:
    """What a pass needs: the base's weights once, all else as often as there are runs, as if each were the dearest."""
    ledgers = [formula(geometry, s.tuning, StepSpec(batch=s.batch_size, seq=POSITIONS, dtype="fp32", quant="none")) for s in specs]
    return ledgers[0].weights + len(specs) * max(ledger.peak - ledger.weights for ledger in ledgers)


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """`free(n)` leaves so many bytes to models."""
    return lambda n: monkeypatch.setattr(groups, "free_bytes", lambda device: n)


def test_as_many_runs_share_a_pass_as_the_ledger_says_that_fit(bench: Bench, geometry: Geometry) -> None:
    same = [replace(shared(1)[0], seed=seed) for seed in range(9)]
    for n in range(1, 9):
        needed = bytes_of(geometry, same[:n])
        assert most_runs(same, bench, geometry, free_bytes=needed) == n
        assert most_runs(same, bench, geometry, free_bytes=needed - 1) == max(1, n - 1)


def test_the_dearest_run_counts_for_all(bench: Bench, geometry: Geometry) -> None:
    small, large = specs_of(r=(1, 64))
    fits = bytes_of(geometry, [small, small, small])
    assert most_runs([small, small], bench, geometry, free_bytes=fits) == 3
    assert most_runs([small, large], bench, geometry, free_bytes=fits) < 3


def test_half_the_memory_never_holds_more_and_always_one(bench: Bench, geometry: Geometry) -> None:
    left, found = 2**34, []
    while left:
        found.append(most_runs(shared(8), bench, geometry, free_bytes=left))
        left //= 2
    assert found == sorted(found, reverse=True)
    assert found[0] > 8
    assert found[-1] == most_runs(shared(8), bench, geometry, free_bytes=0) == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_a_group_comes_in_parts_that_fit(bench: Bench, geometry: Geometry, free: Callable[[int], None], workers: int) -> None:
    """What is free is for all workers, and not all of it is given to a pass."""
    specs = tuple(shared(8))
    for n in (0, bytes_of(geometry, specs[:3]), bytes_of(geometry, specs), 2 * bytes_of(geometry, specs)):
        free(n)
        parts = affordable(Group(specs, 1, workers), bench, geometry, device="cpu")
        assert [spec for part in parts for spec in part.specs] == list(specs)
        assert {(part.threads, part.workers) for part in parts} == {(1, workers)}
        for part in parts:
            assert len(part.specs) == 1 or bytes_of(geometry, part.specs) * workers < n


def test_with_memory_to_spare_a_group_stays_as_it_is(bench: Bench, geometry: Geometry, free: Callable[[int], None]) -> None:
    free(2**36)
    group = Group(tuple(shared(8)), 1, 2)
    assert affordable(group, bench, geometry, device="cpu") == [group]


@pytest.mark.parametrize(("architecture", "targets"), [(False, ("q_proj",)), (True, ("nowhere",))])
def test_where_nobody_can_tell_the_memory_a_group_stays_as_it_is(
    bench: Bench, geometry: Geometry, free: Callable[[int], None], architecture: bool, targets: tuple[str, ...]
) -> None:
    """The formula refuses a base that it does not know, and a method that finds nothing in it."""
    free(0)
    base = geometry if architecture else replace(geometry, architecture=None)
    specs = tuple(replace(spec, tuning=replace(spec.tuning, target_modules=targets)) for spec in shared(8))
    assert most_runs(specs, bench, base, free_bytes=0) is None
    assert affordable(Group(specs, 1, 2), bench, base, device="cpu") == [Group(specs, 1, 2)]
