"""Snapshots of ΔW: they are the adapter at their step, and taking them changes nothing."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import lora_lab as ll
from lora_lab.adapters import Snapshot, load_adapter, read_snapshots
from lora_lab.errors import SpecError
from lora_lab.events import DoneEvent, StepEvent
from lora_lab.specs import FACTORED, METHODS, MethodSpec, RunSpec
from lora_lab.training import group_events, plan_run, train_events

STEPS = 12
WITH_FACTORS: dict[str, dict[str, Any]] = {
    "LoRA": {"r": 3},
    "rsLoRA everywhere": {"r": 2, "method": "rslora", "target_modules": ("all-linear",)},
    "LoRA+ with ranks of their own": {"r": 2, "method": "lora+", "rank_pattern": (("1.attention.q_proj", 5),)},
    "VeRA": {"r": 3, "method": "vera"},
    "AdaLoRA": {"r": 4, "method": "adalora"},
    "PiSSA": {"r": 3, "init_lora_weights": "pissa"},
    "QLoRA": {"r": 3, "method": "qlora"},
}


def planned(tuning: MethodSpec, **settings: Any) -> RunSpec:
    common = {"steps": STEPS, "batch_size": 8, "eval_every_steps": 6, "warmup_steps": 1}
    return plan_run(ll.find_bench("digits"), tuning, **{**common, **settings})


def trained(spec: RunSpec, folder: Path, *, until: int = STEPS) -> Path:
    """The run's folder, trained to its end or closed after a step."""
    folder.mkdir()
    events = train_events(spec, folder)
    for event in events:
        if isinstance(event, StepEvent) and event.step == until < STEPS:
            break
    events.close()
    return folder


def snapshots_of(folder: Path) -> tuple[Snapshot, ...]:
    return read_snapshots(folder / "snapshots")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter" / "adapter_model.safetensors")


@pytest.mark.parametrize("said", WITH_FACTORS.values(), ids=WITH_FACTORS)
def test_a_snapshot_is_the_adapter_that_a_run_stopped_there_leaves(said: dict[str, Any], tmp_path: Path) -> None:
    spec = planned(MethodSpec(**said), snapshots=3)
    found = snapshots_of(trained(spec, tmp_path / "with"))
    assert [step for step, _ in found] == list(spec.snapshot_steps) == [4, 8]
    for step, modules in found:
        stopped = load_adapter(trained(replace(spec, snapshots=0), tmp_path / f"{step}", until=step) / "adapter")
        assert modules.keys() == stopped.keys()
        for name, delta in modules.items():
            torch.testing.assert_close(delta.dense(), stopped[name].dense(), rtol=1e-6, atol=1e-9)
        assert any(delta.frobenius() > 0 for delta in modules.values())


@pytest.mark.parametrize("said", WITH_FACTORS.values(), ids=WITH_FACTORS)
def test_a_run_with_snapshots_learns_what_it_learns_without_to_the_bit(said: dict[str, Any], tmp_path: Path) -> None:
    spec = planned(MethodSpec(**said, lora_dropout=0.0 if said.get("method") == "vera" else 0.1))
    plain, kept = weights(trained(spec, tmp_path / "plain")), weights(trained(replace(spec, snapshots=STEPS), tmp_path / "kept"))
    assert plain.keys() == kept.keys()
    assert all(torch.equal(plain[name], kept[name]) for name in plain)
    assert not (tmp_path / "plain" / "snapshots").exists()


def test_in_company_each_run_keeps_its_own_and_they_are_those_of_the_run_alone(tmp_path: Path) -> None:
    specs = [
        planned(MethodSpec(r=1, lora_alpha=4.0), snapshots=4),
        planned(MethodSpec(r=5, target_modules=("q", "k", "v", "o")), snapshots=2, seed=1),
        planned(MethodSpec(method="rslora", r=3, target_modules=("v",), layers_to_transform=(1, 2)), snapshots=12),
        planned(MethodSpec(r=2)),
    ]
    folders = {spec.run_id: tmp_path / spec.run_id for spec in specs}
    for folder in folders.values():
        folder.mkdir()
    list(group_events(specs, folders))
    for spec in specs:
        grouped, alone = snapshots_of(folders[spec.run_id]), snapshots_of(trained(spec, tmp_path / f"alone-{spec.run_id}"))
        assert [step for step, _ in grouped] == [step for step, _ in alone] == list(spec.snapshot_steps)
        for (_, one), (_, other) in zip(grouped, alone, strict=True):
            assert one.keys() == other.keys()
            for name, delta in other.items():
                assert one[name].r == delta.r
                assert float((one[name].dense() - delta.dense()).norm()) <= 1e-4 * delta.frobenius()


def test_a_run_that_diverges_in_company_keeps_what_it_had(tmp_path: Path) -> None:
    lost = planned(MethodSpec(r=1), snapshots=STEPS, learning_rate=1e30)
    goes_on = planned(MethodSpec(r=2), snapshots=STEPS)
    folders = {spec.run_id: tmp_path / spec.run_id for spec in (lost, goes_on)}
    for folder in folders.values():
        folder.mkdir()
    (done,) = [e for i, e in group_events([lost, goes_on], folders) if i == lost.run_id and isinstance(e, DoneEvent)]
    assert done.status == "diverged"
    assert [step for step, _ in snapshots_of(folders[lost.run_id])] == list(range(1, done.step + 1))
    assert len(snapshots_of(folders[goes_on.run_id])) == STEPS - 1


@pytest.mark.parametrize("method", sorted(METHODS.keys() - {*FACTORED, "prelayer"}))  # which nothing attaches
def test_what_has_no_factors_is_refused_in_one_sentence(method: str) -> None:
    bench = ll.find_bench("reviews" if METHODS[method].r_is == "virtual tokens" else "digits")
    tuning, label = MethodSpec(method=method, r=2), METHODS[method].label
    sentence = f"The snapshots parameter of RunSpec must be 0 for {label}, whose ΔW has no small factors to keep. Got 3."
    with pytest.raises(SpecError, match=f"^{re.escape(sentence)}$"):
        plan_run(bench, tuning, snapshots=3)
    assert plan_run(bench, tuning, snapshots=0).snapshots == 0


def test_more_snapshots_than_steps_are_refused() -> None:
    with pytest.raises(SpecError, match=r"snapshots parameter of RunSpec must be an int in 0\.\.steps=12\. Got 13\."):
        planned(MethodSpec(), snapshots=13)
