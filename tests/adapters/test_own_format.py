"""What PEFT has no word for: kept under its own names, put back exactly, read as W − W0."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from lora_lab.adapters import from_model, load_adapter, load_trained, save_trained, saved_step
from lora_lab.errors import AdapterError
from lora_lab.live_geometry import read_geometry
from lora_lab.methods.tiny import tiny_model
from lora_lab.weights import BaseWeights

FAMILIES = ["bert", "gpt2", "llama", "vit", "gpt_oss"]


def fresh(family: str) -> nn.Module:
    """The same tiny base at every call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return tiny_model(family, device="cpu").eval()


def trained(family: str, *parts: str) -> nn.Module:
    """The base with every parameter of these parts trained, and nothing else."""
    model, generator = fresh(family), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(any(part in name for part in parts))
            if parameter.requires_grad:
                parameter += torch.randn(parameter.shape, generator=generator)
    return model


def weights_of(family: str, folder: Path) -> BaseWeights:
    base = fresh(family)
    base.save_pretrained(folder)
    return BaseWeights(folder, read_geometry(base).matrices)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("parts", [("",), ("1.",), ("bias", "classifier")], ids=["all", "a layer", "biases"])
def test_loading_is_what_load_state_dict_does_not_strictly(family: str, parts: tuple[str, ...], tmp_path: Path) -> None:
    model = trained(family, *parts)
    save_trained(model, tmp_path / "adapter", record={"method": "full"}, step=7)
    loaded, expected = fresh(family), fresh(family)
    load_trained(loaded, tmp_path / "adapter")
    expected.load_state_dict(load_file(tmp_path / "adapter" / "adapter_model.safetensors"), strict=False)
    found = loaded.state_dict()
    assert found.keys() == model.state_dict().keys()
    for name, tensor in expected.state_dict().items():
        assert torch.equal(found[name], tensor)
        assert torch.equal(found[name], model.state_dict()[name])


def test_what_requires_no_gradient_is_not_in_the_file(tmp_path: Path) -> None:
    save_trained(trained("bert", "classifier"), tmp_path / "adapter", record={"method": "bitfit"}, step=7)
    assert load_file(tmp_path / "adapter" / "adapter_model.safetensors").keys() == {"classifier.weight", "classifier.bias"}


def test_the_record_and_its_step_are_kept(tmp_path: Path) -> None:
    save_trained(trained("bert", "bias"), tmp_path / "adapter", record={"method": "bitfit", "seed": 3}, step=7)
    assert json.loads((tmp_path / "adapter" / "lora_lab.json").read_text()) == {"step": 7, "method": "bitfit", "seed": 3}
    assert saved_step(tmp_path / "adapter") == 7


def test_a_save_that_fails_keeps_the_old_folder_and_a_good_one_replaces_it(tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    save_trained(trained("bert", "bias"), folder, record={"method": "bitfit"}, step=7)
    with pytest.raises(TypeError):
        save_trained(trained("bert", "bias"), folder, record={"method": object()}, step=8)
    assert saved_step(folder) == 7
    save_trained(trained("bert", "bias"), folder, record={"method": "bitfit"}, step=9)
    assert saved_step(folder) == 9
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("method", "parts"), [("full", ("",)), ("partial", ("s.1.", "h.1.", "layer.1."))])
def test_what_was_trained_in_place_is_w_minus_w0(family: str, method: str, parts: tuple[str, ...], tmp_path: Path) -> None:
    model, weights = trained(family, *parts), weights_of(family, tmp_path / "base")
    save_trained(model, tmp_path / "adapter", record={"method": method}, step=7)
    adapter = load_adapter(tmp_path / "adapter", base=weights)
    untied = [m for m in weights.matrices if not m.tied]
    originals = {
        m.name: torch.stack([weights.matrix(m, expert=i) for i in range(m.experts)]) if m.kind == "experts" else weights.matrix(m)
        for m in untied
    }
    live = from_model(model, originals=originals)
    assert len(adapter) > 0
    assert adapter.keys() == live.keys()
    layers = {name for m in untied for name in adapter if name.startswith(m.name) and m.layer == 1}
    assert layers == (adapter.keys() if method == "partial" else layers)
    for name, delta in adapter.items():
        assert torch.equal(delta.dense(), live[name].dense())
    assert (adapter.format, adapter.scaling_source, adapter.warnings) == ("lora_lab", "W − W0", ())


def test_a_matrix_that_was_trained_to_where_it_began_is_no_part_of_it(tmp_path: Path) -> None:
    model = fresh("gpt2")
    with torch.no_grad():
        model.transformer.h[0].mlp.c_fc.weight += 1
    save_trained(model, tmp_path / "adapter", record={"method": "full"}, step=7)
    adapter = load_adapter(tmp_path / "adapter", base=weights_of("gpt2", tmp_path / "base"))
    assert list(adapter) == ["transformer.h.0.mlp.c_fc"]
    torch.testing.assert_close(adapter["transformer.h.0.mlp.c_fc"].dense(), torch.ones(64, 16).double(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("method", "what"), [("bitfit", "BitFit"), ("adapter", "Bottleneck adapters"), ("adapter_pfeiffer", "Bottleneck adapters")]
)
def test_a_method_that_changes_no_matrix_has_no_delta_w_and_says_so(method: str, what: str, tmp_path: Path) -> None:
    save_trained(trained("bert", "bias"), tmp_path / "adapter", record={"method": method}, step=7)
    adapter = load_adapter(tmp_path / "adapter")
    assert len(adapter) == 0
    (warning,) = adapter.warnings
    assert warning.startswith(what)
    assert warning.endswith("no matrix.")


@pytest.mark.parametrize("method", ["full", "partial"])
def test_what_was_trained_in_place_is_refused_without_its_base(method: str, tmp_path: Path) -> None:
    save_trained(trained("bert", ""), tmp_path / "adapter", record={"method": method}, step=7)
    with pytest.raises(AdapterError, match=rf"^What method '{method}' trained must be read with the base, .* Got none\.$"):
        load_adapter(tmp_path / "adapter")


def test_what_was_trained_of_another_base_is_refused(tmp_path: Path) -> None:
    save_trained(trained("bert", ""), tmp_path / "adapter", record={"method": "full"}, step=7)
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file(load_file(path) | {"bert.encoder.layer.0.intermediate.dense.weight": torch.zeros(56, 8)}, path)
    with pytest.raises(AdapterError, match=r"dense must have the base's shape \(56, 16\)\. Got \(56, 8\)\.$"):
        load_adapter(tmp_path / "adapter", base=weights_of("bert", tmp_path / "base"))


@pytest.mark.parametrize("method", ["lora", None, 3])
def test_a_record_of_no_such_method_is_refused(method: Any, tmp_path: Path) -> None:
    save_trained(trained("bert", "bias"), tmp_path / "adapter", record={"method": method}, step=7)
    with pytest.raises(AdapterError, match=rf"must be one of full, partial, bitfit, .* Got {method!r}\.$"):
        load_adapter(tmp_path / "adapter")


def test_a_model_that_lacks_a_parameter_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    save_trained(trained("bert", ""), tmp_path / "adapter", record={"method": "full"}, step=7)
    other = fresh("bert").bert
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    with pytest.raises(AdapterError, match=r"^The model must have every parameter in .* Got none called bert\."):
        load_trained(other, tmp_path / "adapter")
    assert all(torch.equal(tensor, before[name]) for name, tensor in other.state_dict().items())


def test_a_parameter_of_another_shape_is_refused_and_the_model_left_as_it_was(tmp_path: Path) -> None:
    save_trained(trained("bert", ""), tmp_path / "adapter", record={"method": "full"}, step=7)
    path, model = tmp_path / "adapter" / "adapter_model.safetensors", fresh("bert")
    save_file(load_file(path) | {"classifier.weight": torch.zeros(5, 16)}, path)
    with pytest.raises(AdapterError, match=r"classifier\.weight must have one shape\. Got \(5, 16\) in the file and \(2, 16\)"):
        load_trained(model, tmp_path / "adapter")
    assert all(torch.equal(tensor, fresh("bert").state_dict()[name]) for name, tensor in model.state_dict().items())


def test_a_folder_without_its_weights_is_refused(tmp_path: Path) -> None:
    save_trained(trained("bert", "bias"), tmp_path / "adapter", record={"method": "bitfit"}, step=7)
    (tmp_path / "adapter" / "adapter_model.safetensors").unlink()
    with pytest.raises(AdapterError, match=r"must hold adapter_model\.safetensors"):
        load_adapter(tmp_path / "adapter")
