"""A base in 8 or 4 bits: which matrices, how they are kept, and that transformers' own loader keeps them so."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

import lora_lab as ll
from lora_lab.errors import SpecError
from lora_lab.methods import quantize
from lora_lab.methods.quantized import bits_of, dequantize, format_of
from lora_lab.methods.tiny import tiny_model

QUANTS = ["int8", "nf4", "nf4-dq"]


def quantized_modules(model: nn.Module) -> dict[str, nn.Module]:
    return {name: module for name, module in model.named_modules() if bits_of(module)}


@pytest.mark.parametrize("quant", QUANTS)
def test_every_linear_map_but_the_head_is_quantized(quant: str) -> None:
    model = quantize(ll.find_bench("digits").build(), quant)
    found = quantized_modules(model)
    geometry = ll.find_bench("digits").geometry()
    assert set(found) == {m.name for m in geometry.matrices if m.role != "head"}
    assert {format_of(module) for module in found.values()} == {quant}


def test_none_leaves_the_base_as_it_is() -> None:
    model = ll.find_bench("digits").build()
    before = copy.deepcopy(model.state_dict())
    assert quantize(model, "none") is model
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(("quant", "off"), [("int8", 0.02), ("nf4", 0.12), ("nf4-dq", 0.12)])
def test_dequantized_a_matrix_is_near_what_it_was(quant: str, off: float) -> None:
    base = ll.find_bench("digits").build()
    model = quantize(copy.deepcopy(base), quant)
    for name, module in quantized_modules(model).items():
        original = base.get_submodule(name).weight.detach()
        error = (dequantize(module, torch.float32).weight - original).norm() / original.norm()
        assert 0 < float(error) < off


@pytest.mark.parametrize("quant", ["nf4", "nf4-dq"])
@pytest.mark.parametrize(("d_out", "d_in"), [(64, 160), (64, 96), (24, 40), (100, 48), (3, 32), (128, 400), (5, 31), (64, 128)])
def test_four_bits_mean_what_they_say_whatever_the_width(d_out: int, d_in: int, quant: str) -> None:
    """Against the bytes read by hand: two codes a byte, a scale for each 64 of them in a row."""
    from bitsandbytes import functional

    torch.manual_seed(0)
    layer = quantize(nn.Sequential(nn.Linear(d_in, d_out)), quant)[0]
    state, packed = layer.weight.quant_state, layer.weight.data.flatten().long()
    scales = functional.dequantize_blockwise(state.absmax, state.state2) + state.offset if state.nested else state.absmax
    codes = torch.stack([packed >> 4, packed & 15], 1).flatten()[: d_out * d_in]
    by_hand = (state.code[codes] * scales.repeat_interleave(64)[: len(codes)]).view(d_out, d_in)
    torch.testing.assert_close(dequantize(layer, torch.float32).weight.detach(), by_hand)
    x = torch.randn(7, d_in)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), x @ by_hand.T + layer.bias)
    torch.testing.assert_close(layer(x.requires_grad_()).detach(), x.detach() @ by_hand.T + layer.bias)


def test_a_conv1d_is_quantized_the_right_way_round() -> None:
    torch.manual_seed(0)
    base = tiny_model("gpt2", device="cpu")
    model = quantize(copy.deepcopy(base), "nf4")
    layer, original = model.transformer.h[0].attn.c_attn, base.transformer.h[0].attn.c_attn
    assert (layer.out_features, layer.in_features) == (original.nf, original.nx)
    x = torch.randn(3, original.nx)
    torch.testing.assert_close(layer(x), original(x), rtol=0.5, atol=0.1)


@pytest.mark.parametrize("quant", QUANTS)
def test_the_bytes_are_those_of_transformers_own_loader(quant: str, tmp_path: Path) -> None:
    from transformers import BitsAndBytesConfig, LlamaForCausalLM

    torch.manual_seed(0)
    base = tiny_model("llama", device="cpu")
    base.save_pretrained(tmp_path)
    config = {
        "int8": {"load_in_8bit": True},
        "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
        "nf4-dq": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
    }[quant]
    theirs = LlamaForCausalLM.from_pretrained(
        tmp_path, quantization_config=BitsAndBytesConfig(**config), dtype=torch.float32, device_map="cpu"
    )
    ours = quantize(base, quant)
    assert quantized_modules(ours).keys() == quantized_modules(theirs).keys()
    for name, module in quantized_modules(ours).items():
        assert torch.equal(module.weight.data, theirs.get_submodule(name).weight.data)


@pytest.mark.parametrize("quant", QUANTS)
def test_looking_at_a_quantized_base_does_not_change_it(quant: str) -> None:
    model = quantize(ll.find_bench("digits").build(), quant).eval()
    before = {name: module.weight.data.clone() for name, module in quantized_modules(model).items()}
    images = ll.find_bench("digits").splits()[1].columns["pixel_values"][:8]
    with torch.no_grad():
        first, again = model(images).logits, model(images).logits
    assert torch.equal(first, again)
    assert all(torch.equal(before[name], module.weight.data) for name, module in quantized_modules(model).items())


def test_without_bitsandbytes_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(SpecError, match=r"needs bitsandbytes, which is not installed: pip install bitsandbytes\."):
        quantize(ll.find_bench("digits").build(), "nf4")


def test_a_base_with_nothing_to_quantize_is_refused() -> None:
    with pytest.raises(SpecError, match=r"quantizes nn\.Linear and Conv1D, and Sequential has neither but its head"):
        quantize(nn.Sequential(nn.Embedding(3, 4)), "nf4")
