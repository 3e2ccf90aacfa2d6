"""What attach promises: ΔW = 0, the base untouched, and an initialisation keyed by (seed, r, module) alone."""

import copy

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification, ViTForImageClassification

from lora_lab.adapters import from_model
from lora_lab.benches.digits import base_config
from lora_lab.methods import attach_method, to_peft, trainable_params
from lora_lab.specs import LoraSpec, MethodSpec

_BERT = BertConfig(
    vocab_size=40,
    hidden_size=64,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=96,
    max_position_embeddings=20,
    num_labels=10,
)
QUERY, VALUE = "vit.layers.0.attention.q_proj", "vit.layers.0.attention.v_proj"


def spec(r: int = 4, *targets: str, **fields: object) -> MethodSpec:
    return LoraSpec(r=r, target_modules=targets or ("q_proj", "v_proj"), **fields)


def vit() -> nn.Module:
    return ViTForImageClassification(base_config())


def bert(*, seed: int = 0, r: int = 4) -> PeftModel:
    """A tiny BERT whose classifier is trained in full beside the adapter."""
    model = BertForSequenceClassification(_BERT)
    return attach_method(model, spec(r, "query"), seed=seed, head_modules=("classifier",), task_type="SEQ_CLS")


def lora_a(lora: MethodSpec, *, seed: int = 0) -> dict[str, Tensor]:
    """The start values of every A."""
    return {name: delta.lora_a for name, delta in from_model(attach_method(vit(), lora, seed=seed)).items()}


def correlation(first: Tensor, second: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([first.detach().flatten(), second.detach().flatten()]))[0, 1])


@pytest.mark.parametrize(
    "lora",
    [spec(1), spec(8), spec(4, "all-linear"), spec(4, use_rslora=True, lora_alpha=64), spec(4, lora_dropout=0.5), spec(64)],
    ids=["r1", "r8", "all-linear", "rslora", "dropout", "full-rank"],
)
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_at_the_start_the_adapted_model_is_the_base_bit_for_bit(digits_base: nn.Module, lora: MethodSpec, training: bool) -> None:
    images = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    adapted = attach_method(copy.deepcopy(digits_base), lora, seed=3)
    with torch.no_grad():
        assert torch.equal(adapted.train(training)(images).logits, digits_base.train(training)(images).logits)
    assert {delta.numerical_rank for delta in from_model(adapted).values()} == {0}


def test_attaching_leaves_the_weights_of_the_base_as_they_were(digits_base: nn.Module) -> None:
    before = {name: weight.clone() for name, weight in digits_base.state_dict().items()}
    adapted = attach_method(digits_base, spec(4, "all-linear"), seed=0)
    after = {name.replace(".base_layer", ""): w for name, w in adapted.base_model.model.state_dict().items() if "lora_" not in name}
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_one_key_gives_one_a_whatever_the_global_stream_does() -> None:
    torch.manual_seed(1)
    first = lora_a(spec(), seed=7)
    torch.manual_seed(2)
    second = lora_a(spec(), seed=7)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("lora", [spec(lora_alpha=1.0), spec(lora_dropout=0.3), spec(use_rslora=True), spec(4, "q_proj", "fc1")])
def test_a_depends_on_nothing_but_seed_r_and_module(lora: MethodSpec) -> None:
    assert torch.equal(lora_a(lora)[QUERY], lora_a(spec())[QUERY])


def test_the_a_of_a_small_rank_is_not_the_first_rows_of_a_larger_one() -> None:
    small, large = lora_a(spec(8))[QUERY], lora_a(spec(64))[QUERY]
    assert abs(correlation(small, large[:8])) < 0.2  # 512 numbers: one standard deviation is 0.044


def test_modules_and_seeds_draw_from_streams_of_their_own() -> None:
    first, other_seed = lora_a(spec(16), seed=0), lora_a(spec(16), seed=1)
    for second in (first[VALUE], other_seed[QUERY], first["vit.layers.1.attention.q_proj"]):
        assert abs(correlation(first[QUERY], second)) < 0.15  # 1,024 numbers: one standard deviation is 0.031


def test_attach_leaves_the_global_stream_as_it_was() -> None:
    base = vit()
    before = torch.get_rng_state()
    attach_method(base, spec(), seed=0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("target", "d_in"), [("q_proj", 64), ("fc2", 160)])
def test_a_has_pefts_own_distribution(target: str, d_in: int) -> None:
    """Kaiming's uniform with a = √5: within ±1/√d_in, standard deviation 1/√(3 d_in)."""
    ours = torch.stack(list(lora_a(spec(64, target)).values()))
    torch.manual_seed(0)
    theirs = torch.stack([delta.lora_a for delta in from_model(get_peft_model(vit(), to_peft(spec(64, target)))).values()])
    for drawn in (ours, theirs):
        assert 0.99 * d_in**-0.5 < float(drawn.abs().max()) <= d_in**-0.5
        assert float(drawn.std()) == pytest.approx((3 * d_in) ** -0.5, rel=0.03)
        assert abs(float(drawn.mean())) < 4 * float(drawn.std()) / drawn.numel() ** 0.5


def test_only_adapter_and_head_are_trained() -> None:
    model = bert()
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {name for name, _ in model.named_parameters() if "lora_" in name or "classifier.modules_to_save" in name}
    assert trainable_params(model) == (4 * (64 + 64) + 64 * 10 + 10, 64 * 10 + 10)


def test_without_head_modules_the_head_stays_frozen() -> None:
    model = attach_method(vit(), spec(4, "q_proj"), seed=0)
    assert all("lora_" in name for name, p in model.named_parameters() if p.requires_grad)
    assert trainable_params(model) == (4 * 4 * (64 + 64), 0)


def head(model: PeftModel) -> nn.Linear:
    return model.base_model.model.classifier.modules_to_save["default"]


def test_the_head_is_drawn_from_the_seed_and_is_the_same_for_every_r() -> None:
    drawn = head(bert(seed=0)).weight
    assert torch.equal(drawn, head(bert(seed=0, r=32)).weight)
    assert abs(correlation(drawn, head(bert(seed=1)).weight)) < 0.2  # 640 numbers: one standard deviation is 0.040


def test_the_head_is_drawn_as_transformers_draws_it() -> None:
    drawn = head(bert())
    assert float(drawn.weight.detach().std()) == pytest.approx(0.02, rel=0.1)
    assert not drawn.bias.any()
