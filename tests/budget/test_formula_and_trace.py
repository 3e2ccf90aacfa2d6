"""Two computations that share no code: the closed form, and two real steps of the real model on the meta device."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from lora_lab.budget import PARTS, Ledger, Model, budget, find_model
from lora_lab.budget.formula import formula, peak_moment
from lora_lab.budget.trace import trace
from lora_lab.geometry import Matrix
from lora_lab.specs import MethodSpec, StepSpec

ALLOWED, ALLOWED_OF = 0.03, {"deberta-v2-xxlarge": 0.06}
ALL_LINEAR = ("all-linear",)
QLORA: dict[str, Any] = {"quant": "nf4-dq", "optimizer": "paged-adamw8bit", "adapter_dtype": "bf16"}
Cell = tuple[str, MethodSpec, dict[str, Any]]

# One family after another with LoRA on q and v, then what else may change, each on a family where it shows.
FAMILY_CELLS: dict[str, Cell] = {
    f"{model}{' checkpointed' if checkpointing else ''}": (model, MethodSpec(), {"checkpointing": checkpointing, "seq": seq})
    for model, seq in (
        ("llama-3.2-1b", 512),
        ("qwen2.5-0.5b", 256),
        ("qwen3-0.6b", 256),
        ("gemma-2-2b", 256),
        ("gemma-3-1b-it", 256),
        ("opt-1.3b", 512),
        ("pythia-1b", 512),
        ("phi-2", 256),
        ("falcon-7b", 256),
        ("bert-base-uncased", 256),
        ("roberta-base", 256),
        ("gpt2", 512),
        ("mixtral-8x7b-v0.1", 256),
        ("deberta-v2-xxlarge", 256),
    )
    for checkpointing in ((False, True) if model in ("llama-3.2-1b", "gemma-2-2b", "gpt2", "roberta-base") else (False,))
}
METHOD_CELLS: dict[str, Cell] = {
    "dora": ("pythia-1b", MethodSpec(method="dora"), {}),
    "dora with dropout": ("llama-3.2-1b", MethodSpec(method="dora", lora_dropout=0.1), {}),
    "vera": ("pythia-1b", MethodSpec(method="vera", r=256), {}),
    "adalora": ("gpt2", MethodSpec(method="adalora"), {}),
    "ia3": ("llama-3.2-1b", MethodSpec(method="ia3"), {}),
    "ln_tuning": ("opt-1.3b", MethodSpec(method="ln_tuning"), {}),
    "bitfit": ("gpt2", MethodSpec(method="bitfit"), {}),
    "adapter": ("bert-base-uncased", MethodSpec(method="adapter", r=64), {}),
    "adapter_pfeiffer": ("pythia-1b", MethodSpec(method="adapter_pfeiffer", r=64), {}),
    "prefix": ("gpt2", MethodSpec(method="prefix", r=16), {}),
    "preembed": ("llama-3.2-1b", MethodSpec(method="preembed", r=16), {}),
    "full": ("llama-3.2-1b", MethodSpec(method="full"), {}),
    "full checkpointed": ("gpt2", MethodSpec(method="full"), {"checkpointing": True}),
    "partial": ("pythia-1b", MethodSpec(method="partial", r=2), {}),
    "all-linear": ("llama-3.2-1b", MethodSpec(r=64, target_modules=ALL_LINEAR), {}),
    "all-linear checkpointed": ("gpt2", MethodSpec(r=64, target_modules=ALL_LINEAR), {"checkpointing": True}),
    "the way out of attention": ("opt-1.3b", MethodSpec(target_modules=("o",)), {}),
    "the way down": ("pythia-1b", MethodSpec(target_modules=("down",)), {}),
    "dropout": ("bert-base-uncased", MethodSpec(lora_dropout=0.1), {}),
    "two layers": ("pythia-1b", MethodSpec(layers_to_transform=(10, 11)), {}),
    "ranks of their own": ("gpt2", MethodSpec(target_modules=("q", "down"), rank_pattern=(("c_proj", 128),)), {}),
    "all biases": ("opt-1.3b", MethodSpec(bias="all"), {}),
}
STEP_CELLS: dict[str, Cell] = {
    "flash": ("llama-3.2-1b", MethodSpec(), {"attention": "flash"}),
    "eager": ("llama-3.2-1b", MethodSpec(), {"attention": "eager"}),
    "eager and checkpointed": ("opt-1.3b", MethodSpec(), {"attention": "eager", "checkpointing": True}),
    "int8": ("llama-3.2-1b", MethodSpec(), {"quant": "int8"}),
    "int8 of a Conv1D": ("gpt2", MethodSpec(target_modules=ALL_LINEAR), {"quant": "int8", "checkpointing": True}),
    "int8 before a ReLU": ("opt-1.3b", MethodSpec(), {"quant": "int8"}),
    "dora on nf4": ("llama-3.2-1b", MethodSpec(method="dora"), {"quant": "nf4"}),
    "experts": ("mixtral-8x7b-v0.1", MethodSpec(target_modules=("down",)), {"seq": 256}),
    "nf4 of a Conv1D": ("gpt2", MethodSpec(), {"quant": "nf4"}),
    "nf4": ("llama-3.2-1b", MethodSpec(target_modules=ALL_LINEAR), {"quant": "nf4"}),
    "qlora": ("llama-3.2-1b", MethodSpec(method="qlora", r=64, target_modules=ALL_LINEAR), {**QLORA, "checkpointing": True}),
    "prepared for k bits": ("llama-3.2-1b", MethodSpec(), {"quant": "nf4", "kbit_prepare": True, "dtype": "fp16"}),
    "adapters in bf16": ("llama-3.2-1b", MethodSpec(target_modules=ALL_LINEAR), {"adapter_dtype": "bf16"}),
    "8-bit optimizer": ("gpt2", MethodSpec(method="full"), {"optimizer": "adamw8bit"}),
    "adafactor": ("gpt2", MethodSpec(method="full"), {"optimizer": "adafactor"}),
    "sgd": ("gpt2", MethodSpec(method="full"), {"optimizer": "sgd"}),
    "fused loss": ("llama-3.2-1b", MethodSpec(), {"fused_loss": True}),
    "fused loss, checkpointed": ("qwen2.5-0.5b", MethodSpec(), {"fused_loss": True, "checkpointing": True}),
    "fp32": ("pythia-1b", MethodSpec(), {"dtype": "fp32"}),
    "one short sequence": ("llama-3.2-1b", MethodSpec(), {"batch": 1, "seq": 128}),
    "eight sequences": ("gpt2", MethodSpec(), {"batch": 8}),
    "a long sequence": ("llama-3.2-1b", MethodSpec(), {"batch": 1, "seq": 4096, "attention": "flash", "checkpointing": True}),
}
CELLS = {**FAMILY_CELLS, **METHOD_CELLS, **STEP_CELLS}


@cache
def both(cell: str) -> tuple[Ledger, Ledger]:
    """(by formula, by trace)"""
    name, spec, changes = CELLS[cell]
    model, step = find_model(name), StepSpec(**{"batch": 2, "seq": 512, **changes})
    return formula(model.geometry, spec, step), trace(model, spec, step)


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_formula_and_trace_agree_on_the_peak(cell: str) -> None:
    reckoned, traced = both(cell)
    assert reckoned.peak == pytest.approx(traced.peak, rel=ALLOWED_OF.get(CELLS[cell][0], ALLOWED))
    assert reckoned.weights == pytest.approx(traced.weights, rel=0.005)  # buffers, and blocks of 512
    assert all(type(getattr(traced, part)) is int and getattr(traced, part) >= 0 for part in PARTS)
    assert sum(getattr(traced, part) for part in PARTS) == traced.peak


@pytest.mark.slow
def test_an_image_model_is_reckoned_by_its_patches(tmp_path: Path) -> None:
    """ViT-Base: 196 patches and a class token."""
    config = {
        "architectures": ["ViTForImageClassification"],
        "model_type": "vit",
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "image_size": 224,
        "patch_size": 16,
        "id2label": {str(i): str(i) for i in range(1000)},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = find_model(str(tmp_path))
    assert model.geometry.total_params == 86_567_656
    for spec in (MethodSpec(r=16), MethodSpec(method="full")):
        step = StepSpec(batch=16, seq=197)
        assert formula(model.geometry, spec, step).peak == pytest.approx(trace(model, spec, step).peak, rel=ALLOWED)


def weights_of(model: Model, **step: Any) -> int:
    return formula(model.geometry, MethodSpec(), StepSpec(**step)).weights


def quantized(model: Model) -> list[Matrix]:
    """Linear layers inside the blocks: embeddings, norms and head stay 16-bit."""
    return [m for m in model.geometry.matrices if m.layer is not None and m.kind == "linear"]


@pytest.mark.parametrize("name", ["llama-3.2-1b", "pythia-1b", "mixtral-8x7b-v0.1", "deberta-v2-xxlarge", "gpt3-175b"])
def test_a_base_in_16_bit_weighs_two_bytes_a_parameter_exactly(name: str) -> None:
    model = find_model(name)
    assert weights_of(model) == weights_of(model, dtype="fp16") == 2 * model.geometry.total_params
    assert weights_of(model, dtype="fp32") == 4 * model.geometry.total_params


def test_a_traced_base_in_16_bit_weighs_two_bytes_a_parameter_too() -> None:
    """Every tensor of SmolLM2 fills whole blocks; the rest is a buffer of 32 rotary frequencies, twice."""
    model = find_model("smollm2-135m")
    assert 0 <= trace(model, MethodSpec(), StepSpec(seq=32)).weights - 2 * model.geometry.total_params <= 2 * 512 + 61 * 512


@pytest.mark.parametrize(("quant", "bits"), [("nf4", 4 + 32 / 64), ("nf4-dq", 4 + 8 / 64 + 32 / (64 * 256))])
@pytest.mark.parametrize("name", ["mistral-7b-v0.1", "llama-3.2-3b", "opt-1.3b"])
def test_nf4_weighs_these_bits_on_linear_layers_and_16_on_the_rest(name: str, quant: Any, bits: float) -> None:
    model = find_model(name)
    linear = sum(m.weight_params for m in quantized(model))
    by_hand = linear * bits / 8 + 2 * (model.geometry.total_params - linear)
    assert weights_of(model, quant=quant) == pytest.approx(by_hand, abs=len(quantized(model)) * 8)  # a last block each
    assert bits / 8 == pytest.approx({"nf4": 0.5625, "nf4-dq": 0.5159}[quant], abs=1e-4)


def test_nf4_quantized_twice_saves_what_was_measured() -> None:
    """1.48410 bytes a parameter on Mistral-7B."""
    model = find_model("mistral-7b-v0.1")
    linear = sum(m.weight_params for m in quantized(model))
    saved = weights_of(model) - weights_of(model, quant="nf4-dq")
    assert saved / linear == pytest.approx(1.4841, abs=2e-4)
    step = StepSpec(seq=16, quant="nf4-dq")
    small = find_model("smollm2-135m")
    assert trace(small, MethodSpec(), step).weights == pytest.approx(weights_of(small, quant="nf4-dq"), rel=2e-3)


def test_quantizing_leaves_experts_alone_and_says_so() -> None:
    model = find_model("mixtral-8x7b-v0.1")
    linear = sum(m.weight_params for m in quantized(model))
    assert linear < 0.05 * model.geometry.total_params
    saved = weights_of(model) - weights_of(model, quant="nf4")
    assert saved == pytest.approx(linear * (2 - 0.5625), rel=1e-3)
    assert any("experts" in note for note in budget("mixtral-8x7b-v0.1", "qlora").notes)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt2-medium", "smollm2-135m"])
def test_full_fine_tuning_peaks_at_ten_bytes_a_parameter_inside_the_optimizers_step(name: str) -> None:
    """Weight, gradient and two moments in bf16, and the roots of the second moments; little else is held by then."""
    model, spec = find_model(name), MethodSpec(method="full")
    step = StepSpec(seq=32, checkpointing=True, fused_loss=True)
    params = model.geometry.total_params
    assert peak_moment(model.geometry, spec, step) == "optimizer"
    assert formula(model.geometry, spec, step).peak == 10 * params
    traced = trace(model, spec, step)
    assert traced.peak == pytest.approx(10 * params, rel=0.02)
    assert traced.weights + traced.gradients + traced.optimizer == pytest.approx(10 * params, rel=0.02)


def test_each_target_keeps_its_own_copy_of_its_input() -> None:
    """Llama-3.2-3B with r = 32 on q and v: 24 h + 6 I and the results of A, bytes a token and layer."""
    h, mlp, kv, layers, tokens = 3072, 8192, 1024, 28, 4 * 750
    one, two = (
        formula(find_model("llama-3.2-3b").geometry, MethodSpec(r=r, target_modules=("q", "v")), StepSpec(batch=4, seq=750))
        for r in (32, 64)
    )
    assert kv < h
    beside = 4 * 24 + 2 * 4 * 32  # the log-sum-exp of each head; A x of two targets in fp32
    # the lowest layer keeps the same: its first adapter sits at its beginning
    assert one.activations == pytest.approx(layers * tokens * (24 * h + 6 * mlp + beside), rel=0.01)
    assert two.activations - one.activations == layers * tokens * 2 * 4 * 32


@pytest.mark.slow
def test_the_loss_takes_fourteen_bytes_a_logit_and_prepared_for_k_bits_sixteen() -> None:
    model = find_model("llama-3.2-1b")
    logits = 2 * 512 * 128256
    spec = MethodSpec()
    for step, each in ((StepSpec(batch=2), 14), (StepSpec(batch=2, quant="nf4", kbit_prepare=True), 16)):
        assert formula(model.geometry, spec, step).loss == each * logits
        assert trace(model, spec, step).loss == each * logits
    assert formula(model.geometry, spec, StepSpec(batch=2, fused_loss=True)).loss == 0
