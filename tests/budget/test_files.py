"""The adapter's file: our bytes against those of the file that PEFT writes."""

import json
import struct
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from lora_lab.budget import budget
from lora_lab.budget.files import adapter_file_bytes, disk_for_tasks_bytes
from lora_lab.live_geometry import read_geometry
from lora_lab.methods import attach_method
from lora_lab.methods.tiny import TINY, tiny_model
from lora_lab.specs import AdapterDtype, LoraSpec, MethodSpec, StepSpec

DTYPES: dict[AdapterDtype, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}
WRITERS = [family for family, (name, _) in TINY.items() if name.endswith(("CausalLM", "LMHeadModel", "ConditionalGeneration"))]
EXACT: dict[str, tuple[MethodSpec, AdapterDtype]] = {
    "LoRA": (MethodSpec(r=3), "fp32"),
    "LoRA everywhere, in bf16": (MethodSpec(r=3, target_modules=("all-linear",)), "bf16"),
    "LoRA on the way down": (MethodSpec(r=3, target_modules=("down",)), "fp32"),
    "LoRA on one layer": (MethodSpec(r=12, target_modules=("o",), layers_to_transform=(1,)), "fp32"),
    "DoRA": (MethodSpec(method="dora", r=3), "fp32"),
}


def saved_bytes(model: nn.Module, spec: MethodSpec, dtype: AdapterDtype, folder: Path) -> int:
    """The size of the file that PEFT writes."""
    live = attach_method(model, spec, adapter_dtype=DTYPES[dtype])
    live.save_pretrained(folder)  # type: ignore[operator]
    return (folder / "adapter_model.safetensors").stat().st_size


def wide_llama() -> nn.Module:
    """Wide enough for the tensors to outweigh the file's header."""
    size = {"hidden_size": 512, "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=64, intermediate_size=1024, **size))


@pytest.mark.parametrize(("spec", "dtype"), EXACT.values(), ids=EXACT)
@pytest.mark.parametrize("family", WRITERS)
@pytest.mark.filterwarnings("ignore:Could not find a config file in")
def test_a_file_of_lora_has_these_bytes_exactly(family: str, spec: MethodSpec, dtype: AdapterDtype, tmp_path: Path) -> None:
    geometry = read_geometry(tiny_model(family))
    if spec.method == "dora" and any(m.kind == "experts" for m in geometry.targeted(spec.targets)):
        pytest.skip("PEFT has no DoRA for 3-D experts")
    written = saved_bytes(tiny_model(family, device="cpu"), spec, dtype, tmp_path)
    assert adapter_file_bytes(geometry, spec, StepSpec(adapter_dtype=dtype)) == written


@pytest.mark.parametrize(
    "spec",
    [
        MethodSpec(method="vera", r=64),
        MethodSpec(method="adalora", r=8),
        MethodSpec(method="ia3"),
        MethodSpec(method="prefix", r=16),
        MethodSpec(method="preembed", r=16),
    ],
    ids=lambda spec: spec.method,
)
def test_a_file_of_another_method_has_these_bytes_nearly(spec: MethodSpec, tmp_path: Path) -> None:
    model = wide_llama()
    geometry = read_geometry(model)
    written = saved_bytes(model, spec, "fp32", tmp_path)
    assert adapter_file_bytes(geometry, spec, StepSpec()) == pytest.approx(written, rel=0.03)


def test_peft_writes_36_715_216_bytes_for_9_175_040_parameters() -> None:
    made = budget("llama-3.2-3b", LoraSpec(r=32, target_modules=("q_proj", "v_proj")))
    assert made.trainable_params == 9_175_040
    assert made.adapter_file_bytes == 36_715_216
    assert 0 < made.adapter_file_bytes - 4 * made.trainable_params < 16_000  # the header


def test_a_file_is_its_tensors_and_a_header_that_names_them(tmp_path: Path) -> None:
    """The container itself: eight bytes of length, a header padded to eight, the tensors."""
    saved_bytes(tiny_model("llama", device="cpu"), *EXACT["LoRA"], tmp_path)
    content = (tmp_path / "adapter_model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    tensors = [entry for name, entry in header.items() if name != "__metadata__"]
    assert length % 8 == 0
    assert len(tensors) == 2 * 2 * 2  # A and B of q and v in two layers
    assert len(content) == 8 + length + max(entry["data_offsets"][1] for entry in tensors)


def test_half_the_type_is_half_the_tensors() -> None:
    spec = LoraSpec(r=32)
    single, half = (budget("llama-3.2-1b", spec, adapter_dtype=dtype) for dtype in ("fp32", "bf16"))
    saved = single.adapter_file_bytes - half.adapter_file_bytes
    assert saved == pytest.approx(2 * single.trainable_params, abs=500)  # digits of offsets in the header


def test_a_method_of_the_bases_own_parameters_keeps_those_in_the_bases_type() -> None:
    for method in ("full", "partial", "bitfit", "ln_tuning"):
        made = budget("gpt2", method, dtype="bf16", adapter_dtype="fp32")
        assert made.adapter_file_bytes == 2 * made.trainable_params


def test_a_hundred_tasks_cost_a_hundred_models_or_one_and_a_hundred_adapters() -> None:
    """Hu et al. 2021, section 4.2: 35 TB against 354 GB, of a model of 350 GB with 35 MB an adapter."""
    assert disk_for_tasks_bytes(350 * 10**9, 35 * 10**6, 100) == (35 * 10**12, 353_500_000_000)
    made = budget("gpt3-175b", LoraSpec(r=4), adapter_dtype="bf16")
    models, adapters = made.disk_bytes(100)
    assert models == 100 * 2 * 174_604_259_328
    assert adapters - 2 * 174_604_259_328 == 100 * made.adapter_file_bytes
    assert adapters < models / 90
