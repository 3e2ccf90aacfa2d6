"""Tiny bases of several families with adapters whose every parameter is random and not zero."""

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import get_peft_model
from torch import Tensor, nn

from lora_lab.methods.quantized import keep_exact
from lora_lab.methods.tiny import tiny_model

_VISION = {"vit"}
_QUANTIZED = {
    "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "nf4-dq": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
    "int8": {"load_in_8bit": True},
}


def base(family: str, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A fresh base in eval mode, the same at every call; its biases and layer norms are random too."""
    torch.manual_seed(seed)
    model = tiny_model(family, device="cpu", dtype=dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def batch(family: str, *, seed: int = 1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    if family in _VISION:
        return {"pixel_values": torch.randn(3, 1, 8, 8, generator=generator)}
    return {"input_ids": torch.randint(0, 40, (3, 7), generator=generator)}


def adapted(model: nn.Module, config: object, *, seed: int = 2) -> nn.Module:
    """The base with an adapter, all of whose trained parameters are moved by noise."""
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT warns of layer norms that it does support, of tied weights, of a config used twice
        model = get_peft_model(model, config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """Copies of every tensor that the model would save."""
    state = model.state_dict()
    return {name: tensor.clone() for name, tensor in state.items() if isinstance(tensor, Tensor)}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


def quantize(family: str, how: str, folder: Path, *, dtype: torch.dtype = torch.float32) -> nn.Module:
    """The family's base as transformers quantizes it, in eval mode."""
    from transformers import BitsAndBytesConfig

    plain = base(family, dtype=dtype)
    plain.save_pretrained(folder)
    config = BitsAndBytesConfig(**_QUANTIZED[how], **({} if how == "int8" else {"bnb_4bit_compute_dtype": dtype}))
    model = type(plain).from_pretrained(folder, quantization_config=config, device_map="cpu", dtype=dtype).eval()
    keep_exact(model)
    return model


@pytest.fixture(scope="session")
def tiny() -> SimpleNamespace:
    """The makers above, for tests."""
    return SimpleNamespace(
        base=base, batch=batch, adapted=adapted, snapshot=snapshot, assert_same=assert_same, quantize=quantize, logits=logits
    )


@pytest.fixture(scope="session")
def few_bits(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], nn.Module]:
    """Quantized tiny Llamas, each a fresh copy of one that was loaded once."""
    loaded: dict[str, nn.Module] = {}

    def fresh(how: str) -> nn.Module:
        if how not in loaded:
            loaded[how] = quantize("llama", how, tmp_path_factory.mktemp("llama"))
        model = copy.deepcopy(loaded[how])
        for module in model.modules():
            if hasattr(getattr(module, "weight", None), "quant_state"):
                module.weight.module = module  # as it is on a loaded model; a copied weight names the layer it was copied from
        return model

    return fresh


@torch.no_grad()
def logits(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    return model(**inputs).logits
