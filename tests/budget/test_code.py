"""Code to copy: it runs, and attaches exactly the parameters that the budget counted."""

import ast

import pytest
import torch
from peft import get_peft_model
from transformers import TrainingArguments
from transformers.training_args import OptimizerNames

import lora_lab as ll
from lora_lab.budget.code import peft_code, training_code
from lora_lab.budget.models import Model
from lora_lab.live_geometry import read_geometry
from lora_lab.methods import trainable_params
from lora_lab.methods.tiny import tiny_model
from lora_lab.specs import METHODS

CONFIGURED = [name for name in METHODS if name not in ("full", "partial", "bitfit", "adapter", "adapter_pfeiffer", "prelayer")]


def budget_of(family: str, spec: ll.MethodSpec) -> tuple[torch.nn.Module, ll.Budget]:
    base = tiny_model(family, device="cpu")
    model = Model(family, read_geometry(base), {}, source="a tiny random one")
    return base, ll.budget(model, spec)


def attached(base: torch.nn.Module, scope: dict[str, object]) -> torch.nn.Module:
    """As the code to copy says: the second config on what the first made, whose factors are set to train again."""
    model = get_peft_model(base, scope["config"])
    if "tokens" not in scope:
        return model
    trained = [p for p in model.parameters() if p.requires_grad]
    both = get_peft_model(model.get_base_model(), scope["tokens"])
    for parameter in trained:
        parameter.requires_grad_(True)
    return both


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert", "phi3", "qwen3"])
@pytest.mark.parametrize("method", CONFIGURED)
@pytest.mark.filterwarnings("ignore:fan_in_fan_out", "ignore:Unsupported layer type", "ignore:You are trying to modify a model")
def test_config_attaches_what_the_budget_counts(family: str, method: str) -> None:
    base, made = budget_of(family, ll.MethodSpec(method=method, r=4))
    scope: dict[str, object] = {}
    exec(peft_code(made), scope)
    assert trainable_params(attached(base, scope)) == (made.trainable_params, made.head_params)


@pytest.mark.parametrize("targets", [("all-linear",), ("q", "up", "down"), ("down",)])
@pytest.mark.parametrize("family", ["llama", "mixtral", "bert"])
def test_targets_are_written_as_peft_matches_them(family: str, targets: tuple[str, ...]) -> None:
    base, made = budget_of(family, ll.MethodSpec(r=2, target_modules=targets))
    scope: dict[str, object] = {}
    exec(peft_code(made), scope)
    assert trainable_params(get_peft_model(base, scope["config"]))[0] == made.trainable_params


@pytest.mark.parametrize(("method", "family"), [("full", "llama"), ("bitfit", "gpt2"), ("partial", "llama")])
def test_loops_train_what_the_budget_counts(method: str, family: str) -> None:
    base, made = budget_of(family, ll.MethodSpec(method=method, r=1))
    base.requires_grad_(True)
    exec(peft_code(made), {"model": base, "layers": list(base.model.layers) if family == "llama" else []})
    assert sum(p.numel() for p in base.parameters() if p.requires_grad) == made.trainable_params


@pytest.mark.parametrize("quant", ["none", "int8", "nf4", "nf4-dq"])
@pytest.mark.parametrize("optimizer", ["adamw", "adamw8bit", "paged-adamw8bit", "adafactor", "sgd"])
def test_training_arguments_are_ones_that_transformers_knows(quant: str, optimizer: str) -> None:
    step = {"quant": quant, "optimizer": optimizer, "checkpointing": True, "fused_loss": True, "attention": "flash", "batch": 3}
    tree = ast.parse(training_code(ll.budget("llama-3.2-1b", "lora", **step)))
    call = next(node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "TrainingArguments")
    given = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    assert set(given) <= set(TrainingArguments.__dataclass_fields__)
    assert given["optim"] in {name.value for name in OptimizerNames}
    assert given["per_device_train_batch_size"] == 3
    assert given["gradient_checkpointing"] is True
