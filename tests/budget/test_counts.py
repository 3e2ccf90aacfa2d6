"""Two independent counts must agree: the formula on shapes, and the parameters that PEFT attached."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    ViTForImageClassification,
)

from lora_lab.benches.digits import base_config
from lora_lab.budget import count_terms, head_params, lora_params, method_params
from lora_lab.errors import SpecError
from lora_lab.geometry import resolve_targets
from lora_lab.live_geometry import read_geometry
from lora_lab.methods import attach_method, trainable_params
from lora_lab.methods.tiny import TINY, tiny_model
from lora_lab.specs import METHODS, LoraSpec, MethodSpec

_BERT = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 56,
    "max_position_embeddings": 20,
    "num_labels": 5,
}
_LLAMA = LlamaConfig(
    vocab_size=40,
    hidden_size=24,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=4,  # q is (16, 24), k and v are (8, 24)
    intermediate_size=40,
    num_labels=5,
    pad_token_id=0,
)
_GPT2 = GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2, n_positions=20, bos_token_id=0, eos_token_id=0)
_DISTILBERT = DistilBertConfig(vocab_size=40, dim=16, n_layers=2, n_heads=2, hidden_dim=56, num_labels=5)
FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "vit": lambda: ViTForImageClassification(base_config()),
    "bert": lambda: BertForSequenceClassification(BertConfig(**_BERT)),
    "roberta": lambda: RobertaForSequenceClassification(RobertaConfig(**_BERT)),
    "distilbert": lambda: DistilBertForSequenceClassification(_DISTILBERT),
    "llama": lambda: LlamaForCausalLM(_LLAMA),
    "llama-classifier": lambda: LlamaForSequenceClassification(_LLAMA),
    "gpt2": lambda: GPT2LMHeadModel(_GPT2),
}
HEADS = {
    "bert": ("classifier",),
    "roberta": ("classifier",),
    "distilbert": ("pre_classifier", "classifier"),
    "llama-classifier": ("score",),
}
GROUPS = [("q",), ("q", "v"), ("q", "k", "v", "o"), ("up", "down"), ("all-linear",)]
CASES = [(family, targets) for family in FAMILIES for targets in GROUPS]
CASES += [("gpt2", ("c_attn",)), ("gpt2", ("c_attn", "c_proj", "c_fc"))]


def tiny(family: str) -> nn.Module:
    with torch.device("meta"):
        return FAMILIES[family]()


@pytest.mark.parametrize("r", [1, 8])
@pytest.mark.parametrize(("family", "targets"), CASES)
@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
def test_the_formula_counts_what_peft_attached(family: str, targets: tuple[str, ...], r: int) -> None:
    model, heads = tiny(family), HEADS.get(family, ())
    geometry = read_geometry(model)
    spec = LoraSpec(r=r, target_modules=resolve_targets(geometry, targets, r=r))
    peft_model = attach_method(model, spec, seed=0, head_modules=heads, task_type="SEQ_CLS" if heads else None)
    attached, _ = peft_model.get_nb_trainable_parameters()
    in_head = sum(p.numel() for name, p in peft_model.named_parameters() if "modules_to_save" in name)
    assert lora_params(geometry, targets, r=r) == attached - in_head
    assert trainable_params(peft_model) == (attached, in_head)


@pytest.mark.parametrize(("family", "heads"), HEADS.items())
def test_head_params_counts_the_modules_that_peft_saves_whole(family: str, heads: tuple[str, ...]) -> None:
    model = tiny(family)
    geometry = read_geometry(model)
    spec = LoraSpec(r=1, target_modules=resolve_targets(geometry, ["q"], r=1))
    _, in_head = trainable_params(attach_method(model, spec, seed=0, head_modules=heads, task_type="SEQ_CLS"))
    assert head_params(geometry, heads) == in_head > 0


def test_a_base_that_keeps_its_head_has_none_to_count() -> None:
    assert head_params(read_geometry(tiny("vit")), ()) == 0


def test_one_matrix_named_twice_counts_once() -> None:
    geometry = read_geometry(tiny("llama"))
    assert lora_params(geometry, ["q", "q_proj"], r=4) == 4 * 2 * (16 + 24)  # r · layers · (d_out + d_in)


@pytest.mark.parametrize("family", TINY)
def test_the_arithmetic_of_every_term_gives_its_value(family: str) -> None:
    geometry = read_geometry(tiny_model(family))
    for method in METHODS:
        try:
            terms = count_terms(geometry, MethodSpec(method=method, r=3, bias="all" if method == "lora" else "none"))
        except SpecError:
            continue  # a base without biases has none to count
        assert all(eval(term.text.replace("·", "*")) == term.params > 0 for term in terms)


def test_a_lora_spec_counts_as_the_method_spec_that_says_the_same() -> None:
    geometry = read_geometry(tiny("llama"))
    said = LoraSpec(r=4, target_modules=("q", "v"))
    assert method_params(geometry, said) == method_params(geometry, said) == lora_params(geometry, ("q", "v"), r=4)


@pytest.mark.parametrize(
    ("method", "family", "params"),
    [
        ("prefix", "llama", 5 * 2 * 2 * (2 * 6)),  # tokens · layers · (keys and values) · two key-value heads of 6
        ("prefix", "falcon", 5 * 2 * 2 * (1 * 8)),  # one head that all queries share
        ("prefix", "t5", 5 * 2 * 2 * (2 * 4)),  # heads of 4 on a width of 16
        ("preembed", "llama", 5 * 24),
        ("preembed", "t5", 2 * 5 * 16),  # the encoder's tokens and the decoder's
        ("prelayer", "llama", 5 * 2 * 24),
        ("adapter", "llama", 2 * 2 * (2 * 24 * 5 + 5 + 24)),
        ("adapter_pfeiffer", "t5", 4 * (2 * 16 * 5 + 5 + 16)),
        ("ia3", "llama", 2 * (12 + 12 + 40)),  # outputs of k and of v, inputs of down
        ("ln_tuning", "bert", (1 + 2 * 2) * 2 * 16),
        ("vera", "llama", 2 * ((5 + 24) + (5 + 12))),
    ],
)
def test_a_count_worked_out_by_hand(method: str, family: str, params: int) -> None:
    assert method_params(read_geometry(tiny_model(family)), MethodSpec(method=method, r=5)) == params
