"""Adapters of live models: read as they are now, and written so that plain PEFT loads them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, ViTForImageClassification

from lora_lab.adapters import from_model, load_adapter, moved_by, save, saved_step
from lora_lab.benches.digits import base_config
from lora_lab.methods import attach_method
from lora_lab.specs import LoraSpec

_BERT = BertConfig(
    vocab_size=40,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=24,
    max_position_embeddings=20,
    num_labels=3,
)


def bert() -> nn.Module:
    return BertForSequenceClassification(_BERT).eval()


def vit() -> nn.Module:
    return ViTForImageClassification(base_config()).eval()


INPUTS = {
    bert: {"input_ids": torch.arange(12).reshape(2, 6)},
    vit: {"pixel_values": torch.linspace(-1, 1, 128).reshape(2, 1, 8, 8)},
}


def trained(base: nn.Module, *, heads: tuple[str, ...] = (), **fields: object) -> PeftModel:
    """The base with LoRA on q and v, adapter and head moved off their start."""
    targets = ("query", "value") if isinstance(base, BertForSequenceClassification) else ("q_proj", "v_proj")
    spec = LoraSpec(target_modules=targets, **fields)
    model = attach_method(base, spec, seed=0, head_modules=heads, task_type="SEQ_CLS" if heads else None)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.3, generator=generator)
    return model.eval()


def test_a_live_adapter_is_what_its_file_says_once_saved(tmp_path: Path) -> None:
    model = trained(vit(), r=4, lora_alpha=7.0, use_rslora=True)
    save(model, tmp_path / "adapter", base_name="base", step=3)
    live, stored = from_model(model), load_adapter(tmp_path / "adapter")
    assert live.keys() == stored.keys()
    for name in live:
        assert torch.equal(live[name].lora_a, stored[name].lora_a)
        assert torch.equal(live[name].lora_b, stored[name].lora_b)
        assert live[name].scaling == pytest.approx(stored[name].scaling, rel=1e-12)


def test_training_on_does_not_change_factors_that_were_read() -> None:
    model = trained(vit(), r=2)
    before = from_model(model)
    factors = [x for delta in before.values() for x in (delta.lora_a, delta.lora_b)]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert all(x.any() and not x.requires_grad for x in factors)


def test_each_of_two_adapters_on_one_model_is_read_by_its_name() -> None:
    model = trained(vit(), r=2)
    model.add_adapter("second", LoraConfig(r=3, target_modules=["fc1"]))
    assert {delta.r for delta in from_model(model).values()} == {2}
    assert set(from_model(model, adapter_name="second")) == {f"vit.layers.{i}.mlp.fc1" for i in range(4)}
    assert len(from_model(model, adapter_name="third")) == 0


@pytest.mark.parametrize("fields", [{"r": 4}, {"r": 3, "lora_alpha": 0.5, "use_rslora": True}], ids=["lora", "rslora"])
@pytest.mark.parametrize(("base", "heads"), [(vit, ()), (bert, ("classifier",))], ids=["vit", "bert"])
def test_plain_peft_loads_what_was_saved_and_gives_the_same_logits(
    base: Callable[[], nn.Module], heads: tuple[str, ...], fields: dict[str, object], tmp_path: Path
) -> None:
    original = base()
    weights = {name: weight.clone() for name, weight in original.state_dict().items()}
    model = trained(original, heads=heads, **fields)
    save(model, tmp_path / "adapter", base_name="base", step=3)
    fresh = base()
    fresh.load_state_dict(weights)
    with torch.no_grad():
        plain = fresh(**INPUTS[base]).logits.clone()
        loaded = PeftModel.from_pretrained(fresh, str(tmp_path / "adapter")).eval()
        expected = model(**INPUTS[base]).logits
        assert torch.equal(loaded(**INPUTS[base]).logits, expected)
        assert not torch.allclose(plain, expected)


def test_saving_names_the_base_and_says_what_step_it_is_of(tmp_path: Path) -> None:
    save(trained(bert(), r=2, heads=("classifier",)), tmp_path / "adapter", base_name="some/base", step=3)
    written = {path.name for path in (tmp_path / "adapter").iterdir()}
    assert written == {"adapter_config.json", "adapter_model.safetensors", "lora_lab.json"}
    assert saved_step(tmp_path / "adapter") == 3
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["task_type"], config["r"]) == ("some/base", "SEQ_CLS", 2)


def test_saving_again_replaces_the_folder_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    save(trained(vit(), r=2), folder, base_name="base", step=3)
    (folder / "stale.txt").write_text("of the old adapter")
    save(trained(vit(), r=5), folder, base_name="base", step=3)
    assert {delta.r for delta in load_adapter(folder).values()} == {5}
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]
    assert not (folder / "stale.txt").exists()


def test_a_save_that_fails_keeps_the_old_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "adapter"
    save(trained(vit(), r=2), folder, base_name="base", step=3)
    model = trained(vit(), r=5)

    def full(*_: object, **__: object) -> None:
        (tmp_path / "adapter.new").mkdir()
        raise OSError("No space left on device")

    monkeypatch.setattr(model, "save_pretrained", full)
    with pytest.raises(OSError, match="No space left"):
        save(model, folder, base_name="base", step=3)
    assert {delta.r for delta in load_adapter(folder).values()} == {2}


@pytest.mark.parametrize("left", ["adapter.new", "adapter.old"])
def test_saving_works_after_a_save_that_was_killed(left: str, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    save(trained(vit(), r=2), folder, base_name="base", step=3)
    (tmp_path / left).mkdir()
    (tmp_path / left / "half.safetensors").write_bytes(b"half")
    save(trained(vit(), r=5), folder, base_name="base", step=3)
    assert {delta.r for delta in load_adapter(folder).values()} == {5}
    assert not (folder / "half.safetensors").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_a_base_moved_by_more_than_its_factors_hold_is_counted_against_the_original() -> None:
    """As LoftQ does: W becomes a rounded Q, and the factors make up for a part of the difference alone."""
    torch.manual_seed(0)
    base = vit()
    query, value = "vit.layers.0.attention.q_proj", "vit.layers.1.attention.v_proj"
    originals = {name: base.get_submodule(name).weight.detach().clone() for name in (query, value)}
    model = trained(base, r=4)
    layer = model.base_model.model.get_submodule(query)
    with torch.no_grad():
        layer.base_layer.weight.copy_(layer.base_layer.weight.mul(8).round().div(8))
    start = moved_by(model, originals)
    assert set(start) == {query}
    found = from_model(model, start=start)
    effective = layer.base_layer.weight + layer.get_delta_weight("default")
    torch.testing.assert_close(found[query].dense().float(), (effective - originals[query]).detach(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found[value].dense(), from_model(model)[value].dense())
