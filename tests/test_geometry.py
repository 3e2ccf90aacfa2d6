"""Names, roles and shapes of the matrices of models, and targets that PEFT understands the same way."""

from collections.abc import Callable

import pytest
import torch
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import (
    AlbertConfig,
    AlbertModel,
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    RobertaConfig,
    RobertaForSequenceClassification,
    ViTForImageClassification,
)

from lora_lab.benches.digits import base_config
from lora_lab.errors import SpecError
from lora_lab.geometry import Geometry, Matrix, resolve_targets
from lora_lab.live_geometry import read_geometry
from lora_lab.methods import attach_method
from lora_lab.methods.tiny import TINY, tiny_model
from lora_lab.roles import label_of, layer_of, role_of
from lora_lab.specs import LoraSpec

_BERT = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 20,
    "num_labels": 3,
}
_LLAMA = LlamaConfig(
    vocab_size=40,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=4,
    intermediate_size=24,
)
_GPT2 = GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2, n_positions=20, bos_token_id=0, eos_token_id=0)
_DISTILBERT = DistilBertConfig(vocab_size=40, dim=16, n_layers=2, n_heads=2, hidden_dim=24)
FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "vit": lambda: ViTForImageClassification(base_config()),
    "bert": lambda: BertForSequenceClassification(BertConfig(**_BERT)),
    "roberta": lambda: RobertaForSequenceClassification(RobertaConfig(**_BERT)),
    "distilbert": lambda: DistilBertForSequenceClassification(_DISTILBERT),
    "llama": lambda: LlamaForCausalLM(_LLAMA),
    "gpt2": lambda: GPT2LMHeadModel(_GPT2),
}
HEADS = {"bert": ("classifier",), "roberta": ("classifier",), "distilbert": ("classifier",)}  # trained in full beside the adapter
TASKS = {"bert": "SEQ_CLS", "roberta": "SEQ_CLS", "distilbert": "SEQ_CLS", "llama": "CAUSAL_LM"}


def tiny(family: str, *, device: str = "meta") -> nn.Module:
    with torch.device(device):
        return FAMILIES[family]()


def geometry_of(family: str) -> Geometry:
    return read_geometry(tiny(family))


def attached(model: nn.Module) -> set[str]:
    """The modules that carry LoRA now."""
    return {name.removeprefix("base_model.model.") for name, module in model.named_modules() if isinstance(module, LoraLayer)}


@pytest.mark.parametrize(
    ("family", "block"),
    [
        ("vit", [("q", 64, 64), ("k", 64, 64), ("v", 64, 64), ("o", 64, 64), ("up", 160, 64), ("down", 64, 160)]),
        ("bert", [("q", 16, 16), ("k", 16, 16), ("v", 16, 16), ("o", 16, 16), ("up", 24, 16), ("down", 16, 24)]),
        ("distilbert", [("q", 16, 16), ("k", 16, 16), ("v", 16, 16), ("o", 16, 16), ("up", 24, 16), ("down", 16, 24)]),
        (
            "llama",  # two key-value heads of width 4 for four query heads
            [("q", 16, 16), ("k", 8, 16), ("v", 8, 16), ("o", 16, 16), ("gate", 24, 16), ("up", 24, 16), ("down", 16, 24)],
        ),
        ("gpt2", [("qkv", 48, 16), ("o", 16, 16), ("up", 64, 16), ("down", 16, 64)]),  # Conv1D, fused q, k, v
    ],
)
def test_a_block_has_these_roles_and_shapes(family: str, block: list[tuple[str, int, int]]) -> None:
    assert [(m.role, m.d_out, m.d_in) for m in geometry_of(family).block()] == block


@pytest.mark.parametrize(
    ("family", "outside"),
    [
        ("vit", [("head", 10, 64, True)]),
        ("bert", [("pooler", 16, 16, True), ("head", 3, 16, True)]),
        ("roberta", [("head", 16, 16, True), ("head", 3, 16, True)]),
        ("llama", [("head", 40, 16, False)]),
        ("gpt2", [("head", 40, 16, False)]),
    ],
)
def test_what_stands_outside_the_layers_is_pooler_or_head(family: str, outside: list[tuple[str, int, int, bool]]) -> None:
    found = [(m.role, m.d_out, m.d_in, m.bias) for m in geometry_of(family).matrices if m.layer is None]
    assert found == outside


@pytest.mark.parametrize("family", FAMILIES)
def test_every_layer_repeats_the_first(family: str) -> None:
    geometry = geometry_of(family)
    block = geometry.block()
    for layer in {m.layer for m in geometry.matrices} - {None}:
        found = [m for m in geometry.matrices if m.layer == layer]
        assert [(m.role, m.d_out, m.d_in, m.bias) for m in found] == [(m.role, m.d_out, m.d_in, m.bias) for m in block]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_meta_device_gives_the_geometry_of_the_live_model(family: str) -> None:
    live = tiny(family, device="cpu")
    geometry = read_geometry(live)
    assert read_geometry(tiny(family)) == geometry
    assert geometry.total_params == live.num_parameters()
    weights = dict(live.named_parameters(remove_duplicate=False))
    assert all(m.d_out * m.d_in == weights[f"{m.name}.weight"].numel() for m in geometry.matrices)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("targets", [("q",), ("q", "v"), ("k",), ("o",), ("up",), ("down",), ("o", "up", "down"), ("all-linear",)])
@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
def test_peft_attaches_to_exactly_the_matrices_that_the_targets_name(family: str, targets: tuple[str, ...]) -> None:
    model = tiny(family)
    geometry = read_geometry(model)
    spec = LoraSpec(r=2, target_modules=resolve_targets(geometry, targets, r=2))
    peft_model = attach_method(model, spec, seed=0, head_modules=HEADS.get(family, ()), task_type=TASKS.get(family))
    assert attached(peft_model) == {m.name for m in geometry.targeted(targets)}


@pytest.mark.parametrize("family", FAMILIES)
def test_all_linear_is_every_linear_map_but_the_head(family: str) -> None:
    model = tiny(family)
    inside = {name for name, m in model.named_modules() if type(m).__name__ in ("Linear", "Conv1D") and layer_of(name) is not None}
    pooler = {"bert.pooler.dense"} if family == "bert" else set()
    assert {m.name for m in read_geometry(model).targeted(["all-linear"])} == inside | pooler


@pytest.mark.parametrize("role", ["q", "k", "v"])
def test_a_role_within_a_fused_matrix_names_that_matrix(role: str) -> None:
    geometry = geometry_of("gpt2")
    assert [m.name for m in geometry.targeted([role])] == [f"transformer.h.{layer}.attn.c_attn" for layer in (0, 1)]
    assert geometry.fused_targets([role, "o"]) == {role: "c_attn"}


@pytest.mark.parametrize("family", ["vit", "bert", "distilbert", "llama"])
@pytest.mark.parametrize("role", ["q", "k", "v", "o", "up", "down"])
def test_a_role_names_one_matrix_a_layer(family: str, role: str) -> None:
    geometry = geometry_of(family)
    found = geometry.targeted([role])
    assert {m.role for m in found} == {role}
    assert [m.layer for m in found] == sorted({m.layer for m in geometry.matrices} - {None})


@pytest.mark.parametrize("targets", [("c_attn",), ("attn.c_proj",), ("c_proj",), ("all-linear",)])
@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
def test_targets_of_gpt2_may_be_named_by_ending(targets: tuple[str, ...]) -> None:
    model = tiny("gpt2")
    geometry = read_geometry(model)
    spec = LoraSpec(r=2, target_modules=resolve_targets(geometry, targets, r=2))
    ends = (".c_attn", ".c_proj", ".c_fc") if targets == ("all-linear",) else tuple(f".{t}" for t in targets)
    assert attached(attach_method(model, spec, seed=0)) == {m.name for m in geometry.matrices if m.name.endswith(ends)}


@pytest.mark.parametrize("family", ["vit", "bert", "llama", "gpt2"])
@pytest.mark.parametrize("targets", [("q", "v"), ("o",), ("down",), ("o", "down"), ("all-linear",)])
def test_resolved_targets_resolve_to_themselves(family: str, targets: tuple[str, ...]) -> None:
    geometry = geometry_of(family)
    once = resolve_targets(geometry, targets, r=1)
    assert resolve_targets(geometry, once, r=1) == once


@pytest.mark.parametrize("said", [("q", "v"), ("v", "q"), ("query", "value"), ("q_proj", "v_proj"), ("q_lin", "value", "q")])
@pytest.mark.parametrize(("family", "endings"), [("vit", ("q_proj", "v_proj")), ("bert", ("query", "value"))])
def test_roles_and_other_families_names_resolve_to_one_spelling(
    family: str, endings: tuple[str, ...], said: tuple[str, ...]
) -> None:
    assert resolve_targets(geometry_of(family), said, r=1) == endings


def test_one_layer_is_targeted_by_its_full_name_alone() -> None:
    model = tiny("llama")
    name = "model.layers.1.self_attn.v_proj"
    targets = resolve_targets(read_geometry(model), [name], r=2)
    assert attached(attach_method(model, LoraSpec(r=2, target_modules=targets), seed=0)) == {name}


@pytest.mark.parametrize(
    ("family", "target"),
    [("vit", "gate"), ("vit", "rotor"), ("llama", "pooler"), ("gpt2", "gate"), ("llama", "proj")],
)
def test_a_target_that_names_nothing_is_refused_with_what_there_is(family: str, target: str) -> None:
    geometry = geometry_of(family)
    sentence = rf"^The target_modules parameter of MethodSpec must be among .*\. Got '{target}'\.$"
    with pytest.raises(SpecError, match=sentence) as refusal:
        resolve_targets(geometry, [target], r=1)
    offered = {"all-linear", *(m.name.rsplit(".", 1)[-1] for m in geometry.matrices)}
    assert all(name in str(refusal.value) for name in offered)


def test_r_may_reach_the_rank_of_the_smallest_named_matrix_and_not_pass_it() -> None:
    geometry = geometry_of("llama")
    assert resolve_targets(geometry, ["q", "v"], r=8) == ("q_proj", "v_proj")
    sentence = (
        r"r parameter of MethodSpec must be an int in 1\.\.min\(d_in, d_out\)=8 of model\.layers\.0\.self_attn\.v_proj\. Got 9\."
    )
    with pytest.raises(SpecError, match=sentence):
        resolve_targets(geometry, ["q", "v"], r=9)


def test_all_linear_takes_any_r() -> None:
    assert resolve_targets(geometry_of("llama"), ["q", "all-linear"], r=4096) == ("all-linear",)


@pytest.mark.parametrize(
    ("name", "role", "layer", "label"),
    [
        ("model.layers.11.mlp.experts.3.gate_proj", "gate", 11, "layer 11 · gate"),
        ("distilbert.transformer.layer.4.attention.out_lin", "o", 4, "layer 4 · o"),
        ("bert.encoder.layer.0.output.dense", "down", 0, "layer 0 · down"),
        ("bert.pooler.dense", "pooler", None, "pooler"),
        ("transformer.h.0.attn.c_attn", "qkv", 0, "layer 0 · qkv"),
        ("model.layers.2.self_attn.my_q_proj", "other", 2, "layer 2 · my_q_proj"),
        ("score", "head", None, "head"),
    ],
)
def test_a_name_tells_role_layer_and_label(name: str, role: str, layer: int | None, label: str) -> None:
    assert (role_of(name), layer_of(name), label_of(name)) == (role, layer, label)


BLOCKS = {
    "bert": "q k v o up down",
    "roberta": "q k v o up down",
    "deberta-v2": "q k v o up down",
    "distilbert": "q k v o up down",
    "gpt2": "qkv o up down",
    "gpt_bigcode": "qkv o up down",
    "gpt_neox": "qkv o up down",
    "falcon": "qkv o up down",
    "bloom": "qkv o up down",
    "mpt": "qkv o up down",
    "opt": "k v q o up down",
    "llama": "q k v o gate up down",
    "mistral": "q k v o gate up down",
    "mixtral": "q k v o gate_up down",
    "qwen2": "q k v o gate up down",
    "qwen3": "q k v o gate up down",
    "qwen3_moe": "q k v o gate_up down",
    "gpt_oss": "q k v o gate_up down",
    "gemma": "q k v o gate up down",
    "gemma2": "q k v o gate up down",
    "gemma3_text": "q k v o gate up down",
    "phi": "q k v o up down",
    "phi3": "o qkv gate_up down",
    "t5": "q k v o up down",
    "vit": "q k v o up down",
}


@pytest.mark.parametrize("family", TINY)
def test_every_matrix_of_every_family_has_a_role(family: str) -> None:
    geometry = read_geometry(tiny_model(family))
    first = [m.role for m in geometry.matrices if m.name.startswith(f"{geometry.blocks[0].stack}.")]
    assert sorted(first) == sorted(BLOCKS[family].split())
    assert {m.role for m in geometry.matrices if m.layer is None} <= {"head", "pooler"}


@pytest.mark.parametrize("family", TINY)
def test_every_parameter_of_every_family_is_counted_once(family: str) -> None:
    model = tiny_model(family)
    geometry = read_geometry(model)
    assert geometry.total_params == model.num_parameters()


@pytest.mark.parametrize("tied", [False, True])
def test_a_tied_head_is_the_embeddings_and_counts_no_second_time(tied: bool) -> None:
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**_LLAMA.to_diff_dict() | {"tie_word_embeddings": tied}))
    geometry = read_geometry(model)
    head = geometry.matrices[-1]
    assert (head.name, head.tied, head.params) == ("lm_head", tied, 0 if tied else 40 * 16)
    assert geometry.total_params == model.num_parameters()


@pytest.mark.parametrize(
    ("family", "gate_up", "down"),
    [("mixtral", (80, 24), (24, 40)), ("qwen3_moe", (24, 24), (24, 12)), ("gpt_oss", (80, 24), (24, 40))],
)
def test_experts_of_a_layer_are_one_matrix_of_one_shape(family: str, gate_up: tuple[int, int], down: tuple[int, int]) -> None:
    experts = [m for m in read_geometry(tiny_model(family)).block() if m.kind == "experts"]
    assert [(m.role, (m.d_out, m.d_in), m.experts) for m in experts] == [("gate_up", gate_up, 4), ("down", down, 4)]
    assert experts[0].params == 4 * gate_up[0] * gate_up[1]


def test_gate_and_up_of_experts_name_what_holds_both_and_all_linear_none_of_them() -> None:
    geometry = read_geometry(tiny_model("mixtral"))
    assert geometry.targeted(["gate"]) == geometry.targeted(["up"]) == geometry.targeted(["gate_up"])
    assert all(m.kind == "linear" for m in geometry.targeted(["all-linear"]))


@pytest.mark.parametrize("picked", ["q", "k", "o", "up"])
@pytest.mark.parametrize("targets", [(), ("q_proj",), ("q", "v"), ("all-linear",), ("model.layers.0.self_attn.q_proj",)])
def test_a_matrix_picked_changes_whether_it_is_targeted_and_nothing_else(targets: tuple[str, ...], picked: str) -> None:
    geometry = geometry_of("llama")
    before, here = set(geometry.targeted(targets)), set(geometry.matching(picked))
    after = set(geometry.targeted(geometry.toggled(targets, picked)))
    assert after == (before - here if here <= before else before | here)


def test_what_has_no_role_is_called_by_its_path_within_the_layer() -> None:
    assert Matrix("h.0.attn.c_attn", "other", 0, 12, 4).short_name == "attn.c_attn"
    assert [m.short_name for m in geometry_of("llama").block()] == ["q", "k", "v", "o", "gate", "up", "down"]


def test_targets_may_be_kept_to_some_layers() -> None:
    geometry = geometry_of("llama")
    assert [m.name for m in geometry.targeted(["q"], (1,))] == ["model.layers.1.self_attn.q_proj"]
    with pytest.raises(SpecError, match=r"layers_to_transform parameter of MethodSpec must be in 0\.\.1 and hold a target"):
        geometry.targeted(["q"], (2,))


def test_the_top_layers_are_the_last_or_those_named() -> None:
    geometry = read_geometry(tiny_model("t5"))
    assert geometry.top_layers(1) == ("decoder.block.1",)
    assert geometry.top_layers(3) == ("encoder.block.1", "decoder.block.0", "decoder.block.1")
    assert geometry.top_layers(1, (0,)) == ("encoder.block.0", "decoder.block.0")
    with pytest.raises(SpecError, match="layers_to_transform"):
        geometry.top_layers(1, (5,))


def test_an_encoder_with_a_decoder_is_told_from_either_alone() -> None:
    assert [family for family in TINY if read_geometry(tiny_model(family)).is_encoder_decoder] == ["t5"]


@pytest.mark.parametrize("width", [8, 16])
def test_the_width_of_a_token_is_that_of_its_embedding(width: int) -> None:
    with torch.device("meta"):
        model = AlbertModel(AlbertConfig(**{**_BERT, "embedding_size": width}))
    assert read_geometry(model).token_width == width


def test_a_model_without_layers_has_no_block() -> None:
    geometry = read_geometry(nn.Sequential())
    assert (geometry.matrices, geometry.block(), geometry.total_params) == ((), (), 0)


@pytest.mark.parametrize(("d_out", "d_in"), [(8, 16), (16, 8)])
def test_a_full_update_has_the_rank_of_the_smaller_side(d_out: int, d_in: int) -> None:
    assert Matrix("q", "q", 0, d_out, d_in).max_r == 8
