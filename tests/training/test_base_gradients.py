"""∂L/∂W of a base's matrices: what plain autograd and finite differences say, on every family, and without a trace on the model."""

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import lora_lab as ll
from lora_lab.errors import SpecError
from lora_lab.live_geometry import read_geometry
from lora_lab.methods.tiny import TINY
from lora_lab.specs import MethodSpec
from lora_lab.support.trial import batch_of, fresh
from lora_lab.training import base_gradients, chain_rule, plan_run
from lora_lab.training.begin import base_at_start, batches, begun


def digits_batches(steps: int, *, size: int = 16) -> Iterator[dict[str, Tensor]]:
    return batches(ll.find_bench("digits").splits().train, size, steps=steps, seed=0)


def loss_with(model: nn.Module, name: str, change: Tensor, batch: dict[str, Tensor]) -> float:
    """The loss in float64 where one matrix is moved."""
    moved = copy.deepcopy(model).double()
    with torch.no_grad():
        moved.get_submodule(name).weight += change
        inputs = {key: column.double() if column.is_floating_point() else column for key, column in batch.items()}
        return float(moved(**inputs).loss)


@pytest.mark.parametrize("family", TINY)
def test_on_every_family_they_are_what_plain_autograd_gives(family: str) -> None:
    """Of weights that are untied: what comes through a tied embedding is none of a matrix's."""
    model, batch = fresh(family, "none").float(), batch_of(family)
    found = base_gradients(model, [batch])
    plain = copy.deepcopy(model).eval().requires_grad_(True)
    plain(**batch).loss.backward()
    expected: dict[str, Tensor] = {}
    for matrix in read_geometry(model).matrices:
        if matrix.role == "head":
            continue
        owner, _, name = matrix.name.rpartition(".")
        module = plain.get_submodule(owner if matrix.kind == "experts" else matrix.name)
        grad = getattr(module, name if matrix.kind == "experts" else "weight").grad
        grad = torch.zeros_like(getattr(module, "weight", torch.empty(0))) if grad is None else grad
        if matrix.kind == "experts":
            flipped = grad.mT if getattr(module, "is_transposed", False) else grad
            expected |= {f"{matrix.name}[{i}]": expert for i, expert in enumerate(flipped)}
        else:
            expected[matrix.name] = grad.mT if matrix.kind == "conv1d" else grad
        assert not matrix.tied
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6)
    assert sum(float(gradient.norm()) > 0 for gradient in found.values()) > len(found) / 2


@pytest.mark.parametrize("name", ["vit.layers.0.attention.v_proj", "vit.layers.2.mlp.fc2"])
def test_the_loss_changes_as_they_say(digits_base: nn.Module, name: str) -> None:
    batch = next(digits_batches(1))
    gradient = base_gradients(digits_base, [batch])[name].double()
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        direction = torch.randn(gradient.shape, generator=generator, dtype=torch.float64)
        up, down = (loss_with(digits_base, name, sign * 1e-4 * direction, batch) for sign in (1, -1))
        assert (up - down) / 2e-4 == pytest.approx(float((gradient * direction).sum()), rel=1e-3, abs=1e-5)


def test_the_mean_is_over_batches_in_whatever_order(digits_base: nn.Module) -> None:
    given = list(digits_batches(3))
    mean, back = base_gradients(digits_base, given), base_gradients(digits_base, iter(given[::-1]))
    alone = [base_gradients(digits_base, [batch]) for batch in given]
    for name, gradient in mean.items():
        torch.testing.assert_close(gradient, sum(one[name] for one in alone) / 3, rtol=1e-5, atol=1e-8)
        torch.testing.assert_close(gradient, back[name], rtol=1e-4, atol=1e-8)


def test_two_batches_of_one_size_are_one_of_both(digits_base: nn.Module) -> None:
    """What batch normalisation or a mean over tokens would break."""
    one, two = digits_batches(2)
    both = {name: torch.cat([one[name], two[name]]) for name in one}
    halves, whole = base_gradients(digits_base, [one, two]), base_gradients(digits_base, [both])
    for name in whole:
        torch.testing.assert_close(halves[name], whole[name], rtol=1e-4, atol=1e-6)


def test_every_matrix_but_the_head_has_one_adapted_or_not(digits_base: nn.Module) -> None:
    found = base_gradients(digits_base, digits_batches(1))
    matrices = ll.find_bench("digits").geometry().matrices
    assert {name: tuple(g.shape) for name, g in found.items()} == {m.name: (m.d_out, m.d_in) for m in matrices if m.role != "head"}
    assert {(g.dtype, g.device.type) for g in found.values()} == {(torch.float32, "cpu")}


def test_a_tied_embedding_is_no_matrix_and_adds_nothing_to_one() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    size = {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 40, "n_positions": 16}
    model = GPT2LMHeadModel(GPT2Config(**size, bos_token_id=0, eos_token_id=0))
    ids = torch.randint(0, 40, (3, 7), generator=torch.Generator().manual_seed(0))
    weight = model.transformer.wte.weight
    assert model.lm_head.weight is weight
    found = base_gradients(model, [{"input_ids": ids, "labels": ids}])
    assert set(found) == {f"transformer.h.0.{name}" for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")}
    assert model.lm_head.weight is model.transformer.wte.weight is weight
    assert weight.grad is None


@pytest.mark.parametrize("fails", [False, True], ids=["whole", "broken off"])
def test_the_model_is_left_as_it_was(digits_base: nn.Module, fails: bool) -> None:
    model, batch = digits_base, next(digits_batches(1))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("fc1" in name)
    model.get_submodule("vit.layers.2").train()
    model(**batch).loss.backward()
    before = {name: (p, p.detach().clone(), p.requires_grad, p.grad) for name, p in model.named_parameters()}
    grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    modes, random = [module.training for module in model.modules()], torch.get_rng_state()
    if fails:
        with pytest.raises(SpecError, match=r"batch parameter of base_gradients must be columns with labels"):
            base_gradients(model, [batch, {"pixel_values": batch["pixel_values"]}])
    else:
        base_gradients(model, [batch])
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)
    after = dict(model.named_parameters())
    assert list(after) == list(before)
    for name, (parameter, value, requires_grad, grad) in before.items():
        assert after[name] is parameter
        assert after[name].grad is grad
        assert after[name].requires_grad == requires_grad
        assert torch.equal(parameter, value)
        assert grad is None or torch.equal(grad, grads[name])


def test_what_has_no_gradient_is_refused(digits_base: nn.Module) -> None:
    from lora_lab.methods import quantize

    with pytest.raises(SpecError, match=r"batches parameter of base_gradients must be at least one batch\. Got 0\."):
        base_gradients(digits_base, [])
    with pytest.raises(SpecError, match=r"model parameter of base_gradients must be in floating point, not quantized\. Got 'vit\."):
        base_gradients(quantize(digits_base, "nf4"), digits_batches(1))


def test_a_matrix_that_the_loss_does_not_depend_on_has_a_gradient_of_zero(digits_base: nn.Module) -> None:
    digits_base.spare = nn.Linear(3, 2)
    gradient = base_gradients(digits_base, digits_batches(1))["spare"]
    assert gradient.shape == (2, 3)
    assert not gradient.any()


@pytest.mark.parametrize("bench", ["digits", "minilm"])
def test_it_is_the_gradient_that_a_run_of_that_seed_begins_with(bench: str, tmp_path: Path) -> None:
    """B is 0 there, so that A and B change nothing: and where a head is trained, it is the run's own start of it."""
    if bench == "minilm":
        data = tmp_path / "rows.csv"
        data.write_text("text,label\n" + "".join(f"it was {'good' if i % 3 else 'bad'} {i},{i % 2}\n" for i in range(40)))
        found = ll.find_bench(str(ll.find_bench("reviews").base_folder()), ll.DataSpec(path=str(data)))
    else:
        found = ll.find_bench(bench)
    spec = plan_run(found, MethodSpec(r=2), seed=3, batch_size=4, steps=5)
    train = found.splits().train
    (batch,) = batches(train, 4, steps=1, seed=3)
    gradients = base_gradients(base_at_start(found, seed=3), [batch])
    other = base_gradients(base_at_start(found, seed=4), [batch])
    run = begun(spec, found, found.build(), train)
    for name in [m.name for m in found.geometry().targeted(spec.tuning.targets)][:3]:
        rule = chain_rule(run, batch, name)
        assert float(gradients[name].norm()) == pytest.approx(rule.grad_norm_w, rel=1e-4)
        assert torch.equal(gradients[name], other[name]) == (bench == "digits")
