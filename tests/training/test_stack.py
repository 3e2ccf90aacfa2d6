"""K runs' parameters side by side: what each gets is what torch.optim.AdamW and clip_grad_norm_ give it alone."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from lora_lab.specs import LoraSpec, MethodSpec, RunSpec
from lora_lab.training.stack import Block, Stack, runs_of

BLOCKS = (
    Block("q lora_a", "lora_a", (3, 5)),
    Block("q lora_b", "lora_b", (3, 4)),
    Block("head weight", "head_weight", (2, 4)),
    Block("head bias", "head_bias", (2,)),
)
PLAIN = RunSpec(bench="digits", base_sha256="", learning_rate=0.01, max_grad_norm=0.7)
SPECS = (
    PLAIN,
    replace(PLAIN, learning_rate=0.3, weight_decay=0.1, max_grad_norm=100.0),
    replace(PLAIN, tuning=MethodSpec(method="lora+"), loraplus_lr_ratio=8.0, weight_decay=0.2),
)


def filled(specs: tuple[RunSpec, ...], *, seed: int = 0) -> Stack:
    stack = Stack(BLOCKS, specs, torch.device("cpu"))
    stack.values.copy_(torch.randn(stack.values.shape, generator=torch.Generator().manual_seed(seed)))
    return stack


def push(stack: Stack, gradients: dict[str, torch.Tensor], shares: torch.Tensor) -> None:
    """One step with these gradients, (runs, …) each, as backward would leave them."""
    for name, leaf in stack.leaves.items():
        leaf.grad = gradients[name].clone()
    stack.gather()
    norms = stack.norms()
    stack.clip(torch.stack(list(norms.values())).norm(dim=0))
    stack.step(shares)


def drawn(step: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    return {block.name: torch.randn(len(SPECS), *block.shape, generator=generator) for block in BLOCKS}


def alone(spec: RunSpec, start: dict[str, torch.Tensor], run: int, steps: int) -> dict[str, torch.Tensor]:
    """The same run with torch's own optimizer."""
    parameters = {name: nn.Parameter(value.clone()) for name, value in start.items()}
    is_plus = spec.tuning.method == "lora+"
    groups = []
    for block in BLOCKS:
        fast = is_plus and block.kind in ("lora_b", "head_bias")
        decay = 0.0 if is_plus and block.kind == "head_bias" else spec.weight_decay
        lr = spec.learning_rate * (spec.loraplus_lr_ratio if fast else 1.0)
        groups.append({"params": [parameters[block.name]], "lr": lr, "weight_decay": decay, "full": lr})
    optimizer = torch.optim.AdamW(groups)
    for step in range(steps):
        for name, parameter in parameters.items():
            parameter.grad = drawn(step)[name][run].clone()
        nn.utils.clip_grad_norm_(list(parameters.values()), spec.max_grad_norm)
        for group in optimizer.param_groups:
            group["lr"] = group["full"] * share(step)
        optimizer.step()
    return {name: parameter.detach() for name, parameter in parameters.items()}


def share(step: int) -> float:
    return 1.0 / (1 + step)


def test_every_run_moves_as_torchs_adamw_moves_it_alone() -> None:
    stack = filled(SPECS)
    start = [{block.name: stack.row(block.name, run).clone() for block in BLOCKS} for run in range(len(SPECS))]
    for step in range(7):
        push(stack, drawn(step), torch.full((len(SPECS),), share(step)))
    for run, spec in enumerate(SPECS):
        for name, expected in alone(spec, start[run], run, 7).items():
            torch.testing.assert_close(stack.row(name, run), expected, rtol=2e-5, atol=1e-6)


def test_leaves_look_into_the_values_and_hand_over_their_gradients() -> None:
    stack = filled(SPECS)
    before = stack.row("q lora_a", 1).clone()
    (stack.leaves["q lora_a"][1].sum() * 3).backward()
    stack.gather()
    assert stack.leaves["q lora_a"].grad is None
    assert stack.norms()["lora_a"].tolist() == pytest.approx([0.0, 3 * 15**0.5, 0.0])
    stack.row("q lora_a", 1).add_(1)
    assert torch.equal(stack.leaves["q lora_a"][1], before + 1)


def test_padding_that_is_zero_stays_zero() -> None:
    stack = filled(SPECS[:2])
    a, b = stack.row("q lora_a", 0), stack.row("q lora_b", 0)
    a[2], b[2] = 0, 0
    x = torch.randn(6, 5)
    for _ in range(5):
        leaf_a, leaf_b = stack.leaves["q lora_a"], stack.leaves["q lora_b"]
        (x @ leaf_a.mT @ leaf_b).square().sum().backward()
        stack.gather()
        stack.step(torch.ones(2))
    assert not a[2].any()
    assert not b[2].any()
    assert a[:2].all()


def test_those_who_stay_go_on_bit_for_bit() -> None:
    whole, left = filled(SPECS), filled(SPECS)
    for step in range(3):
        push(whole, drawn(step), torch.ones(3))
        push(left, drawn(step), torch.ones(3))
    left.keep(torch.tensor([True, False, True]))
    for step in range(3, 6):
        push(whole, drawn(step), torch.ones(3))
        push(left, {name: g[[0, 2]] for name, g in drawn(step).items()}, torch.ones(2))
    assert torch.equal(left.values, whole.values[[0, 2]])


def test_items_belong_to_the_run_of_their_row() -> None:
    assert runs_of(torch.tensor([0, 1, 2, 3, 5]), 2).tolist() == [0, 0, 1, 1, 2]


def test_a_run_without_a_head_has_none() -> None:
    stack = Stack(BLOCKS[:2], (RunSpec(bench="digits", base_sha256="", tuning=LoraSpec(r=3)),), torch.device("cpu"))
    assert stack.values.shape == (1, 27)
    assert stack.norms()["head_weight"].tolist() == [0.0]
