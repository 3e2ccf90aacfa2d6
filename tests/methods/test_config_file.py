"""Any adapter_config.json: what attach_config attaches on the meta device is what PEFT attaches for real."""

import json
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftConfig, get_peft_model

from lora_lab.errors import SpecError
from lora_lab.methods import attach_config, trainable_params
from lora_lab.methods.tiny import tiny_model

_QV = {"target_modules": ["q_proj", "v_proj"]}
_TOKENS = {"task_type": "CAUSAL_LM", "num_virtual_tokens": 5}
CONFIGS: dict[str, dict[str, Any]] = {
    "LORA": {**_QV, "r": 6, "use_rslora": True},
    "ADALORA": {**_QV, "init_r": 6, "total_step": 100},
    "VERA": {**_QV, "r": 6},
    "LOHA": {**_QV, "r": 3},
    "LOKR": {**_QV, "r": 3},
    "BOFT": {**_QV, "boft_block_size": 4},
    "OFT": {**_QV, "oft_block_size": 4},
    "HRA": {**_QV, "r": 4},
    "MISS": {**_QV, "r": 4},
    "RANDLORA": {**_QV, "r": 4},
    "FOURIERFT": {**_QV, "n_frequency": 9},
    "C3A": {**_QV, "block_size": 4},
    "VBLORA": {**_QV, "vector_length": 2, "num_vectors": 8},
    "IA3": {"target_modules": ["k_proj", "v_proj", "down_proj"], "feedforward_modules": ["down_proj"]},
    "LN_TUNING": {"target_modules": ["input_layernorm", "norm"]},
    "TRAINABLE_TOKENS": {"token_indices": [1, 2], "target_modules": ["embed_tokens"]},
    "PROMPT_TUNING": _TOKENS,
    "P_TUNING": {**_TOKENS, "encoder_hidden_size": 8},
    "PREFIX_TUNING": {**_TOKENS, "prefix_projection": True, "encoder_hidden_size": 8},
}


def pefts_own_count(record: dict[str, Any], device: str = "cpu") -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return trainable_params(get_peft_model(tiny_model("llama", device=device), PeftConfig.from_peft_type(**record)))[0]


@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize("kind", CONFIGS)
def test_every_type_is_counted_as_peft_counts_it(kind: str, device: str) -> None:
    record = {"peft_type": kind, **CONFIGS[kind]}
    assert trainable_params(attach_config(tiny_model("llama", device=device), record))[0] == pefts_own_count(record) > 0


def test_a_saved_adapter_is_read_from_its_file_or_folder_and_is_trained_again(tmp_path: Path) -> None:
    saved = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], base_model_name_or_path="someone/llama", inference_mode=True)
    saved.save_pretrained(str(tmp_path))
    expected = pefts_own_count({"peft_type": "LORA", "r": 4, **_QV})
    for path in (tmp_path, tmp_path / "adapter_config.json", str(tmp_path)):
        assert trainable_params(attach_config(tiny_model("llama"), path)) == (expected, 0)


@pytest.mark.parametrize("start", ["pissa", "olora", "loftq", "gaussian", True, False])
def test_start_values_that_need_weights_are_left_out_on_the_meta_device(start: str | bool) -> None:
    model = attach_config(tiny_model("llama"), {"peft_type": "LORA", "init_lora_weights": start, **_QV})
    assert trainable_params(model)[0] == pefts_own_count({"peft_type": "LORA", **_QV})


def test_a_prompt_that_starts_as_a_text_needs_no_tokenizer_on_the_meta_device() -> None:
    text = {"prompt_tuning_init": "TEXT", "prompt_tuning_init_text": "classify", "tokenizer_name_or_path": "someone/llama"}
    model = attach_config(tiny_model("llama"), {"peft_type": "PROMPT_TUNING", **_TOKENS, **text})
    assert trainable_params(model)[0] == 5 * 24


def test_a_head_that_the_config_saves_is_trained_in_full() -> None:
    record = {"peft_type": "LORA", "r": 4, "target_modules": ["query"], "modules_to_save": ["classifier"]}
    total, in_head = trainable_params(attach_config(tiny_model("bert"), record))
    assert (total - in_head, in_head) == (2 * 4 * (16 + 16), 2 * 16 + 2)


def test_the_record_stays_as_it_was() -> None:
    record = {"peft_type": "LORA", "init_lora_weights": "pissa", "inference_mode": True, **_QV}
    before = json.dumps(record)
    attach_config(tiny_model("llama"), record)
    assert json.dumps(record) == before


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        ({"peft_type": "MAGIC"}, r"^The peft_type parameter of adapter_config\.json must be one of .*LORA.*\. Got 'MAGIC'\.$"),
        ({"r": 8}, r"Got None\.$"),
        ({"peft_type": "LORA", "target_modules": ["rotor"]}, r"^PEFT attaches no LORA to LlamaForCausalLM: Target modules .*\.$"),
        ({"peft_type": "ADALORA", **_QV}, r"^PEFT reads no ADALORA config from this adapter_config\.json: .*total_step.*\.$"),
        ({"peft_type": "SHIRA", "r": 2, **_QV}, r"^PEFT attaches no SHIRA .*: it reads the weights of the base, and .*\.$"),
    ],
)
def test_a_config_that_does_not_fit_is_refused_in_one_sentence(record: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SpecError, match=sentence):
        attach_config(tiny_model("llama"), record)


@pytest.mark.parametrize("text", [None, "no json", "[1, 2]"])
def test_a_file_that_is_no_config_is_refused_by_name(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "adapter_config.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SpecError, match=f"^{re.escape(repr(str(path)))} must be an adapter_config.json"):
        attach_config(tiny_model("llama"), path)


def test_adapters_of_a_bf16_base_have_the_precision_that_peft_gives() -> None:
    for device in ("meta", "cpu"):
        model = attach_config(tiny_model("llama", device=device, dtype=torch.bfloat16), {"peft_type": "LORA", **_QV})
        assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
