"""Start values: keyed by (seed, r, module), from the distribution that each method has; what they promise of W and ΔW."""

import pytest
import torch
from torch import Tensor, nn

import lora_lab as ll
from lora_lab.adapters import from_model
from lora_lab.errors import SpecError
from lora_lab.methods import attach_method
from lora_lab.specs import MethodSpec

DRAWN = {
    "lora": {},
    "lora, gaussian": {"init_lora_weights": "gaussian"},
    "lora, orthogonal": {"init_lora_weights": "orthogonal"},
    "dora": {"method": "dora"},
    "adalora": {"method": "adalora"},
    "vera": {"method": "vera"},
    "adapter": {"method": "adapter"},
    "prefix": {"method": "prefix"},
    "preembed": {"method": "preembed"},
    "lora+prefix": {"method": "lora+prefix"},
}


def base(method: str) -> nn.Module:
    if "pre" in method:
        from lora_lab.methods.tiny import tiny_model

        torch.manual_seed(5)
        return tiny_model("bert", device="cpu")
    return ll.find_bench("digits").build()


def start(way: str, *, seed: int, r: int = 4) -> dict[str, Tensor]:
    spec = MethodSpec(r=r, **DRAWN[way])
    model = attach_method(base(way), spec, seed=seed)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    return {name: p.clone() for name, p in model.state_dict().items() if name in trained or "vera_A" in name or "vera_B" in name}


@pytest.mark.parametrize("way", DRAWN)
def test_a_key_gives_one_start_whatever_the_global_stream_does_and_leaves_that_alone(way: str) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = start(way, seed=7)
    if "pre" not in way:
        assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again = start(way, seed=7)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert first.keys() == again.keys()


@pytest.mark.parametrize("way", DRAWN)
def test_another_seed_is_another_start(way: str) -> None:
    first, other = start(way, seed=7), start(way, seed=8)
    drawn = [name for name in first if first[name].std() > 0]
    assert drawn
    assert not any(torch.equal(first[name], other[name]) for name in drawn if "magnitude" not in name)


@pytest.mark.parametrize("way", ["lora", "lora, gaussian", "adalora"])
def test_the_a_of_one_rank_is_no_part_of_that_of_another(way: str) -> None:
    small, large = start(way, seed=0, r=4), start(way, seed=0, r=8)
    for name in small:
        if "lora_A" in name:
            together = torch.stack([small[name].flatten(), large[name][:4].flatten()])
            assert abs(float(torch.corrcoef(together)[0, 1])) < 0.25


def test_what_other_matrices_are_adapted_changes_no_start() -> None:
    one = attach_method(base("lora"), MethodSpec(target_modules=("v",)), seed=0)
    both = attach_method(base("lora"), MethodSpec(target_modules=("q", "v")), seed=0)
    first, other = (from_model(model)["vit.layers.2.attention.v_proj"].lora_a for model in (one, both))
    assert torch.equal(first, other)


def test_gaussian_has_the_spread_of_one_over_r() -> None:
    factors = [a for name, a in start("lora, gaussian", seed=0, r=16).items() if "lora_A" in name]
    assert float(torch.cat(factors).std()) == pytest.approx(1 / 16, rel=0.05)


def test_orthogonal_factors_cancel() -> None:
    adapted = attach_method(base("lora"), MethodSpec(init_lora_weights="orthogonal", r=4), seed=0)
    for delta in from_model(adapted).values():
        assert delta.frobenius() < 1e-5 * float(delta.lora_a.norm() * delta.lora_b.norm())
        assert float(delta.lora_b.norm()) > 0


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_what_moves_the_base_puts_into_the_factors_what_it_takes(init: str) -> None:
    plain = base("lora")
    before = {m: plain.get_submodule(m).weight.clone() for m in ("vit.layers.0.attention.q_proj", "vit.layers.3.mlp.fc1")}
    spec = MethodSpec(init_lora_weights=init, r=4, target_modules=("q_proj", "fc1"))
    adapted = attach_method(plain, spec, seed=0)
    for name, original in before.items():
        moved = adapted.base_model.model.get_submodule(name).base_layer.weight
        delta = from_model(adapted)[name]
        assert not torch.equal(moved, original)
        torch.testing.assert_close(moved + delta.dense().float(), original, rtol=1e-4, atol=1e-6)


def test_pissa_takes_the_leading_singular_directions() -> None:
    weight = base("lora").get_submodule("vit.layers.1.attention.v_proj").weight.detach().double()
    delta = from_model(attach_method(base("lora"), MethodSpec(init_lora_weights="pissa", r=4), seed=0))[
        "vit.layers.1.attention.v_proj"
    ]
    torch.testing.assert_close(delta.singular_values, torch.linalg.svdvals(weight)[:4], rtol=1e-4, atol=1e-6)


def test_eva_reads_the_leading_directions_of_what_goes_into_a_matrix() -> None:
    """A against an SVD of the activations themselves, which PEFT goes through in pieces."""
    training = ll.find_bench("digits").splits().train
    batch = training.batch(torch.arange(64))
    plain, seen = base("lora"), []
    module = plain.get_submodule("vit.layers.2.attention.q_proj")
    module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().flatten(0, -2)))
    plain(**batch)
    vh = torch.linalg.svd(seen[0], full_matrices=False).Vh[:3]
    adapted = attach_method(base("lora"), MethodSpec(init_lora_weights="eva", r=3), seed=0, batches=[batch])
    delta = from_model(adapted)["vit.layers.2.attention.q_proj"]
    a = delta.lora_a / delta.lora_a.norm(dim=1, keepdim=True)
    assert float((vh @ a.mT).square().sum() / 3) > 0.85  # PEFT stops where a direction turns by less than a cosine of 0.99
    random = torch.linalg.qr(torch.randn(64, 3, generator=torch.Generator().manual_seed(0))).Q
    assert float((vh @ random).square().sum() / 3) < 0.15
    assert delta.frobenius() == 0


def test_eva_leaves_padding_out() -> None:
    from lora_lab.methods.tiny import tiny_model

    torch.manual_seed(0)
    model = tiny_model("bert", device="cpu")
    tokens, mask = torch.randint(3, 40, (8, 6)), torch.ones(8, 6, dtype=torch.long)
    padded = torch.cat([tokens, torch.zeros(8, 4, dtype=torch.long)], dim=1)
    wide = torch.cat([mask, torch.zeros(8, 4, dtype=torch.long)], dim=1)
    import copy

    spec, found = MethodSpec(init_lora_weights="eva", r=2), []
    for batch in ({"input_ids": tokens, "attention_mask": mask}, {"input_ids": padded, "attention_mask": wide}):
        adapted = attach_method(copy.deepcopy(model), spec, seed=0, batches=[batch])
        found.append(from_model(adapted)["bert.encoder.layer.1.attention.self.value"].lora_a)
    cosines = (found[0] * found[1]).sum(1) / (found[0].norm(dim=1) * found[1].norm(dim=1))
    assert cosines.abs().min() > 0.999


def test_eva_without_data_is_refused() -> None:
    with pytest.raises(SpecError, match="read off data"):
        attach_method(base("lora"), MethodSpec(init_lora_weights="eva"), seed=0)


def test_eva_with_fewer_positions_than_directions_is_refused() -> None:
    batch = ll.find_bench("digits").splits()[0].batch(torch.arange(4))
    with pytest.raises(SpecError, match="at most the 4 positions of a batch"):
        attach_method(base("lora"), MethodSpec(init_lora_weights="eva", r=8), seed=0, batches=[batch])


@pytest.mark.parametrize("init", ["pissa", "olora", "orthogonal", "eva", "loftq"])
@pytest.mark.parametrize("method", ["dora", "qlora", "vera", "adalora"])
def test_start_values_go_with_the_methods_that_can_have_them(method: str, init: str) -> None:
    with pytest.raises(SpecError, match="init_lora_weights parameter of MethodSpec must be default or gaussian"):
        attach_method(base("lora"), MethodSpec(method=method, init_lora_weights=init, r=4))
