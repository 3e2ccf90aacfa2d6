"""The gradients of A and B: measured where they are, equal to the chain rule, and found without a trace on the model."""

import math
from collections.abc import Iterator

import pytest
import torch
from peft import AdaLoraConfig, LoraConfig, PeftModel, get_peft_model
from torch import nn

import lora_lab as ll
from lora_lab.errors import SpecError
from lora_lab.training import chain_rule, first_gradients, gradient_norms
from lora_lab.training.begin import batches

DIGITS = ["q_proj", "fc1"]
FC1 = "vit.layers.1.mlp.fc1"  # (160, 64)


def digits_batches(steps: int) -> Iterator[dict[str, torch.Tensor]]:
    return batches(ll.find_bench("digits").splits()[0], 16, steps=steps, seed=0)


def on_digits(base: nn.Module, **settings: object) -> PeftModel:
    return get_peft_model(base, LoraConfig(**{"r": 4, "lora_alpha": 12, "target_modules": DIGITS, **settings}))


def words(rows: int = 3) -> dict[str, torch.Tensor]:
    ids = torch.randint(0, 40, (rows, 7), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "labels": ids}


def tiny_gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=40, n_positions=16, bos_token_id=0, eos_token_id=0)
    )


def tiny_mixtral() -> nn.Module:
    from transformers import MixtralConfig, MixtralForCausalLM

    size = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
    return MixtralForCausalLM(MixtralConfig(vocab_size=40, num_local_experts=3, **size))


def learned(model: nn.Module) -> nn.Module:
    """Factors as after some training: none of them 0."""
    generator = torch.Generator().manual_seed(1)
    for name, p in model.named_parameters():
        if "lora_A" in name or "lora_B" in name:
            p.data = 0.3 * torch.randn(p.shape, generator=generator)
    return model


# Norms


def test_norms_are_those_of_the_gradients_that_autograd_left(digits_base: nn.Module) -> None:
    model = learned(on_digits(digits_base))
    model(**next(digits_batches(1))).loss.backward()
    norms = gradient_norms(model)
    grads = {name: p.grad.double().norm().item() for name, p in model.named_parameters() if p.grad is not None}
    assert len(norms.matrices) == 8
    for name, norm in norms.matrices.items():
        path = f"base_model.model.{name}"
        assert norm.a == pytest.approx(grads[f"{path}.lora_A.default.weight"], rel=1e-5)
        assert norm.b == pytest.approx(grads[f"{path}.lora_B.default.weight"], rel=1e-5)
    assert norms.grad_norm_a == pytest.approx(math.hypot(*(g for name, g in grads.items() if "lora_A" in name)), rel=1e-5)
    assert norms.grad_norm_b == pytest.approx(math.hypot(*(g for name, g in grads.items() if "lora_B" in name)), rel=1e-5)


def test_with_lora_alone_the_two_norms_make_up_the_norm_that_is_clipped(digits_base: nn.Module) -> None:
    model = learned(on_digits(digits_base))
    model(**next(digits_batches(1))).loss.backward()
    norms = gradient_norms(model)
    whole = float(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0))
    assert norms.grad_norm_a is not None
    assert norms.grad_norm_b is not None
    assert math.hypot(norms.grad_norm_a, norms.grad_norm_b) == pytest.approx(whole, rel=1e-5)


def test_a_model_without_factors_or_without_a_backward_has_no_norms(digits_base: nn.Module) -> None:
    digits_base(**next(digits_batches(1))).loss.backward()
    bare = gradient_norms(digits_base)
    assert (bare.matrices, bare.grad_norm_a, bare.grad_norm_b) == ({}, None, None)
    digits_base.zero_grad()
    fresh = gradient_norms(on_digits(digits_base))
    assert (len(fresh.matrices), fresh.grad_norm_a, fresh.grad_norm_b) == (8, None, None)
    assert {(norm.a, norm.b) for norm in fresh.matrices.values()} == {(None, None)}


def test_a_frozen_a_has_no_norm_and_its_b_has(digits_base: nn.Module) -> None:
    model = on_digits(digits_base)
    for name, p in model.named_parameters():
        if "lora_A" in name:
            p.requires_grad_(False)
    model(**next(digits_batches(1))).loss.backward()
    norms = gradient_norms(model)
    assert norms.grad_norm_a is None
    assert norms.grad_norm_b is not None
    assert norms.grad_norm_b > 0


def test_half_precision_does_not_overflow_and_double_is_not_refused() -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        model = get_peft_model(nn.Sequential(nn.Linear(8, 8)), LoraConfig(r=4, target_modules=["0"]))
        layer = model.base_model.model[0].to(dtype)
        layer.lora_A.default.weight.grad = torch.full((4, 8), 60000.0, dtype=dtype)
        assert gradient_norms(model).grad_norm_a == pytest.approx(60000 * 32**0.5, rel=1e-2)


@pytest.mark.parametrize("use_dora", [False, True], ids=["LoRA", "DoRA"])
def test_conv1d_is_read_like_any_matrix(use_dora: bool) -> None:
    model = get_peft_model(tiny_gpt2(), LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True, use_dora=use_dora))
    model(**words()).loss.backward()
    norms = gradient_norms(model)
    assert list(norms.matrices) == ["transformer.h.0.attn.c_attn"]
    assert norms.grad_norm_a == 0.0
    assert norms.grad_norm_b is not None
    assert norms.grad_norm_b > 0


def test_experts_are_one_matrix_a_parameter_under_their_name_in_the_base() -> None:
    base = tiny_mixtral()
    names = {name for name, p in base.named_parameters() if p.ndim == 3}
    model = get_peft_model(base, LoraConfig(r=2, target_modules=[], target_parameters=sorted(names)))
    model(**words()).loss.backward()
    norms = gradient_norms(model)
    assert set(norms.matrices) == names
    assert len(names) == 2
    assert all(norm.a == 0 and norm.b is not None and norm.b > 0 for norm in norms.matrices.values())


def test_embeddings_keep_their_factors_elsewhere_and_are_found() -> None:
    model = get_peft_model(tiny_gpt2(), LoraConfig(r=2, target_modules=["wpe"]))
    model(**words()).loss.backward()
    (name,) = gradient_norms(model).matrices
    assert name == "transformer.wpe"
    factors = {n.split(".")[-2]: float(p.grad.norm()) for n, p in model.named_parameters() if p.grad is not None}
    assert len(factors) == 2
    norm = gradient_norms(model).matrices[name]
    assert (norm.a, norm.b) == pytest.approx((factors["lora_embedding_A"], factors["lora_embedding_B"]))


def test_adalora_starts_with_no_gradient_in_either_factor(digits_base: nn.Module) -> None:
    """Its E is 0 at the start, and stands between A and B."""
    config = AdaLoraConfig(init_r=4, total_step=100, target_modules=DIGITS)
    first, second = first_gradients(get_peft_model(digits_base, config), digits_batches(2), steps=2, learning_rate=5e-3)
    assert (first.grad_norm_a, first.grad_norm_b) == (0.0, 0.0)
    assert second.grad_norm_a is not None
    assert second.grad_norm_b is not None
    assert min(second.grad_norm_a, second.grad_norm_b) > 0


# The chain rule


def test_autograd_gives_what_the_rule_says(digits_base: nn.Module) -> None:
    rule = chain_rule(learned(on_digits(digits_base)), next(digits_batches(1)), FC1)
    assert (rule.d_out, rule.d_in, rule.r, rule.scaling) == (160, 64, 4, 3.0)
    assert min(rule.grad_norm_w, rule.grad_norm_a, rule.grad_norm_b) > 1e-3
    assert max(rule.difference_a, rule.difference_b) < 5e-6


@pytest.mark.parametrize("use_dora", [False, True], ids=["LoRA", "DoRA"])
@pytest.mark.parametrize("name", ["c_attn", "mlp.c_fc"])
def test_the_rule_holds_for_conv1d_and_dora(name: str, use_dora: bool) -> None:
    config = LoraConfig(r=2, lora_alpha=3, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True, use_dora=use_dora)
    model = learned(get_peft_model(tiny_gpt2(), config))
    module = "transformer.h.0." + ("attn.c_attn" if name == "c_attn" else name)
    rule = chain_rule(model, words(), module)
    assert (rule.d_out, rule.d_in) == ((48, 16) if name == "c_attn" else (64, 16))
    assert min(rule.grad_norm_a, rule.grad_norm_b) > 1e-4
    assert max(rule.difference_a, rule.difference_b) < 5e-6


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
def test_a_tied_weight_is_told_apart_from_the_embedding() -> None:
    """GPT-2's head is its embedding: the gradient through the embedding is none of the head's W."""
    model = learned(get_peft_model(tiny_gpt2(), LoraConfig(r=2, target_modules=["lm_head"])))
    rule = chain_rule(model, words(), "lm_head")
    assert max(rule.difference_a, rule.difference_b) < 5e-6


def test_a_wrong_scaling_would_be_seen(digits_base: nn.Module) -> None:
    model = learned(on_digits(digits_base))
    layer = model.get_submodule(f"base_model.model.{FC1}")
    layer.lora_A.default.register_forward_hook(lambda _module, _given, out: 1.5 * out)
    rule = chain_rule(model, next(digits_batches(1)), FC1)
    assert rule.difference_b == pytest.approx(1 / 3, rel=1e-4)


def test_at_the_start_the_gradient_of_a_is_zero_and_that_of_b_is_not(digits_base: nn.Module) -> None:
    rule = chain_rule(on_digits(digits_base), next(digits_batches(1)), FC1)
    assert (rule.norm_b, rule.grad_norm_a, rule.difference_a) == (0.0, 0.0, 0.0)
    assert rule.grad_norm_b > 0
    assert rule.difference_b < 5e-6


@pytest.mark.parametrize("lora_dropout", [0.0, 0.5])
def test_the_model_is_left_as_it_was(digits_base: nn.Module, lora_dropout: float) -> None:
    model = on_digits(digits_base, lora_dropout=lora_dropout)
    model.get_submodule("base_model.model.vit.layers.2").train()  # a mixed mode, as PEFT leaves them
    batch = next(digits_batches(1))
    model(**batch).loss.backward()
    before = {name: (p, p.detach().clone(), p.requires_grad, p.grad) for name, p in model.named_parameters()}
    modes, random = [module.training for module in model.modules()], torch.get_rng_state()
    rule = chain_rule(model, batch, FC1)
    assert rule.difference_b < 5e-6  # dropout is off
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)
    after = dict(model.named_parameters())
    assert list(after) == list(before)
    for name, (parameter, value, requires_grad, grad) in before.items():
        assert after[name] is parameter
        assert after[name].grad is grad
        assert after[name].requires_grad == requires_grad
        assert torch.equal(parameter, value)


def test_the_model_is_left_as_it_was_when_the_batch_fails(digits_base: nn.Module) -> None:
    model = on_digits(digits_base)
    before = dict(model.named_parameters())
    batch = next(digits_batches(1))
    with pytest.raises(SpecError, match=r"must be columns with labels, .*Got \['pixel_values'\]"):
        chain_rule(model, {"pixel_values": batch["pixel_values"]}, FC1)
    assert all(p is before[name] for name, p in model.named_parameters())


def test_what_has_no_such_rule_is_refused(digits_base: nn.Module) -> None:
    model, batch = on_digits(digits_base), next(digits_batches(1))
    with pytest.raises(SpecError, match=r"a linear map with LoRA's factors A and B\. Got 'vit\.layers\.1\.attention\.v_proj'"):
        chain_rule(model, batch, "vit.layers.1.attention.v_proj")
    model.merge_adapter()
    with pytest.raises(SpecError, match="active and not merged"):
        chain_rule(model, batch, FC1)


def test_adalora_is_refused(digits_base: nn.Module) -> None:
    model = get_peft_model(digits_base, AdaLoraConfig(init_r=4, total_step=100, target_modules=DIGITS))
    with pytest.raises(SpecError, match="factors A and B"):
        chain_rule(model, next(digits_batches(1)), FC1)


# The first steps


@pytest.mark.parametrize("optimizer", ["AdamW", "SGD"])
def test_the_first_step_moves_b_alone_and_the_second_both(digits_base: nn.Module, optimizer: str) -> None:
    model = on_digits(digits_base)
    start = {name: p.detach().clone() for name, p in model.named_parameters() if "lora_A" in name}
    steps = first_gradients(model, digits_batches(4), steps=4, learning_rate=5e-3, optimizer=optimizer)
    first = steps[0]
    assert [step.step for step in steps] == [1, 2, 3, 4]
    assert first.grad_norm_a == 0.0
    assert {norm.a for norm in first.norms.matrices.values()} == {0.0}
    assert all(norm.b is not None and norm.b > 0 for norm in first.norms.matrices.values())
    assert all(step.grad_norm_a is not None and step.grad_norm_a > 0 for step in steps[1:])
    assert all(not torch.equal(p, start[name]) for name, p in model.named_parameters() if name in start)
    assert all(p.grad is None for p in model.parameters())


def test_the_steps_are_those_of_plain_torch(digits_base: nn.Module) -> None:
    import copy

    other = on_digits(copy.deepcopy(digits_base))
    torch.manual_seed(0)
    model = on_digits(digits_base)
    other.load_state_dict(model.state_dict())
    said = first_gradients(model, digits_batches(3), steps=3, learning_rate=1e-2)
    optimizer = torch.optim.AdamW([p for p in other.parameters() if p.requires_grad], lr=1e-2)
    for step, batch in zip(said, digits_batches(3), strict=True):
        optimizer.zero_grad()
        loss = other(**batch).loss
        loss.backward()
        optimizer.step()
        assert step.loss == loss.item()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"optimizer": "Lyon"}, "optimizer parameter .* a class of torch.optim .*AdamW.* Got 'Lyon'"),
        ({"optimizer": "LBFGS"}, "optimizer parameter .* steps by itself .*it wants a closure.*Got 'LBFGS'"),
        ({"steps": 0}, "steps parameter .* at least 1. Got 0"),
        ({"steps": 3}, "at least 3 batches, one a step. Got 2"),
    ],
)
def test_what_cannot_be_run_is_refused_before_any_step(digits_base: nn.Module, wrong: dict[str, object], message: str) -> None:
    model = on_digits(digits_base)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with pytest.raises(SpecError, match=message):
        first_gradients(model, digits_batches(2), **{"steps": 2, "learning_rate": 1e-2, **wrong})
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
