"""A run that is kept: its ΔW on the way and at the end, and when the directions of the end were found."""

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lora_lab as ll
from lora_lab.errors import StoreError
from lora_lab.events import StepEvent
from lora_lab.sweeps import Run, RunStore, expand, record_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return ll.train("digits", ll.LoraSpec(r=4), steps=40, snapshots=4, runs=tmp_path_factory.mktemp("runs"))


def test_snapshots_end_with_the_adapter(run: Run) -> None:
    snapshots = run.snapshots()
    assert [step for step, _ in snapshots] == [10, 20, 30, 40]
    assert all(modules.keys() == run.adapter().keys() for _, modules in snapshots)
    last = snapshots[-1][1]
    assert all((last[name].dense() == delta.dense()).all() for name, delta in run.adapter().items())


@pytest.mark.parametrize("side", ["in", "out"])
def test_drift_is_phi_of_dense_svds(run: Run, side: Any) -> None:
    drifts = run.drift(k=2, side=side)
    assert [one.name for one in drifts] == list(run.adapter())
    for one in drifts:
        tops = []
        for _, modules in run.snapshots():
            u, _, vh = np.linalg.svd(modules[one.name].dense().numpy())
            tops.append(vh[:2].T if side == "in" else u[:, :2])
        expected = [np.linalg.norm(top.T @ tops[-1]) ** 2 / 2 for top in tops]
        assert [point.phi for point in one.points] == pytest.approx(expected, abs=1e-6)
        assert [point.step for point in one.points] == [10, 20, 30, 40]
        assert one.points[-1].phi == pytest.approx(1)
        assert {point.chance for point in one.points} == {2 / 64}


def test_training_comes_nearer_to_what_it_ends_with(run: Run) -> None:
    """In the mean over the matrices; and it is far above chance before it is half way."""
    phis = np.array([[point.phi for point in one.points] for one in run.drift(k=1)]).mean(0)
    assert (np.diff(phis) > 0).all()
    assert phis[1] > 10 / 64


def test_one_matrix_may_be_asked_for(run: Run) -> None:
    name = list(run.adapter())[3]
    (one,) = run.drift(module=name, k=1)
    assert (one.name, one.k) == (name, 1)


def test_a_run_without_snapshots_has_its_adapter_and_no_drift(digits_run: Run) -> None:
    ((step, modules),) = digits_run.snapshots()
    assert (step, modules.keys()) == (40, digits_run.adapter().keys())
    with pytest.raises(StoreError, match=rf"kept snapshots of ΔW \(--snapshots\)\. Got '{digits_run.run_id}', which kept none\."):
        digits_run.drift()


@pytest.mark.parametrize("at_step", [9, 10, 11])
def test_a_run_that_was_stopped_ends_where_it_stopped(tmp_path: Path, at_step: int) -> None:
    (spec,) = expand(ll.find_bench("digits"), ll.SweepSpec(r=2, steps=20, batch_size=4, snapshots=4))
    store = RunStore(tmp_path)
    with closing(record_run(spec, store)) as events:
        for event in events:
            if isinstance(event, StepEvent) and event.step == at_step:
                break
    (kept,) = store.runs()
    assert kept.metrics["status"] == "stopped"
    assert [step for step, _ in kept.snapshots()] == [5, *([10] if at_step > 10 else []), at_step]


@pytest.fixture(scope="module")
def one_step(tmp_path_factory: pytest.TempPathFactory) -> ll.Run:
    """B is 0 before it, so that no gradient reaches A: A is still the one that was drawn."""
    return ll.train("digits", ll.LoraSpec(r=3), steps=1, seed=5, runs=tmp_path_factory.mktemp("runs"))


def test_the_start_drawn_again_is_the_one_that_was_trained_from(one_step: ll.Run) -> None:
    start, trained = one_step.start(), one_step.adapter()
    assert list(start) == list(trained)
    for name, delta in start.items():
        assert delta.frobenius() == 0
        assert torch.equal(delta.lora_a, trained[name].lora_a)
        assert trained[name].frobenius() > 0


def test_the_base_is_the_w_that_the_run_changes(one_step: ll.Run, tmp_path: Path) -> None:
    live = dict(ll.find_bench("digits").build().named_modules())
    for name in one_step.adapter():
        assert torch.equal(one_step.base().named(name), live[name].weight)
