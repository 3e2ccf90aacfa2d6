"""What is on while training: the method's own dropout, and none of the base's."""

import pytest
import torch
from torch import nn

import lora_lab as ll
from lora_lab.methods import attach_method
from lora_lab.methods.tiny import tiny_model
from lora_lab.training.modes import adapters_in_training, in_eval_mode


@pytest.fixture
def model() -> nn.Module:
    """A BERT with dropout in its base, and LoRA with its own."""
    base = tiny_model("bert", device="cpu")
    assert any(isinstance(module, nn.Dropout) and module.p > 0 for module in base.modules())
    return attach_method(base, ll.LoraSpec(r=2, lora_dropout=0.5), seed=0)


def active(model: nn.Module) -> set[str]:
    return {name for name, module in model.named_modules() if isinstance(module, nn.Dropout) and module.training and module.p}


def test_a_runs_dropout_is_on_and_the_bases_off(model: nn.Module) -> None:
    adapters_in_training(model)
    assert active(model)
    assert all("lora_dropout" in name for name in active(model))


def test_without_lora_dropout_a_step_is_the_same_whatever_is_drawn() -> None:
    model = attach_method(tiny_model("bert", device="cpu"), ll.LoraSpec(r=2), seed=0)
    adapters_in_training(model)
    tokens = torch.arange(3, 10)[None]
    first, second = (model(input_ids=tokens).logits for _ in range(2))
    assert torch.equal(first, second)


def test_every_module_comes_back_in_its_own_mode(model: nn.Module) -> None:
    adapters_in_training(model)
    before = [module.training for module in model.modules()]
    with in_eval_mode(model):
        assert not active(model)
    assert [module.training for module in model.modules()] == before


def test_modes_come_back_after_an_error_too(model: nn.Module) -> None:
    adapters_in_training(model)
    before = active(model)
    with pytest.raises(KeyError), in_eval_mode(model):
        raise KeyError
    assert active(model) == before
