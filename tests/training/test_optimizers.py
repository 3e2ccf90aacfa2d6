"""Optimizers by name: each that exists moves what is trained, or says why it cannot; the learning rate has no idle step."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import lora_lab as ll
from lora_lab.errors import SpecError
from lora_lab.methods import attach_method
from lora_lab.specs import MethodSpec, RunSpec
from lora_lab.training.optimizers import make_optimizer, optimizer_class, optimizer_name, warm_up_and_cosine

SPEC = RunSpec(bench="digits", base_sha256="", learning_rate=1e-2, tuning=MethodSpec(r=2))
TORCH = [
    name
    for name, found in vars(torch.optim).items()
    if isinstance(found, type) and name not in ("Optimizer", "LBFGS", "SparseAdam")
]
BITSANDBYTES = ["Adam8bit", "AdamW8bit", "AdamW32bit", "Lion", "Lion8bit", "RMSprop8bit", "AdEMAMix8bit"]


def adapted(method: str = "lora") -> nn.Module:
    return attach_method(ll.find_bench("digits").build(), MethodSpec(method=method, r=2), seed=0)


def one_step(model: nn.Module, spec: RunSpec) -> None:
    optimizer = make_optimizer(model, spec)
    model(**ll.find_bench("digits").splits()[0].batch(torch.arange(8))).loss.backward()
    optimizer.step()


@pytest.mark.parametrize("name", [*TORCH, *BITSANDBYTES])
def test_an_optimizer_of_torch_or_bitsandbytes_moves_b(name: str) -> None:
    model = adapted()
    one_step(model, replace(SPEC, optimizer=name))
    b = [p for key, p in model.named_parameters() if "lora_B" in key]
    assert all(p.any() and p.isfinite().all() for p in b)


@pytest.mark.parametrize(
    ("said", "meant"),
    [("adamw", "AdamW"), ("AdamW", "AdamW"), ("paged-adamw8bit", "PagedAdamW8bit"), ("adamw_8bit", "AdamW8bit"), ("sgd", "SGD")],
)
def test_a_name_is_found_however_it_is_spelled(said: str, meant: str) -> None:
    assert optimizer_name(said) == meant


def test_torchs_own_goes_before_bitsandbytes() -> None:
    assert optimizer_class("adamw") is torch.optim.AdamW


@pytest.mark.parametrize(("name", "why"), [("LBFGS", "it wants a closure"), ("SparseAdam", "sparse gradients alone")])
def test_an_optimizer_that_cannot_step_by_itself_is_refused(name: str, why: str) -> None:
    with pytest.raises(SpecError, match=why):
        optimizer_class(name)


def test_an_unknown_name_is_refused_with_those_there_are() -> None:
    with pytest.raises(SpecError, match=r"optimizer parameter of RunSpec must be a class of torch\.optim .*AdamW.* Got 'Adamm'"):
        optimizer_class("Adamm")


def test_without_bitsandbytes_torchs_are_found_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    assert optimizer_name("adamw") == "AdamW"
    with pytest.raises(SpecError):
        optimizer_name("AdamW8bit")


def test_what_an_optimizer_refuses_comes_as_one_sentence() -> None:
    with pytest.raises(SpecError, match=r"^Muon cannot train what bitfit trains: .*2D.*\.$"):
        make_optimizer(adapted("bitfit"), replace(SPEC, optimizer="Muon", tuning=MethodSpec(method="bitfit")))


def test_loraplus_trains_b_faster_by_its_ratio() -> None:
    spec = replace(SPEC, tuning=MethodSpec(method="lora+", r=2), loraplus_lr_ratio=8.0, weight_decay=0.25)
    model = adapted("lora+")
    optimizer = make_optimizer(model, spec)
    rates = {id(p): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]}
    found = {("A" if "lora_A" in name else "B"): rates[id(p)] for name, p in model.named_parameters() if p.requires_grad}
    assert found == {"A": (1e-2, 0.25), "B": (8e-2, 0.25)}


def test_weight_decay_is_what_was_asked() -> None:
    (group,) = make_optimizer(adapted(), replace(SPEC, weight_decay=0.5)).param_groups
    assert (group["lr"], group["weight_decay"]) == (1e-2, 0.5)


@pytest.mark.parametrize(("warmup_steps", "steps"), [(0, 5), (3, 10), (10, 10), (4, 2)])
def test_no_step_stands_still_and_the_rate_is_highest_after_the_warm_up(warmup_steps: int, steps: int) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = warm_up_and_cosine(optimizer, warmup_steps=warmup_steps, steps=steps)
    rates = []
    for _ in range(steps):
        rates.append(float(schedule.get_last_lr()[0]))
        optimizer.step()
        schedule.step()
    assert min(rates) > 0
    assert max(rates) <= 2.0
    if warmup_steps < steps:
        assert rates[warmup_steps] == 2.0
        assert rates[warmup_steps:] == sorted(rates[warmup_steps:], reverse=True)
    assert rates[:warmup_steps] == sorted(rates[:warmup_steps])
