"""What attach_method promises: this and nothing else is trained, as the closed form counts it, and at the start nothing changed."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    LlamaConfig,
    LlamaForSequenceClassification,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from lora_lab.budget import head_params, method_params
from lora_lab.errors import SpecError
from lora_lab.live_geometry import read_geometry
from lora_lab.methods import attach_method, trainable_params
from lora_lab.methods.tiny import TINY, tiny_model
from lora_lab.roles import layer_of
from lora_lab.specs import COMBINED, LORA_KIN, MethodSpec

MIXTURES = ("mixtral", "qwen3_moe", "gpt_oss")
ALONE = tuple(method for method in LORA_KIN if method not in COMBINED)
LORA = ("lora", "rslora", "lora+", "qlora")
BOTTLENECKS = ("adapter", "adapter_pfeiffer")
TOKENS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])


def spec(method: str = "lora", r: int = 3, **fields: object) -> MethodSpec:
    return MethodSpec(method=method, r=r, **fields)


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def assert_counted(family: str, said: MethodSpec) -> nn.Module:
    """The closed form and the attached parameters agree."""
    model = tiny_model(family)
    expected = method_params(read_geometry(model), said)
    attached = attach_method(model, said)
    assert trainable_params(attached) == (expected, 0)
    return attached


def refusal(family: str, said: MethodSpec) -> str:
    with pytest.raises(SpecError) as refused:
        attach_method(tiny_model(family), said)
    return str(refused.value)


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        found: Tensor = model.eval()(input_ids=TOKENS).logits
    return found


@pytest.mark.parametrize("method", ["lora", "dora", "vera", "adalora", "ia3"])
@pytest.mark.parametrize(
    "targets", [("all-linear",), ("q", "k", "v", "o"), ("o",), ("up",), ("down",), ("q", "down")], ids="-".join
)
@pytest.mark.parametrize("family", [family for family in TINY if family not in MIXTURES])
def test_roles_and_all_linear_are_counted_on_every_family(family: str, targets: tuple[str, ...], method: str) -> None:
    assert_counted(family, spec(method, target_modules=targets))


@pytest.mark.parametrize("method", ["lora", "dora", "vera", "adalora"])
@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("gpt2", "c_attn"),
        ("phi3", "qkv_proj"),
        ("phi3", "gate_up_proj"),
        ("falcon", "query_key_value"),
        ("mpt", "Wqkv"),
        ("bert", "query"),
        ("t5", "EncDecAttention.v"),
        ("deberta-v2", "attention.output.dense"),
    ],
)
def test_a_familys_own_names_are_counted(family: str, name: str, method: str) -> None:
    model = assert_counted(family, spec(method, target_modules=(name,)))
    assert all(f".{name}." in path for path in trained(model))


def test_a_role_of_a_fused_matrix_adapts_the_matrix_that_holds_it() -> None:
    assert (
        trained(assert_counted("phi3", spec(target_modules=("q",)))).keys()
        == trained(assert_counted("phi3", spec(target_modules=("qkv_proj",)))).keys()
    )


@pytest.mark.parametrize("method", LORA)
@pytest.mark.parametrize(
    "targets", [("all-linear",), ("gate", "up"), ("down",), ("q", "v", "up", "down"), ("gate_up_proj",)], ids="-".join
)
@pytest.mark.parametrize("family", MIXTURES)
def test_lora_has_factors_for_each_expert(family: str, targets: tuple[str, ...], method: str) -> None:
    assert_counted(family, spec(method, target_modules=targets))


def test_all_linear_leaves_the_experts_as_they_are() -> None:
    assert not any("experts" in name for name in trained(assert_counted("mixtral", spec(target_modules=("all-linear",)))))


@pytest.mark.parametrize("method", ["dora", "vera", "adalora", "ia3"])
def test_what_peft_knows_of_linear_modules_alone_is_refused_on_experts(method: str) -> None:
    said = refusal("qwen3_moe", spec(method, target_modules=("q", "down")))
    assert "model.layers.0.mlp.experts.down_proj is one 3-D parameter of all experts" in said
    assert_counted("qwen3_moe", spec(method, target_modules=("q", "k", "v", "o")))


def test_dropout_on_experts_is_refused() -> None:
    assert refusal("mixtral", spec(target_modules=("down",), lora_dropout=0.1)) == (
        "PEFT's LoRA of 3-D experts works with lora_dropout = 0 alone."
    )


def test_targets_that_peft_would_exchange_for_others_are_refused() -> None:
    """PEFT takes gate_proj of a Qwen MoE for its experts of old, though one layer here is dense and has such a matrix."""
    with torch.device("meta"):
        model = Qwen3MoeForCausalLM(Qwen3MoeConfig(**TINY["qwen3_moe"][1], mlp_only_layers=[0]))
    with pytest.raises(SpecError, match="PEFT"):
        attach_method(model, spec(target_modules=("model.layers.0.mlp.down_proj",)))


@pytest.mark.parametrize("method", [*ALONE, "ia3", "ln_tuning", "adapter", "adapter_pfeiffer", "partial", "bitfit"])
@pytest.mark.parametrize("family", ["bert", "gpt2", "qwen2", "phi"])
@pytest.mark.parametrize("layers", [(0,), (1,), (0, 1)], ids=str)
def test_layers_to_transform_keeps_the_method_to_these_layers(family: str, method: str, layers: tuple[int, ...]) -> None:
    model = assert_counted(family, spec(method, r=1, layers_to_transform=layers))
    assert {layer_of(name) for name in trained(model)} == set(layers)


@pytest.mark.parametrize("method", COMBINED)
def test_in_a_combination_layers_and_biases_are_loras(method: str) -> None:
    said = spec(method, r=1, layers_to_transform=(1,), bias="lora_only", num_virtual_tokens=5)
    model = assert_counted("bert", said)
    lora = {name for name in trained(model) if "prompt_encoder" not in name}
    assert {layer_of(name) for name in lora} == {1}
    assert {name.rsplit(".", 1)[-1] for name in lora} == {"weight", "bias"}
    assert trained(model).keys() - lora


def test_layers_to_transform_means_both_stacks_of_an_encoder_and_decoder() -> None:
    model = assert_counted("t5", spec(layers_to_transform=(1,)))
    assert {name.split(".")[2] for name in trained(model)} == {"encoder", "decoder"}


def test_a_layer_that_is_not_there_is_refused() -> None:
    assert "layers_to_transform parameter of MethodSpec must be in 0..1" in refusal("llama", spec(layers_to_transform=(7,)))


@pytest.mark.parametrize("method", [*LORA, "dora"])
@pytest.mark.parametrize(
    "pattern", [(("v_proj", 7),), ((r".*layers\.1.*", 1),), (("self_attn.q_proj", 5), (r"layers\.0\..*", 2))], ids=str
)
def test_rank_pattern_gives_modules_ranks_of_their_own(method: str, pattern: tuple[tuple[str, int], ...]) -> None:
    model = assert_counted("llama", spec(method, rank_pattern=pattern))
    ranks = {p.shape[0] for name, p in trained(model).items() if "lora_A" in name}
    assert ranks > {3} or ranks == {5, 2}


def test_rank_pattern_reaches_experts() -> None:
    assert_counted("mixtral", spec(target_modules=("q", "down"), rank_pattern=(("down_proj", 5),)))


def test_a_rank_pattern_that_matches_no_target_is_refused() -> None:
    assert "rank_pattern parameter of MethodSpec must be made of patterns that match a target each. Got 'o_proj'." in refusal(
        "llama", spec(rank_pattern=(("o_proj", 4),))
    )


@pytest.mark.parametrize("bias", ["none", "all", "lora_only"])
@pytest.mark.parametrize("method", ALONE)
@pytest.mark.parametrize("family", ["bert", "gpt2", "qwen2", "falcon", "gpt_oss", "phi", "deberta-v2"])
def test_biases_are_counted(family: str, method: str, bias: str) -> None:
    assert_counted(family, spec(method, bias=bias))


def test_all_biases_are_those_of_the_base_and_none_of_a_heads_original() -> None:
    model, said = tiny_model("bert"), spec(bias="all")
    geometry = read_geometry(model)
    attached = attach_method(model, said, head_modules=("classifier",), task_type="SEQ_CLS")
    assert trainable_params(attached)[0] == method_params(geometry, said) + head_params(geometry, ("classifier",))
    assert not any("original_module" in name for name in trained(attached))


@pytest.mark.parametrize(
    ("method", "fields", "parameter"),
    [
        ("ia3", {"bias": "all"}, "bias"),
        ("adapter", {"bias": "lora_only"}, "bias"),
        ("vera", {"rank_pattern": (("q_proj", 2),)}, "rank_pattern"),
        ("adalora", {"rank_pattern": (("q_proj", 2),)}, "rank_pattern"),
        ("prefix", {"layers_to_transform": (0,)}, "layers_to_transform"),
        ("full", {"layers_to_transform": (0,)}, "layers_to_transform"),
    ],
)
def test_a_field_that_a_method_has_no_use_for_is_refused(method: str, fields: dict[str, object], parameter: str) -> None:
    assert refusal("llama", spec(method, **fields)).startswith(f"The {parameter} parameter of MethodSpec must be")


@pytest.mark.parametrize("method", ["lora", "dora", "vera", "adalora", "ia3", "prefix", "preembed", "adapter"])
@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_what_a_method_adds_to_a_bf16_base_is_fp32_unless_said_otherwise(method: str, device: str) -> None:
    def dtypes(adapter_dtype: torch.dtype | None) -> set[torch.dtype]:
        base = tiny_model("llama", device=device, dtype=torch.bfloat16)
        return {p.dtype for p in trained(attach_method(base, spec(method), adapter_dtype=adapter_dtype)).values()}

    assert dtypes(None) == {torch.float32}
    assert dtypes(torch.bfloat16) == {torch.bfloat16}


@pytest.mark.parametrize("method", ["ln_tuning", "partial", "full"])
def test_what_is_the_bases_own_stays_as_the_base_is(method: str) -> None:
    base = tiny_model("llama", dtype=torch.bfloat16)
    model = attach_method(base, spec(method), adapter_dtype=torch.float32)
    assert {p.dtype for p in trained(model).values()} == {torch.bfloat16}


@pytest.mark.parametrize("method", BOTTLENECKS)
@pytest.mark.parametrize("family", ["bert", "gpt2", "falcon", "llama", "mixtral", "opt", "phi"])
def test_a_bottleneck_starts_as_the_identity_and_learns(family: str, method: str) -> None:
    torch.manual_seed(0)
    base = tiny_model(family, device="cpu")
    adapted = attach_method(copy.deepcopy(base), spec(method))
    assert torch.equal(logits(adapted), logits(base))
    adapted(input_ids=TOKENS).logits.pow(2).sum().backward()
    up = [p.grad for name, p in trained(adapted).items() if ".bottleneck.up." in name]
    assert len(up) == 2 * 2 * len({"adapter": "ab", "adapter_pfeiffer": "a"}[method])  # weight and bias, two layers
    assert all(gradient is not None and gradient.any() for gradient in up)


def test_a_bottleneck_is_what_the_paper_writes() -> None:
    torch.manual_seed(0)
    model = attach_method(tiny_model("llama", device="cpu"), spec("adapter_pfeiffer", r=5))
    down_proj = model.get_submodule("model.layers.0.mlp.down_proj")
    bottleneck = down_proj.bottleneck
    nn.init.normal_(bottleneck.up.weight)
    x = torch.randn(3, 40)
    plain = nn.functional.linear(x, down_proj.weight)
    expected = plain + bottleneck.up(nn.functional.gelu(bottleneck.down(plain)))
    assert torch.allclose(down_proj(x), expected, atol=1e-6)
    assert (bottleneck.down.weight.shape, bottleneck.up.weight.shape) == ((5, 24), (24, 5))


def test_houlsby_adds_after_attention_and_mlp_and_pfeiffer_after_the_mlp() -> None:
    def places(method: str) -> set[str]:
        names = trained(attach_method(tiny_model("t5"), spec(method)))
        return {name.split(".bottleneck")[0].split("layer.", 1)[1] for name in names if ".1.layer" in name and "decoder" in name}

    assert places("adapter") == {"0.SelfAttention.o", "2.DenseReluDense.wo"}
    assert places("adapter_pfeiffer") == {"2.DenseReluDense.wo"}


def test_experts_share_one_bottleneck_behind_them() -> None:
    names = trained(attach_method(tiny_model("mixtral"), spec("adapter_pfeiffer", layers_to_transform=(0,))))
    assert {name.split(".bottleneck")[0] for name in names} == {"model.layers.0.mlp.experts"}


@pytest.mark.parametrize(
    ("method", "is_trained"),
    [
        ("full", lambda name: not name.startswith("classifier.")),
        ("partial", lambda name: ".layer.1." in name),
        ("bitfit", lambda name: name.endswith(".bias") and not name.startswith("classifier.")),
    ],
)
def test_methods_in_place_train_exactly_what_they_say(method: str, is_trained: Callable[[str], bool]) -> None:
    model = attach_method(tiny_model("bert"), spec(method, r=1))
    assert trained(model).keys() == {name for name, _ in model.named_parameters() if is_trained(name)}


def test_top_layers_counts_from_the_last() -> None:
    assert {layer_of(name) for name in trained(assert_counted("llama", spec("partial", r=1)))} == {1}
    assert {layer_of(name) for name in trained(assert_counted("llama", spec("partial", r=9)))} == {0, 1}


def test_a_tied_embedding_is_trained_once() -> None:
    model = tiny_model("gpt2")
    assert trainable_params(attach_method(model, spec("full"))) == (model.num_parameters(), 0)


def test_a_masked_language_models_head_shares_its_bias() -> None:
    config = BertConfig(**TINY["bert"][1])
    with torch.device("meta"):
        model = BertForMaskedLM(config)
    geometry = read_geometry(model)
    assert geometry.total_params == model.num_parameters()
    assert trainable_params(attach_method(model, spec("bitfit")))[0] == method_params(geometry, spec("bitfit"))


@pytest.mark.parametrize("method", ["lora", "ln_tuning", "prefix", "preembed", "adapter", "bitfit", "full"])
def test_a_head_is_trained_where_it_is_named_and_nowhere_else(method: str) -> None:
    for heads in ((), ("classifier",)):
        model = attach_method(tiny_model("bert"), spec(method), head_modules=heads, task_type="SEQ_CLS")
        in_head = {name for name in trained(model) if "classifier" in name}
        assert len(in_head) == 2 * len(heads)


def test_a_decoder_with_a_head_for_labels_takes_a_prefix_and_trains_its_score() -> None:
    with torch.device("meta"):
        model = LlamaForSequenceClassification(LlamaConfig(**TINY["llama"][1], num_labels=5))
    geometry, said = read_geometry(model), spec("prefix")
    attached = attach_method(model, said, head_modules=("score",), task_type="SEQ_CLS")
    assert trainable_params(attached) == (method_params(geometry, said) + 5 * 24, 5 * 24)


@pytest.mark.parametrize("method", ["lora", "rslora", "lora+", "dora", "adalora", "vera", "qlora"])
def test_lora_and_its_kin_change_nothing_at_the_start(method: str) -> None:
    torch.manual_seed(0)
    base = tiny_model("llama", device="cpu")
    assert torch.allclose(logits(attach_method(copy.deepcopy(base), spec(method))), logits(base), atol=1e-5)


@pytest.mark.parametrize("method", ["lora", "ia3", "prefix", "adapter", "bitfit"])
def test_attaching_leaves_the_spec_as_it_was(method: str) -> None:
    said = spec(method, target_modules=("q", "v")) if method == "lora" else spec(method)
    before = repr(said)
    attach_method(tiny_model("qwen2"), said)
    assert repr(said) == before


def test_what_peft_refuses_is_one_sentence_with_its_reason() -> None:
    model = tiny_model("llama", device="cpu")
    for module in model.modules():
        if hasattr(module, "gradient_checkpointing"):
            module.gradient_checkpointing = True
    with pytest.raises(SpecError, match=r"^PEFT attaches no PREFIX_TUNING to LlamaForCausalLM: .* gradient checkpointing\.$"):
        attach_method(model, spec("prefix"))


def test_a_base_without_norms_or_a_config_is_refused_in_words() -> None:
    bare = nn.Sequential(nn.Linear(4, 4, bias=False))
    for method, reason in (
        ("ln_tuning", "has none"),
        ("bitfit", "has none"),
        ("adapter", "a model with a hidden_size"),
        ("prefix", "takes none"),
    ):
        with pytest.raises(SpecError, match=reason):
            attach_method(bare, spec(method))
