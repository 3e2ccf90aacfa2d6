"""A base's matrices from its files are the live model's, whatever the family calls them and whichever way it stores them."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lora_lab.assets import DATA_DIR
from lora_lab.errors import DataError
from lora_lab.geometry import Geometry, Matrix
from lora_lab.live_geometry import read_geometry
from lora_lab.methods.tiny import TINY, tiny_model
from lora_lab.weights import BaseWeights

BACKBONES = {"bert": "bert", "gpt2": "transformer", "vit": "vit", "llama": "model"}
SAVED_ONE_BY_ONE = ("mixtral", "qwen3_moe")  # experts that transformers takes apart on saving


def fresh(family: str) -> nn.Module:
    """The same tiny base at every call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return tiny_model(family, device="cpu")


def live(model: nn.Module, matrix: Matrix, expert: int = 0) -> Tensor:
    """The matrix in the model as (d_out, d_in)."""
    if matrix.kind == "experts":
        owner, _, name = matrix.name.rpartition(".")
        weight = getattr(module := model.get_submodule(owner), name)[expert]
        return weight.mT if getattr(module, "is_transposed", False) else weight
    weight = model.get_submodule(matrix.name).weight
    return weight.mT if matrix.kind == "conv1d" else weight


def saved(model: nn.Module, folder: Path, **how: object) -> BaseWeights:
    model.save_pretrained(folder, **how)
    return BaseWeights(folder, read_geometry(model).matrices)


def assert_all_are_read(weights: BaseWeights, model: nn.Module, geometry: Geometry) -> None:
    matrices = [m for m in geometry.matrices if not m.tied]
    assert len(matrices) > 4
    for matrix in matrices:
        for expert in range(matrix.experts):
            found = weights.matrix(matrix, expert=expert)
            assert found.shape == (matrix.d_out, matrix.d_in)
            assert torch.equal(found, live(model, matrix, expert))


@pytest.mark.parametrize("family", [family for family in TINY if family not in SAVED_ONE_BY_ONE])
def test_every_matrix_of_a_family_is_read_as_d_out_by_d_in(family: str, tmp_path: Path) -> None:
    model = fresh(family)
    assert_all_are_read(saved(model, tmp_path), model, read_geometry(model))


@pytest.mark.parametrize(("family", "backbone"), BACKBONES.items())
def test_a_checkpoint_without_the_model_s_prefix_is_read_by_the_model_s_names(family: str, backbone: str, tmp_path: Path) -> None:
    model = fresh(family)
    saved(model.get_submodule(backbone), tmp_path)
    weights = BaseWeights(tmp_path)
    inner = [m for m in read_geometry(model).matrices if m.name.startswith(f"{backbone}.")]
    assert len(inner) > 4
    for matrix in inner:
        assert torch.equal(weights.matrix(matrix), live(model, matrix))


@pytest.mark.parametrize(("family", "backbone"), BACKBONES.items())
def test_a_checkpoint_with_a_prefix_is_read_by_the_bare_model_s_names(family: str, backbone: str, tmp_path: Path) -> None:
    model = fresh(family)
    saved(model, tmp_path)
    bare = model.get_submodule(backbone)
    geometry = read_geometry(bare)
    inner = tuple(m for m in geometry.matrices if m.name != "pooler.dense")  # which the classifier may lack
    weights = BaseWeights(tmp_path, inner)
    for matrix in inner:
        assert torch.equal(weights.named(matrix.name), live(bare, matrix))
        assert torch.equal(weights.named(f"{backbone}.{matrix.name}"), live(bare, matrix))


def test_the_base_of_the_digits_is_read_by_the_names_of_its_live_model(digits_base: nn.Module) -> None:
    weights, geometry = BaseWeights(DATA_DIR / "digits-base"), read_geometry(digits_base)
    assert_all_are_read(weights, digits_base, Geometry(geometry.matrices, (), (), (), None))


def test_of_shards_only_the_one_that_holds_the_matrix_is_opened(tmp_path: Path) -> None:
    model = fresh("gpt2")
    weights = saved(model, tmp_path, max_shard_size="9KB")
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 3
    assert_all_are_read(weights, model, read_geometry(model))
    matrix = weights.find("transformer.h.1.mlp.c_fc")
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    for shard in shards:
        if shard.name != index[f"{matrix.name}.weight"]:
            shard.write_bytes(b"broken")
    assert torch.equal(BaseWeights(tmp_path).matrix(matrix), live(model, matrix))


def test_half_precision_is_read_as_float32_to_the_bit(tmp_path: Path) -> None:
    model = fresh("bert").to(torch.bfloat16)
    weights = saved(model, tmp_path)
    matrix = weights.find("bert.encoder.layer.0.intermediate.dense")
    assert torch.equal(weights.matrix(matrix), live(model, matrix).float())
    assert weights.matrix(matrix).dtype == torch.float32


# What is refused, in one sentence.


def of_linear(name: str, d_out: int = 16, d_in: int = 16) -> Matrix:
    return Matrix(name, "other", None, d_out, d_in)


def test_a_matrix_that_is_not_there_is_refused(tmp_path: Path) -> None:
    weights = saved(fresh("bert"), tmp_path)
    with pytest.raises(DataError, match=r"must include nowhere\.weight once\. Got \d+ tensors and none of that name\.$"):
        weights.matrix(of_linear("nowhere"))
    with pytest.raises(DataError, match=r"^The matrices of the base must include nowhere once\. Got 0 of that name\.$"):
        weights.named("nowhere")


def test_a_name_that_may_be_several_is_refused(tmp_path: Path) -> None:
    weights = saved(fresh("t5"), tmp_path)
    with pytest.raises(
        DataError, match=r"must include layer\.0\.SelfAttention\.q\.weight once\. Got \d+ tensors and 4 of that name"
    ):
        weights.matrix(of_linear("layer.0.SelfAttention.q"))


def test_a_matrix_of_another_shape_is_refused(tmp_path: Path) -> None:
    weights = saved(fresh("bert"), tmp_path)
    with pytest.raises(DataError, match=r"intermediate\.dense\.weight in .* must be \(16, 56\)\. Got \(56, 16\)\.$"):
        weights.matrix(of_linear("bert.encoder.layer.0.intermediate.dense", 16, 56))


@pytest.mark.parametrize("family", SAVED_ONE_BY_ONE)
def test_experts_that_were_saved_one_by_one_are_refused(family: str, tmp_path: Path) -> None:
    weights = saved(fresh(family), tmp_path)
    with pytest.raises(DataError, match=r"must include model\.layers\.0\.mlp\.experts\.down_proj once\."):
        weights.named("model.layers.0.mlp.experts.down_proj")


def test_a_map_of_a_parameter_that_holds_experts_is_found_by_its_place(tmp_path: Path) -> None:
    model = fresh("gpt_oss")
    weights = saved(model, tmp_path)
    matrix = next(m for m in read_geometry(model).matrices if m.kind == "experts")
    for expert in range(matrix.experts):
        assert torch.equal(weights.named(f"{matrix.name}[{expert}]"), live(model, matrix, expert))
    with pytest.raises(DataError, match=rf"must include {re.escape(matrix.name)}\[{matrix.experts}\]\."):
        weights.named(f"{matrix.name}[{matrix.experts}]")
    with pytest.raises(DataError, match=r"q_proj\[0\]\. Got model\.layers\.0\.self_attn\.q_proj with 1 in it\.$"):
        weights.named("model.layers.0.self_attn.q_proj[0]")


@pytest.mark.parametrize("name", ["model.safetensors", "model.safetensors.index.json"])
@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b"[1]", None])
def test_a_folder_without_readable_weights_is_refused(name: str, content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(
        DataError, match=r"must hold model\.safetensors or shards with model\.safetensors\.index\.json\."
    ) as refusal:
        BaseWeights(tmp_path)
    assert "\n" not in str(refusal.value)


def test_a_shard_that_is_broken_or_missing_is_refused(tmp_path: Path) -> None:
    weights = saved(fresh("bert"), tmp_path)
    matrix = weights.find("bert.encoder.layer.0.attention.self.query")
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"model\.safetensors must be a safetensors file\. It cannot be read"):
        weights.matrix(matrix)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(DataError, match=r"model\.safetensors must be a safetensors file\. It cannot be read"):
        weights.matrix(matrix)


@pytest.mark.parametrize("config", [None, "{}", '{"model_type": "vit", "architectures": ["NoSuchModel"]}', "[1]", "broken"])
def test_names_are_taken_as_they_are_where_the_config_does_not_tell(config: str | None, tmp_path: Path) -> None:
    save_file({"proj.weight": torch.eye(3)}, tmp_path / "model.safetensors")
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    weights = BaseWeights(tmp_path)
    assert torch.equal(weights.matrix(of_linear("proj", 3, 3)), load_file(tmp_path / "model.safetensors")["proj.weight"])
    with pytest.raises(DataError, match=r"must include other\.weight once"):
        weights.matrix(of_linear("other", 3, 3))
