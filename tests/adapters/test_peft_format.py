"""What PEFT wrote is read as PEFT reads it; what is no adapter is refused in one sentence."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from lora_lab.adapters import changed_ns, load_adapter
from lora_lab.errors import AdapterError, AssetError

_BERT = BertConfig(
    vocab_size=40,
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=24,
    max_position_embeddings=20,
    num_labels=3,
)
_LLAMA = LlamaConfig(
    vocab_size=40,
    hidden_size=16,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=4,
    intermediate_size=24,
)
_GPT2 = GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2, n_positions=20, bos_token_id=0, eos_token_id=0)


def llama() -> nn.Module:
    return LlamaForCausalLM(_LLAMA)


def bert() -> nn.Module:
    return BertForSequenceClassification(_BERT)


def gpt2() -> nn.Module:
    return GPT2LMHeadModel(_GPT2)


def trained(base: nn.Module, **config: Any) -> PeftModel:
    """The base with LoRA on it and a B that is no longer zero."""
    model = get_peft_model(base, LoraConfig(**config))
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            nn.init.normal_(parameter, generator=generator)
    return model


def lora_layers(model: PeftModel) -> dict[str, LoraLayer]:
    """The layers that carry LoRA, by their names in the base."""
    return {n.removeprefix("base_model.model."): m for n, m in model.named_modules() if isinstance(m, LoraLayer)}


def saved(model: PeftModel, folder: Path) -> Path:
    model.save_pretrained(str(folder), save_embedding_layers=False)
    return folder


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter folder with nothing wrong."""
    return saved(trained(llama(), r=4, target_modules=["q_proj", "v_proj"]), tmp_path_factory.mktemp("adapter"))


@pytest.fixture
def folder(healthy: Path, tmp_path: Path) -> Path:
    """A copy of it, to be broken."""
    return Path(shutil.copytree(healthy, tmp_path / "adapter"))


@pytest.mark.parametrize(
    "config",
    [
        {"r": 4, "target_modules": ["q_proj", "v_proj"]},
        {"r": 1, "lora_alpha": 3, "target_modules": "all-linear"},
        {"r": 9, "lora_alpha": 5, "use_rslora": True, "target_modules": ["q_proj", "down_proj"]},
        {"r": 20, "target_modules": ["k_proj"]},  # more than the rank that k can have
        {"r": 4, "target_modules": ["q_proj", "v_proj"], "rank_pattern": {"q_proj": 2, "layers.1.self_attn.v_proj": 6}},
        {"r": 4, "target_modules": ["q_proj", "v_proj"], "alpha_pattern": {"v_proj": 32}},
        {
            "r": 4,
            "target_modules": ["q_proj", "v_proj"],
            "use_rslora": True,
            "rank_pattern": {r"layers\.[12]\..*q_proj": 3, "q_proj": 7},
            "alpha_pattern": {"_proj": 100, "model.layers.0.self_attn.q_proj": 1, "self_attn.v_proj": 50},
        },
    ],
    ids=["plain", "all-linear", "rslora", "wide", "rank-pattern", "alpha-pattern", "all-patterns"],
)
@pytest.mark.filterwarnings("ignore:The following alpha_pattern keys did not match")  # `_proj` follows no dot
def test_delta_w_is_what_peft_adds_to_the_weight(config: dict[str, Any], tmp_path: Path) -> None:
    layers = lora_layers(model := trained(llama(), **config))
    adapter = load_adapter(saved(model, tmp_path / "adapter"))
    assert adapter.keys() == layers.keys()
    for name, layer in layers.items():
        expected = layer.get_delta_weight("default").detach().double()
        torch.testing.assert_close(adapter[name].dense(), expected, rtol=1e-5, atol=1e-6)
        assert adapter[name].r == layer.r["default"]
        assert adapter[name].scaling == pytest.approx(layer.scaling["default"], rel=1e-12)


def test_what_gpt2_stores_the_other_way_round_is_d_out_by_d_in(tmp_path: Path) -> None:
    layers = lora_layers(model := trained(gpt2(), r=2, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True))
    adapter = load_adapter(saved(model, tmp_path / "adapter"))
    assert {delta.shape for delta in adapter.values()} == {(48, 16), (64, 16)}
    for name, layer in layers.items():
        expected = layer.get_delta_weight("default").detach().double().mT  # PEFT gives it as Conv1D stores it, (d_in, d_out)
        torch.testing.assert_close(adapter[name].dense(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_factors_of_half_precision_are_read_as_they_are(dtype: torch.dtype, tmp_path: Path) -> None:
    layers = lora_layers(model := trained(llama(), r=2, target_modules=["q_proj"]).to(dtype))
    adapter = load_adapter(saved(model, tmp_path / "adapter"))
    for name, layer in layers.items():
        assert torch.equal(adapter[name].lora_a, layer.lora_A["default"].weight)
        assert adapter[name].lora_b.dtype == dtype


@pytest.mark.parametrize("base", [llama, gpt2, bert])
@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
def test_modules_have_their_names_in_the_base(base: Callable[[], nn.Module], tmp_path: Path) -> None:
    in_base = dict(base().named_modules())
    model = trained(base(), r=2, target_modules="all-linear", task_type="SEQ_CLS" if base is bert else None)
    adapter = load_adapter(saved(model, tmp_path / "adapter"))
    assert adapter.keys() <= in_base.keys()
    assert len(adapter) == len(lora_layers(model))


@pytest.mark.parametrize("name", [".", "adapter_config.json", "adapter_model.safetensors"])
def test_the_folder_and_each_file_of_it_open_the_same_adapter(healthy: Path, name: str) -> None:
    whole, adapter = load_adapter(healthy), load_adapter(str(healthy / name))
    assert adapter.keys() == whole.keys()
    assert all(torch.equal(adapter[n].lora_b, whole[n].lora_b) for n in whole)


@pytest.mark.parametrize(("use_rslora", "rule"), [(False, "lora_alpha / r"), (True, "lora_alpha / sqrt(r)")])
def test_the_adapter_says_where_its_scaling_comes_from(folder: Path, use_rslora: bool, rule: str) -> None:
    rewrite_config(folder, use_rslora=use_rslora)
    adapter = load_adapter(folder)
    assert (adapter.format, adapter.scaling_source) == ("peft", f"adapter_config.json: {rule}")
    assert adapter.config["use_rslora"] is use_rslora


def test_plain_lora_has_nothing_to_warn_of(healthy: Path) -> None:
    assert load_adapter(healthy).warnings == ()


def test_modules_saved_whole_are_named_and_not_taken_for_factors(tmp_path: Path) -> None:
    model = trained(bert(), r=2, target_modules=["query"], modules_to_save=["classifier"], task_type="SEQ_CLS")
    adapter = load_adapter(saved(model, tmp_path / "adapter"))
    (warning,) = adapter.warnings
    assert warning.endswith("not part of any spectrum: classifier.")
    assert list(adapter) == ["bert.encoder.layer.0.attention.self.query"]


def test_dora_warns_that_its_magnitude_is_not_in_the_factors(tmp_path: Path) -> None:
    model = trained(llama(), r=2, target_modules=["q_proj"], use_dora=True)
    adapter = load_adapter(saved(model, tmp_path / "adapter"))
    (warning,) = adapter.warnings
    assert warning.startswith("DoRA: a magnitude changes W")
    assert len(adapter) == 3


@pytest.mark.parametrize(("init", "warns"), [("pissa_niter_4", True), ("olora", True), ("gaussian", False), (True, False)])
def test_an_initialisation_that_moves_the_base_is_told(folder: Path, init: str | bool, warns: bool) -> None:
    rewrite_config(folder, init_lora_weights=init)
    assert [f"{init} moves the base" in warning for warning in load_adapter(folder).warnings] == [True] * warns


def rewrite_config(folder: Path, **fields: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def rewrite_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    path = folder / "adapter_model.safetensors"
    save_file(change(load_file(path)), path)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def without_one_b(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    gone = next(key for key in tensors if key.endswith(".lora_B.weight"))
    return {key: x for key, x in tensors.items() if key != gone}


def with_rows_cut_from_a(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: x[:3].clone() if key.endswith("lora_A.weight") else x for key, x in tensors.items()}


def with_columns_cut_from_b(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: x[:, :3].clone() if key.endswith("lora_B.weight") else x for key, x in tensors.items()}


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "config is broken JSON": (lambda f: (f / "adapter_config.json").write_text('{"r": 4,'), "must be a JSON file"),
    "config is not text": (lambda f: (f / "adapter_config.json").write_bytes(b"\xff\xfe\x00\x80"), "must be a JSON file"),
    "config is a list": (lambda f: (f / "adapter_config.json").write_text("[1, 2]"), r"one of the peft_type LORA, .* Got None"),
    "config is of another method": (lambda f: rewrite_config(f, peft_type="LOHA"), r"Got 'LOHA'\."),
    "config has no rank": (lambda f: rewrite_config(f, r=None), "must have a rank r"),
    "rank is zero": (lambda f: rewrite_config(f, r=0), "a rank r of at least 1"),
    "a pattern is no pattern": (lambda f: rewrite_config(f, rank_pattern={"(": 2}), "rank_pattern"),
    "patterns are a list": (lambda f: rewrite_config(f, alpha_pattern=["q_proj"]), "alpha_pattern"),
    "alpha is null": (lambda f: rewrite_config(f, lora_alpha=None), "lora_alpha"),
    "rank does not fit the factors": (lambda f: rewrite_config(f, r=8), r"must have r=8 rows.* Got \(4, 16\)\."),
    "weights are missing": (lambda f: (f / "adapter_model.safetensors").unlink(), "must hold adapter_model.safetensors"),
    "weights are cut": (lambda f: cut(f / "adapter_model.safetensors"), "must be a safetensors file"),
    "weights are empty": (lambda f: (f / "adapter_model.safetensors").write_bytes(b""), "must be a safetensors file"),
    "weights are no factors": (lambda f: rewrite_weights(f, lambda _: {"weight": torch.ones(2)}), "Got 1 tensors and none of them"),
    "a B is missing": (lambda f: rewrite_weights(f, without_one_b), r"must come with .*lora_B\.weight\. It is missing\."),
    "A has rows too few": (lambda f: rewrite_weights(f, with_rows_cut_from_a), r"must have r=4 rows.* Got \(3, 16\)\."),
    "A and B share no rank": (lambda f: rewrite_weights(f, with_columns_cut_from_b), "with one r"),
}


@pytest.mark.parametrize(("spoil", "sentence"), FAULTS.values(), ids=FAULTS)
@pytest.mark.usefixtures("_unchecked")
def test_a_spoilt_adapter_is_refused_in_one_sentence(folder: Path, spoil: Callable[[Path], object], sentence: str) -> None:
    spoil(folder)
    with pytest.raises(AdapterError, match=sentence) as refusal:
        load_adapter(folder)
    assert "\n" not in str(refusal.value)


@pytest.fixture
def _unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As users run it: tests alone check types and shapes at the call."""
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)


def test_what_is_no_adapter_is_refused_with_what_was_given(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no adapter")
    for source in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(
            AdapterError, match=r"must be a folder with adapter_config\.json and adapter_model\.safetensors"
        ) as refusal:
            load_adapter(source)
        assert repr(str(source)) in str(refusal.value)


def test_a_path_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match=r"a folder, a file or a Hub id that exists\. Got '.*nowhere'\."):
        load_adapter(tmp_path / "nowhere")


def test_a_hub_id_without_a_hub_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lora_lab.assets.hub_reachable", lambda: False)
    with pytest.raises(AssetError, match=r"'nobody/no-adapter' is no folder here, and the Hugging Face Hub does not answer\."):
        load_adapter("nobody/no-adapter")


@pytest.mark.parametrize("source", ["", " ", "a" * 300, "~nosuchuser/x", "/a\0b", "/nowhere/at/all"])
def test_a_name_that_is_nowhere_is_refused_in_one_sentence(source: str) -> None:
    with pytest.raises(AdapterError, match=r"must be a folder, a file or a Hub id that exists\. Got "):
        load_adapter(source)
    assert changed_ns(source) == 0


def test_a_place_may_be_in_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine").mkdir()
    with pytest.raises(AdapterError, match="must be a folder with adapter_config"):
        load_adapter("~/mine")
