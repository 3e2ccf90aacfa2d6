"""What anyone would try first: more of something never costs less, and what should fit fits."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from lora_lab.budget import (
    PARTS,
    Ledger,
    Model,
    budget,
    cheapest_change,
    find_card,
    find_model,
    max_batch,
    max_r,
    max_seq,
    model_names,
)
from lora_lab.budget.formula import formula
from lora_lab.budget.sentences import counter_sentence, remedy_sentence
from lora_lab.budget.trace import trace
from lora_lab.errors import SpecError
from lora_lab.specs import METHODS, MethodSpec, StepSpec

ALL_LINEAR = ("all-linear",)
FAMILIES = [
    "llama-3.2-1b",
    "mistral-7b-v0.1",
    "qwen2.5-0.5b",
    "qwen3-0.6b",
    "gemma-2-2b",
    "gemma-3-1b-it",
    "phi-2",
    "phi-3-mini-4k-instruct",
    "falcon-7b",
    "pythia-1b",
    "gpt2",
    "opt-1.3b",
    "bert-base-uncased",
    "deberta-v2-xxlarge",
    "mixtral-8x7b-v0.1",
]
METHODS_OF_ALL_LAYERS = {
    "lora": MethodSpec(),
    "lora on all, r 64": MethodSpec(r=64, target_modules=ALL_LINEAR),
    "lora on all, r 512": MethodSpec(r=512, target_modules=ALL_LINEAR),
    "lora with dropout": MethodSpec(lora_dropout=0.1),
    "dora with dropout": MethodSpec(method="dora", lora_dropout=0.1),
    "vera": MethodSpec(method="vera", r=256),
    "ia3": MethodSpec(method="ia3"),
    "adapter": MethodSpec(method="adapter", r=64),
    "prefix": MethodSpec(method="prefix", r=16),
    "ln_tuning": MethodSpec(method="ln_tuning"),
    "full": MethodSpec(method="full"),
}
# QLoRA as its authors ran it, on one card of 48 GB.
QLORA_OF_65B = MethodSpec(method="qlora", r=64, target_modules=ALL_LINEAR)
LEAN: dict[str, Any] = {
    "batch": 1,
    "seq": 512,
    "quant": "nf4-dq",
    "adapter_dtype": "bf16",
    "optimizer": "paged-adamw8bit",
    "checkpointing": True,
}


def bill(model: str, spec: MethodSpec | None = None, **step: Any) -> Ledger:
    return formula(find_model(model).geometry, spec or MethodSpec(), StepSpec(**step))


def bill_of(model: Model, spec: MethodSpec, step: StepSpec) -> Ledger:
    return formula(model.geometry, spec, step)


def taken_by(model: str) -> list[MethodSpec]:
    """One spec of every method that finds something in the model."""
    specs = [MethodSpec(method=method) for method in METHODS]
    specs += [MethodSpec(target_modules=ALL_LINEAR, r=64), MethodSpec(method="dora", lora_dropout=0.1)]
    found = []
    for spec in specs:
        try:
            bill(model, spec)
        except SpecError:
            continue
        found.append(spec)
    return found


@pytest.mark.parametrize("model", FAMILIES)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_every_part_is_a_whole_number_of_bytes_and_they_sum_to_the_peak(model: str, checkpointing: bool) -> None:
    for spec in taken_by(model):
        for quant in ("none", "int8", "nf4", "nf4-dq"):
            if quant != "none" and spec.method in ("full", "partial", "bitfit"):
                continue
            record = bill(model, spec, quant=quant, checkpointing=checkpointing).to_json()
            assert all(type(n_bytes) is int and n_bytes >= 0 for n_bytes in record.values())
            assert sum(record[part] for part in PARTS) == record["peak"]
            assert set(record) == {*PARTS, "peak", "overhead"}


def test_a_card_must_hold_context_and_fragmentation_too() -> None:
    made = budget("llama-3.2-1b")
    assert made.ledger.on_card == made.ledger.peak + made.ledger.overhead
    assert made.ledger.overhead > 500_000_000
    assert made.fits(replace(find_card("24GB"), memory_bytes=made.ledger.on_card))
    assert not made.fits(replace(find_card("24GB"), memory_bytes=made.ledger.on_card - 1))
    assert "estimate" in counter_sentence(made)


@pytest.mark.parametrize("model", FAMILIES)
def test_doubling_the_batch_doubles_what_the_tokens_leave_and_nothing_else(model: str) -> None:
    """Exactly so at the loss, without checkpointing: activations and logits are tokens times a constant there."""
    for spec in taken_by(model):
        if METHODS[spec.method].r_is == "top layers":
            continue  # its peak may lie in the optimizer's step
        bills = [bill(model, spec, batch=batch, seq=256, optimizer="sgd") for batch in (8, 16, 32)]
        copies = [later.activations - 2 * earlier.activations for earlier, later in pairwise(bills)]
        first, second, third = bills
        assert second.weights == first.weights
        assert second.adapters == first.adapters
        if first.gradients == second.gradients == third.gradients:
            assert second.loss == 2 * first.loss
            # weight-like copies, which DoRA makes of each W and PEFT keeps of adapted experts, do not grow with the batch
            assert copies[0] == copies[1]
            keeps_copies = spec.method == "dora" or {"up", "down", "gate"} & set(spec.targets)
            assert copies[0] == 0 or keeps_copies or model == "deberta-v2-xxlarge"


@pytest.mark.slow
def test_doubling_the_batch_doubles_the_traced_activations_too() -> None:
    """To within what is rounded up to the allocator's blocks."""
    model = find_model("smollm2-135m")
    one, two = (trace(model, MethodSpec(), StepSpec(batch=batch, seq=128)) for batch in (1, 2))
    assert (one.weights, one.adapters, one.optimizer) == (two.weights, two.adapters, two.optimizer)
    assert two.loss == 2 * one.loss
    assert two.activations == pytest.approx(2 * one.activations, rel=0.01)


@pytest.mark.parametrize("model", FAMILIES)
def test_more_never_takes_less(model: str) -> None:
    for spec in taken_by(model):
        for step in (StepSpec(seq=128), StepSpec(seq=512, checkpointing=True), StepSpec(batch=3, seq=100, attention="eager")):
            geometry = find_model(model).geometry
            here = formula(geometry, spec, step).peak
            more = [replace(step, batch=step.batch + 1), replace(step, batch=4 * step.batch), replace(step, seq=2 * step.seq)]
            assert all(formula(geometry, spec, other).peak >= here for other in more)
            if METHODS[spec.method].r_is:
                for r in (spec.r + 1, 2 * spec.r):
                    assert formula(geometry, replace(spec, r=r), step).peak >= here


@pytest.mark.parametrize("model", FAMILIES)
def test_another_target_never_lowers_the_peak(model: str) -> None:
    geometry = find_model(model).geometry
    roles = [role for role in ("q", "k", "v", "o", "gate", "up", "down") if geometry.matching(role)]
    for method in ("lora", "dora", "vera"):
        for checkpointing in (False, True):
            for adapter_dtype in ("fp32", "bf16"):
                step = {"checkpointing": checkpointing, "adapter_dtype": adapter_dtype, "batch": 2}
                for order in (roles, roles[::-1]):
                    peaks = [
                        bill(model, MethodSpec(method=method, target_modules=tuple(order[:n])), **step).peak for n in range(1, 8)
                    ]
                    assert peaks == sorted(peaks)


@pytest.mark.parametrize("r", [1, 64, 1024])
def test_the_rank_leaves_the_bases_weights_as_they_are(r: int) -> None:
    for model in FAMILIES:
        for quant in ("none", "nf4"):
            assert bill(model, MethodSpec(r=r), quant=quant).weights == bill(model, quant=quant).weights


def test_qlora_of_a_65b_model_fits_48_gb() -> None:
    made = budget("llama-65b", QLORA_OF_65B, **LEAN)
    assert made.fits(find_card("48GB"))
    assert made.trainable_params == 64 * 80 * (4 * (8192 + 8192) + 3 * (8192 + 22016))
    assert not budget("llama-65b", replace(QLORA_OF_65B, method="lora"), **{**LEAN, "quant": "none"}).fits(find_card("48GB"))


def test_full_fine_tuning_of_a_65b_model_fits_no_card() -> None:
    made = budget("llama-65b", "full", checkpointing=True)
    assert not any(made.fitting.values())
    assert made.ledger.peak > 8 * made.total_params
    remedy = cheapest_change(made, find_card("B200"))
    assert remedy.made.ledger.peak < made.ledger.peak


@pytest.mark.parametrize("name", [name for name in model_names() if len(find_model(name).geometry.layers) >= 8])
def test_checkpointing_never_takes_more_where_every_layer_is_trained(name: str) -> None:
    geometry = find_model(name).geometry
    for spec in METHODS_OF_ALL_LAYERS.values():
        if spec.method == "ia3" and any(m.kind == "experts" for m in geometry.matrices):
            continue
        for batch, seq in ((1, 64), (1, 512), (8, 512), (2, 4096)):
            for attention in ("sdpa", "eager", "flash"):
                kept, recomputed = (
                    formula(geometry, spec, StepSpec(batch=batch, seq=seq, attention=attention, checkpointing=checkpointing)).peak
                    for checkpointing in (False, True)
                )
                assert recomputed <= kept


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lora", "lora on all, r 512", "full"])
def test_checkpointing_never_takes_more_when_traced(name: str) -> None:
    """But for one hidden state in fp32: adapters so large that they make the peak leave nothing to save."""
    model, spec, step = find_model("gpt2"), METHODS_OF_ALL_LAYERS[name], StepSpec(seq=256)
    kept, recomputed = (trace(model, spec, replace(step, checkpointing=on)).peak for on in (False, True))
    assert recomputed <= kept + 4 * 768 * step.tokens


@pytest.mark.slow
def test_checkpointing_costs_where_the_top_layer_alone_is_trained() -> None:
    """Without it nothing below that layer is kept; with it every layer's input is."""
    spec, model = MethodSpec(method="partial", r=1), find_model("gpt2")
    step = StepSpec(batch=4, fused_loss=True, optimizer="sgd")
    checkpointed = replace(step, checkpointing=True)
    assert trace(model, spec, checkpointed).activations > trace(model, spec, step).activations
    assert bill_of(model, spec, checkpointed).activations > bill_of(model, spec, step).activations


def test_what_cannot_fit_says_so() -> None:
    card = find_card("RTX 4090")
    made = budget("llama-3.1-405b", MethodSpec(target_modules=ALL_LINEAR), batch=4)
    remedy = cheapest_change(made, card)
    assert not remedy.fits
    assert not remedy.made.fits(card)
    assert remedy.made.ledger.peak < made.ledger.peak
    assert max_r(made, card) is max_batch(made, card) is max_seq(made, card) is None
    said = remedy_sentence(remedy, card)
    assert said.startswith("Nothing here makes it fit RTX 4090")
    assert "largest r" not in said
    assert f"{remedy.made.ledger.on_card / 10**9:.1f} GB" in said


def test_where_adapters_sit_costs_more_than_how_many_there_are() -> None:
    """Doubling r on q and v against moving 9 M parameters to the MLP: 0.24 GiB and 2.2 GiB where it was measured."""
    step = {"batch": 4, "seq": 750}
    on_qv = budget("llama-3.2-3b", MethodSpec(r=32, target_modules=("q_proj", "v_proj")), **step)
    doubled = budget("llama-3.2-3b", MethodSpec(r=64, target_modules=("q_proj", "v_proj")), **step)
    moved = budget("llama-3.2-3b", MethodSpec(r=10, target_modules=("gate_proj", "up_proj", "down_proj")), **step)
    assert moved.trainable_params == pytest.approx(on_qv.trainable_params, rel=0.05)
    assert doubled.trainable_params == 2 * on_qv.trainable_params
    assert 0 < doubled.ledger.peak - on_qv.ledger.peak <= 0.24 * 2**30
    assert moved.ledger.peak - on_qv.ledger.peak == pytest.approx(2.2 * 2**30, rel=0.15)


def test_dora_costs_activations_at_an_almost_equal_count() -> None:
    lora, dora = (budget("llama-3.2-3b", MethodSpec(method=method, r=32), batch=4, seq=750) for method in ("lora", "dora"))
    assert dora.trainable_params == pytest.approx(lora.trainable_params, rel=0.02)
    assert dora.ledger.activations > 1.1 * lora.ledger.activations
    assert dora.ledger.weights == lora.ledger.weights


def test_eight_bit_optimizers_keep_small_tensors_in_32_bits() -> None:
    """At r = 1 no factor of GPT-2 has 4,096 elements: nothing is saved. At r = 8 the wider factors have."""
    small = {name: bill("gpt2", MethodSpec(r=1), optimizer=name).optimizer for name in ("adamw", "adamw8bit", "paged-adamw8bit")}
    trained = 12 * (768 + 2304)
    assert small["adamw8bit"] == small["paged-adamw8bit"] == 8 * trained
    large = bill("gpt2", MethodSpec(r=8), optimizer="adamw8bit").optimizer
    blocks = -(-8 * 768 // 256) + -(-8 * 2304 // 256)  # both factors are large now: two moments, a byte and a scale a block
    assert large == 12 * 2 * (8 * (768 + 2304) + 4 * blocks)


@pytest.mark.slow
def test_the_trace_keeps_small_tensors_in_32_bits_too() -> None:
    model = find_model("gpt2")
    for r in (1, 4):
        step = StepSpec(seq=64, optimizer="adamw8bit")
        traced, reckoned = trace(model, MethodSpec(r=r), step), formula(model.geometry, MethodSpec(r=r), step)
        assert traced.optimizer == pytest.approx(reckoned.optimizer, rel=0.05)  # scales are rounded up to a block each


@pytest.mark.parametrize("optimizer", ["sgd", "adafactor", "adamw8bit", "paged-adamw8bit"])
def test_no_optimizer_takes_more_than_adamw(optimizer: str) -> None:
    for model in FAMILIES:
        for spec in (MethodSpec(target_modules=ALL_LINEAR), MethodSpec(method="full")):
            assert bill(model, spec, optimizer=optimizer).peak <= bill(model, spec).peak


@pytest.mark.parametrize("model", FAMILIES)
def test_flash_and_a_fused_loss_never_take_more(model: str) -> None:
    for checkpointing in (False, True):
        plain = bill(model, batch=2, checkpointing=checkpointing)
        assert bill(model, batch=2, checkpointing=checkpointing, attention="flash").peak <= plain.peak
        fused = bill(model, batch=2, checkpointing=checkpointing, fused_loss=True)
        assert fused.peak <= plain.peak
        assert fused.loss == 0


def test_frozen_layers_below_the_first_adapter_keep_nothing() -> None:
    layers = find_model("llama-3.2-3b").geometry.layers
    all_of_them = bill("llama-3.2-3b", batch=4).activations
    top_half = bill("llama-3.2-3b", MethodSpec(layers_to_transform=layers[14:]), batch=4).activations
    bottom_half = bill("llama-3.2-3b", MethodSpec(layers_to_transform=layers[:14]), batch=4).activations
    assert top_half == pytest.approx(all_of_them / 2, rel=0.05)
    assert all_of_them * 0.7 < bottom_half < all_of_them
