"""Every method's ΔW, live and from its file, against PEFT's own merge minus the original weights."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import (
    AdaLoraConfig,
    IA3Config,
    LNTuningConfig,
    LoraConfig,
    PeftConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptTuningConfig,
    VeraConfig,
    get_peft_model,
)
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lora_lab.adapters import Adapter, from_model, load_adapter, save, save_initial
from lora_lab.errors import AdapterError
from lora_lab.live_geometry import read_geometry
from lora_lab.methods.tiny import tiny_model
from lora_lab.weights import BaseWeights

# (what reads the hidden state, what reads the width within a layer); few of them square
TARGETS: dict[str, tuple[list[str], list[str]]] = {
    "bert": (["query", "intermediate.dense"], ["output.dense"]),
    "gpt2": (["c_attn", "c_fc"], ["mlp.c_proj"]),
    "llama": (["q_proj", "v_proj", "gate_proj"], ["down_proj"]),
    "vit": (["q_proj", "fc1"], ["fc2"]),
}
NORMS = {"bert": ["LayerNorm"], "gpt2": ["ln_1"], "llama": ["input_layernorm"], "vit": ["layernorm_before"]}
TASKS = {"bert": "SEQ_CLS", "gpt2": "CAUSAL_LM", "llama": "CAUSAL_LM"}
IDS = {"input_ids": torch.arange(3, 15).reshape(2, 6)}
INPUTS = {**dict.fromkeys(TASKS, IDS), "vit": {"pixel_values": torch.linspace(-1, 1, 128).reshape(2, 1, 8, 8)}}


def every(family: str) -> dict[str, Any]:
    """Fields of a config that adapts all the targets of a family."""
    return {"target_modules": [*TARGETS[family][0], *TARGETS[family][1]], "fan_in_fan_out": family == "gpt2"}


CHANGING: dict[str, Callable[[str], PeftConfig]] = {
    "lora": lambda f: LoraConfig(r=3, lora_alpha=5, **every(f)),
    "rslora": lambda f: LoraConfig(r=3, lora_alpha=5, use_rslora=True, **every(f)),
    "dora": lambda f: LoraConfig(r=3, lora_alpha=5, use_dora=True, **every(f)),
    "vera": lambda f: VeraConfig(r=5, **every(f)),
    "adalora": lambda f: AdaLoraConfig(init_r=4, target_r=2, lora_alpha=5, total_step=9, **every(f)),
    "ia3": lambda f: IA3Config(feedforward_modules=TARGETS[f][1], **every(f)),
}
KEEPING: dict[str, Callable[[str], PeftConfig]] = {
    "LN tuning": lambda f: LNTuningConfig(target_modules=NORMS[f]),
    "Prefix tuning": lambda f: PrefixTuningConfig(num_virtual_tokens=3, task_type=TASKS[f]),
    "Prompt tuning": lambda f: PromptTuningConfig(num_virtual_tokens=3, task_type=TASKS[f]),
}
families = pytest.mark.parametrize("family", TARGETS)
changing = pytest.mark.parametrize("method", CHANGING)
CELLS = [(f, m) for f in TARGETS for m in (*CHANGING, *KEEPING) if f != "vit" or m not in ("Prefix tuning", "Prompt tuning")]


def fresh(family: str) -> nn.Module:
    """The same tiny base at every call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return tiny_model(family, device="cpu").eval()


def trained(config: PeftConfig, base: nn.Module) -> PeftModel:
    """The base with the method on it, all that it trains moved away from its start."""
    return scrambled(get_peft_model(base, config))


def scrambled(model: PeftModel, *, std: float = 0.4) -> PeftModel:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += std * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def attached(family: str, method: str) -> PeftModel:
    return trained((CHANGING | KEEPING)[method](family), fresh(family))


def maps(model: nn.Module) -> dict[str, Tensor]:
    """Every linear map of a plain model as (d_out, d_in), float64; an expert as name[i]."""
    found = {}
    for matrix in read_geometry(model).matrices:
        if matrix.kind == "experts":
            owner, _, name = matrix.name.rpartition(".")
            stack = getattr(module := model.get_submodule(owner), name).detach().double()
            stack = stack.mT if getattr(module, "is_transposed", False) else stack
            found |= {f"{matrix.name}[{i}]": weight for i, weight in enumerate(stack)}
        else:
            weight = model.get_submodule(matrix.name).weight.detach().double()
            found[matrix.name] = weight.mT if matrix.kind == "conv1d" else weight
    return found


def merged_minus(model: PeftModel, original: nn.Module) -> dict[str, Tensor]:
    """What PEFT's merge, in float64, changes of the original's matrices."""
    merged, before = maps(copy.deepcopy(model).double().merge_and_unload()), maps(original)
    return {name: merged[name] - before[name] for name in merged if not torch.equal(merged[name], before[name])}


def assert_same(adapter: Adapter, expected: dict[str, Tensor]) -> None:
    assert adapter.keys() == expected.keys()
    assert len(expected) > 0
    for name, delta in expected.items():
        error = torch.linalg.matrix_norm(adapter[name].dense() - delta) / torch.linalg.matrix_norm(delta)
        assert float(error) < 1e-5, name


def weights_of(base: nn.Module, folder: Path) -> BaseWeights:
    base.save_pretrained(folder)
    return BaseWeights(folder, read_geometry(base).matrices)


@families
@changing
def test_a_live_delta_w_is_what_peft_merges(family: str, method: str) -> None:
    model = attached(family, method)
    assert_same(from_model(model), merged_minus(model, fresh(family)))


@families
@changing
def test_a_saved_delta_w_is_what_peft_merges(family: str, method: str, tmp_path: Path) -> None:
    model = attached(family, method)
    save(model, tmp_path / "adapter", base_name="base", step=3)
    adapter = load_adapter(tmp_path / "adapter", base=weights_of(fresh(family), tmp_path / "base"))
    assert_same(adapter, merged_minus(model, fresh(family)))
    assert adapter.warnings == ()


def test_the_matrices_of_these_tests_are_not_all_square() -> None:
    for family in TARGETS:
        shapes = {delta.shape for delta in from_model(attached(family, "lora")).values()}
        assert any(d_out > d_in for d_out, d_in in shapes)
        assert any(d_out < d_in for d_out, d_in in shapes)


@pytest.mark.parametrize("method", ["dora", "vera", "adalora", "ia3"])
@families
def test_delta_w_is_zero_at_the_start_and_has_no_direction(family: str, method: str) -> None:
    adapter = from_model(get_peft_model(fresh(family), CHANGING[method](family)))
    assert len(adapter) > 0
    for delta in adapter.values():
        assert (delta.frobenius(), delta.numerical_rank) == (0.0, 0)


@pytest.mark.filterwarnings("ignore:Unsupported layer type")  # LN tuning asks a norm for its in_features
@pytest.mark.parametrize(("family", "method"), CELLS)
def test_plain_peft_loads_what_was_saved_and_gives_the_same_logits(family: str, method: str, tmp_path: Path) -> None:
    model = attached(family, method)
    save(model, tmp_path / "adapter", base_name="base", step=3)
    loaded = PeftModel.from_pretrained(fresh(family), str(tmp_path / "adapter")).eval()
    with torch.no_grad():
        expected = model(**INPUTS[family]).logits
        assert torch.equal(loaded(**INPUTS[family]).logits, expected)
        plain = fresh(family)(**INPUTS[family]).logits
        assert plain.shape != expected.shape or not torch.allclose(plain, expected)  # virtual tokens have logits too


@pytest.mark.filterwarnings("ignore:Unsupported layer type")
@pytest.mark.parametrize(("family", "method"), [cell for cell in CELLS if cell[1] in KEEPING])
def test_a_method_that_changes_no_matrix_has_no_delta_w_and_says_so(family: str, method: str, tmp_path: Path) -> None:
    model = attached(family, method)
    save(model, tmp_path / "adapter", base_name="base", step=3)
    adapter = load_adapter(tmp_path / "adapter")
    assert len(from_model(model)) == len(adapter) == 0
    (warning,) = adapter.warnings
    assert warning.startswith(method)
    assert warning.endswith("changes no matrix.")


# What needs the base.


def test_ia3_without_its_base_is_refused(tmp_path: Path) -> None:
    save(attached("llama", "ia3"), tmp_path / "adapter", base_name="base", step=3)
    with pytest.raises(AdapterError, match=r"^An IA3 adapter must be read with the base, whose weights it scales\. Got none\.$"):
        load_adapter(tmp_path / "adapter")


def test_dora_without_its_base_is_its_direction_and_warns(tmp_path: Path) -> None:
    model = attached("llama", "dora")
    save(model, tmp_path / "adapter", base_name="base", step=3)
    adapter = load_adapter(tmp_path / "adapter")
    assert [warning[:5] for warning in adapter.warnings] == ["DoRA:"]
    for name, delta in adapter.items():
        layer = model.get_submodule(f"base_model.model.{name}")
        expected = layer.get_delta_weight("default").detach().double()
        torch.testing.assert_close(delta.dense(), expected, rtol=1e-5, atol=1e-6)


def test_vera_is_read_without_its_base_where_all_matrices_read_the_hidden_state(tmp_path: Path) -> None:
    model = trained(VeraConfig(r=5, target_modules=["q_proj", "v_proj"]), fresh("llama"))
    save(model, tmp_path / "adapter", base_name="base", step=3)
    assert_same(load_adapter(tmp_path / "adapter"), merged_minus(model, fresh("llama")))


def test_vera_of_matrices_of_several_widths_is_refused_without_its_base(tmp_path: Path) -> None:
    save(attached("bert", "vera"), tmp_path / "adapter", base_name="base", step=3)
    with pytest.raises(AdapterError, match=r"^A VeRA adapter of dense, query must be read with the base, for their widths\."):
        load_adapter(tmp_path / "adapter")


def test_vera_without_its_projections_is_refused(tmp_path: Path) -> None:
    save(attached("llama", "vera"), tmp_path / "adapter", base_name="base", step=3)
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file({key: x for key, x in load_file(path).items() if "vera_A" not in key}, path)
    with pytest.raises(AdapterError, match=r"must hold its projections .* without base_model\.vera_A\.$"):
        load_adapter(tmp_path / "adapter", base=weights_of(fresh("llama"), tmp_path / "base"))


@pytest.mark.parametrize("method", ["dora", "ia3"])
def test_an_adapter_of_another_base_is_refused_in_one_sentence(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)  # as users run it: tests alone check shapes at the call
    save(attached("llama", method), tmp_path / "adapter", base_name="base", step=3)
    with pytest.raises(AdapterError, match=r"must fit each other and the base\. They do not: .*\.$") as refusal:
        load_adapter(tmp_path / "adapter", base=weights_of(fresh("gemma"), tmp_path / "gemma"))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(("method", "key"), [("adalora", "lora_E"), ("vera", "vera_B"), ("vera", "vera_lambda_d")])
def test_tensors_that_do_not_go_together_are_refused_in_one_sentence(
    method: str, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)
    model = trained(VeraConfig(r=5, target_modules=["q_proj"]), fresh("llama")) if method == "vera" else attached("llama", method)
    save(model, tmp_path / "adapter", base_name="base", step=3)
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file({name: x[:3].clone() if key in name else x for name, x in load_file(path).items()}, path)
    with pytest.raises(AdapterError, match=r"must fit each other and the base\. They do not: .*\.$"):
        load_adapter(tmp_path / "adapter")


# AdaLoRA prunes ranks.


def pruned(model: PeftModel, *, revived: bool) -> PeftModel:
    """As PEFT's allocator leaves it, one matrix without any rank; `revived`: a later step has moved the ranks off zero again."""
    pattern = {}
    with torch.no_grad():
        for number, (name, e) in enumerate(x for x in model.base_model.model.named_parameters() if ".lora_E." in x[0]):
            kept = torch.tensor([True, False, True, False]) if number else torch.zeros(4, dtype=torch.bool)
            pattern[name] = kept.tolist()
            e[~kept] = 0.01 if revived else 0.0
    model.peft_config["default"].rank_pattern = pattern
    return model


@pytest.mark.filterwarnings("ignore:Adapter 'default'. .* have invalid shape")  # PEFT of the matrix that has no rank left
def test_ranks_that_peft_left_out_of_the_file_are_zeros_in_the_model(tmp_path: Path) -> None:
    model = pruned(attached("llama", "adalora"), revived=False)
    live, expected = from_model(model), merged_minus(model, fresh("llama"))
    model.save_pretrained(str(tmp_path / "adapter"), save_embedding_layers=False)
    stored = load_adapter(tmp_path / "adapter")
    assert sorted({delta.r for delta in stored.values()}) == [1, 2]
    assert live.keys() == stored.keys()
    assert {name for name, delta in stored.items() if delta.numerical_rank} == expected.keys()
    for name, delta in stored.items():
        torch.testing.assert_close(delta.dense(), live[name].dense(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("revived", [True, False])
def test_saving_between_two_prunings_keeps_every_rank_and_the_live_pattern(revived: bool, tmp_path: Path) -> None:
    model = pruned(attached("llama", "adalora"), revived=revived)
    pattern = copy.deepcopy(model.peft_config["default"].rank_pattern)
    save(model, tmp_path / "adapter", base_name="base", step=3)
    assert model.peft_config["default"].rank_pattern == pattern
    loaded = PeftModel.from_pretrained(fresh("llama"), str(tmp_path / "adapter")).eval()
    with torch.no_grad():
        assert torch.equal(loaded(**IDS).logits, model(**IDS).logits)


# Experts lie in one parameter.


def mixture(family: str, parameters: list[str], **fields: Any) -> PeftModel:
    names = [f"mlp.experts.{name}" for name in parameters]
    config = LoraConfig(r=2, lora_alpha=3, target_modules=["q_proj"], target_parameters=names, **fields)
    return trained(config, fresh(family))


EXPERTS = [
    ("mixtral", ["gate_up_proj", "down_proj"], {}),
    ("mixtral", ["down_proj"], {"use_rslora": True}),
    ("gpt_oss", ["gate_up_proj", "down_proj"], {}),
    ("gpt_oss", ["gate_up_proj"], {"rank_pattern": {"experts.gate_up_proj": 3}, "alpha_pattern": {"gate_up_proj": 7}}),
    ("qwen3_moe", ["down_proj", "gate_up_proj"], {"rank_pattern": {"down_proj": 4}}),
]


@pytest.mark.filterwarnings(r"ignore:The following (rank|alpha)_pattern keys did not match")  # PEFT looks among modules alone
@pytest.mark.parametrize(("family", "parameters", "fields"), EXPERTS)
def test_each_expert_of_a_parameter_has_its_delta_w(
    family: str, parameters: list[str], fields: dict[str, Any], tmp_path: Path
) -> None:
    model = mixture(family, parameters, **fields)
    expected = merged_minus(model, fresh(family))
    assert f"model.layers.1.mlp.experts.{parameters[0]}[3]" in expected
    assert_same(from_model(model), expected)
    save(model, tmp_path / "adapter", base_name="base", step=3)
    assert_same(load_adapter(tmp_path / "adapter"), expected)
    assert_same(load_adapter(tmp_path / "adapter", base=weights_of(fresh(family), tmp_path / "base")), expected)


# What moves the base: PiSSA and OLoRA.

MOVING: dict[str, dict[str, Any]] = {
    "pissa": {"init_lora_weights": "pissa"},
    "olora": {"init_lora_weights": "olora"},
    "rslora": {"init_lora_weights": "pissa", "use_rslora": True, "alpha_pattern": {"value": 9}, "rank_pattern": {"query": 5}},
    "patterns": {"init_lora_weights": "pissa", "alpha_pattern": {"value": 9}, "rank_pattern": {"query": 5}},
}


def moving(folder: Path, *, family: str = "bert", **fields: Any) -> PeftModel:
    """Attached, its start kept in a folder, then trained."""
    targets = {"bert": ["query", "value", "intermediate.dense"], "gpt2": ["c_attn", "mlp.c_proj"]}[family]
    config = LoraConfig(
        r=3,
        lora_alpha=4,
        target_modules=targets,
        fan_in_fan_out=family == "gpt2",
        task_type=TASKS[family] if family == "bert" else None,
        **fields,
    )
    model = get_peft_model(fresh(family), config)
    save_initial(model, folder)
    return scrambled(model, std=0.1)


@pytest.mark.filterwarnings("ignore:Using Rank-Stabilized LoRA")  # PEFT cannot convert it then; here it is done
@pytest.mark.parametrize("fields", MOVING.values(), ids=MOVING)
def test_what_moves_the_base_has_its_change_against_the_original(fields: dict[str, Any], tmp_path: Path) -> None:
    model = moving(tmp_path / "initial", **fields)
    expected = merged_minus(model, fresh("bert"))
    del expected["classifier"]  # a head, trained in full beside it
    adapter = from_model(model, start=load_adapter(tmp_path / "initial"))
    assert adapter.keys() == expected.keys()
    for name, delta in expected.items():  # the moved base is rounded to float32
        torch.testing.assert_close(adapter[name].dense(), delta, rtol=1e-5, atol=2e-7)


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_at_its_start_it_has_none(family: str, tmp_path: Path) -> None:
    config = LoraConfig(r=3, target_modules=["query"] if family == "bert" else ["c_attn"], init_lora_weights="pissa")
    config.fan_in_fan_out = family == "gpt2"
    model = get_peft_model(fresh(family), config)
    save_initial(model, tmp_path / "initial")
    adapter = from_model(model, start=load_adapter(tmp_path / "initial"))
    assert {delta.r for delta in adapter.values()} == {6}
    assert all(delta.numerical_rank == 0 for delta in adapter.values())


@pytest.mark.filterwarnings("ignore:Using Rank-Stabilized LoRA")
@pytest.mark.parametrize(("family", "fields"), [*(("bert", fields) for fields in MOVING.values()), ("gpt2", MOVING["pissa"])])
def test_it_is_saved_as_plain_lora_of_the_original_base(family: str, fields: dict[str, Any], tmp_path: Path) -> None:
    model = moving(tmp_path / "initial", family=family, **fields)
    save(model, tmp_path / "adapter", base_name="base", step=3, initial=tmp_path / "initial")
    loaded = PeftModel.from_pretrained(fresh(family), str(tmp_path / "adapter")).eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(**IDS).logits, model(**IDS).logits, rtol=1e-5, atol=1e-5)
    stored, live = load_adapter(tmp_path / "adapter"), from_model(model, start=load_adapter(tmp_path / "initial"))
    assert not [warning for warning in stored.warnings if "moves the base" in warning]
    assert stored.keys() == live.keys()
    for name, delta in stored.items():
        torch.testing.assert_close(delta.dense(), live[name].dense(), rtol=1e-12, atol=1e-14)


def test_saving_it_again_and_again_changes_nothing_of_the_live_model(tmp_path: Path) -> None:
    model = moving(tmp_path / "initial", **MOVING["patterns"]).train()
    config = json.dumps(model.peft_config["default"].to_dict(), default=sorted)
    state = {name: (p, p.detach().clone(), p.requires_grad) for name, p in model.named_parameters()}
    before = model.eval()(**IDS).logits
    files = []
    for _ in range(3):
        save(model, tmp_path / "adapter", base_name="base", step=3, initial=tmp_path / "initial")
        files.append((tmp_path / "adapter" / "adapter_model.safetensors").read_bytes())
    assert len(set(files)) == 1
    assert torch.equal(model(**IDS).logits, before)
    assert json.dumps(model.peft_config["default"].to_dict(), default=sorted) == config
    assert list(model.peft_config) == model.active_adapters == ["default"]
    after = dict(model.named_parameters())
    assert after.keys() == state.keys()
    for name, (parameter, value, requires_grad) in state.items():
        assert after[name] is parameter
        assert torch.equal(parameter, value)
        assert parameter.requires_grad is requires_grad


def test_dora_that_begins_as_pissa_is_saved_for_the_original_base_too(tmp_path: Path) -> None:
    model = moving(tmp_path / "initial", init_lora_weights="pissa", use_dora=True)
    save(model, tmp_path / "adapter", base_name="base", step=3, initial=tmp_path / "initial")
    loaded = PeftModel.from_pretrained(fresh("bert"), str(tmp_path / "adapter")).eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(**IDS).logits, model(**IDS).logits, rtol=1e-5, atol=1e-5)


# Trained in place: no PEFT at all.


@pytest.mark.parametrize("family", ["bert", "gpt2", "mixtral", "gpt_oss"])
def test_what_was_trained_in_place_is_w_minus_w0_where_it_changed(family: str) -> None:
    model, original = fresh(family), fresh(family)
    touched = [m for m in read_geometry(model).matrices if m.layer == 1]
    with torch.no_grad():
        for matrix in touched:
            parameter = dict(model.named_parameters())[matrix.name if matrix.kind == "experts" else f"{matrix.name}.weight"]
            parameter += torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    kept = {m.name: stacked(maps(original), m.name).float() for m in read_geometry(original).matrices}
    expected = {name: weight - maps(original)[name] for name, weight in maps(model).items() if "1." in name}
    assert_same(from_model(model, originals=kept), expected)


def stacked(found: dict[str, Tensor], name: str) -> Tensor:
    return found[name] if name in found else torch.stack([x for key, x in found.items() if key.startswith(f"{name}[")])


# A quantized base.


def on_quantized(bits: int, config: PeftConfig) -> PeftModel:
    """The method on one quantized layer of 64 to 128."""
    import bitsandbytes as bnb

    weight = torch.randn(128, 64, generator=torch.Generator().manual_seed(0))
    if bits == 4:
        layer = bnb.nn.Linear4bit(64, 128, bias=False, compute_dtype=torch.float32, quant_type="nf4")
        layer.weight = bnb.nn.Params4bit(weight, requires_grad=False, quant_type="nf4")
    else:
        layer = bnb.nn.Linear8bitLt(64, 128, bias=False, has_fp16_weights=False)
        layer.weight = bnb.nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
    base = nn.Sequential()
    base.add_module("proj", layer.to("cpu"))
    base.is_loaded_in_4bit, base.is_loaded_in_8bit = bits == 4, bits == 8  # as transformers marks a model
    return trained(config, base)


def assert_close_to(delta: Tensor, expected: Tensor, *, within: float) -> None:
    assert delta.shape == expected.shape == (128, 64)
    assert float(torch.linalg.matrix_norm(delta - expected)) < within * float(torch.linalg.matrix_norm(expected))


def on_proj(**fields: Any) -> dict[str, Any]:
    return {"r": 3, "lora_alpha": 5, "target_modules": ["proj"], **fields}


OF_4_BITS = {
    "lora": LoraConfig(**on_proj()),
    "dora": LoraConfig(**on_proj(use_dora=True)),
    "adalora": AdaLoraConfig(init_r=3, target_r=1, lora_alpha=5, total_step=9, target_modules=["proj"]),
    "ia3": IA3Config(target_modules=["proj"], feedforward_modules=[]),
    "ia3 of a feed-forward": IA3Config(target_modules=["proj"], feedforward_modules=["proj"]),
}


@pytest.mark.parametrize("config", OF_4_BITS.values(), ids=OF_4_BITS)
def test_on_a_base_of_4_bits_it_is_what_the_layer_adds(config: PeftConfig) -> None:
    model = on_quantized(4, copy.deepcopy(config)).train()
    layer, eye = model.base_model.model.proj, torch.eye(64)
    with torch.no_grad():
        expected = (layer(eye) - layer.base_layer(eye)).double().mT
        assert_close_to(from_model(model)["proj"].dense(), expected, within=1e-5)
        model.eval().base_model.model.proj.base_layer(eye)  # bitsandbytes packs it for the CPU now, its scales as bfloat16
    assert_close_to(from_model(model)["proj"].dense(), expected, within=5e-3)


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_on_a_base_of_8_bits_it_is_that_of_the_dequantized_weight_and_the_base_works_on(dora: bool) -> None:
    model = on_quantized(8, LoraConfig(**on_proj(use_dora=dora)))
    layer = model.base_model.model.proj
    stored = layer.base_layer.weight
    weight = stored.CB.double() * stored.SCB.double()[:, None] / 127
    moved = weight + 5 / 3 * (layer.lora_B["default"].weight @ layer.lora_A["default"].weight).detach().double()
    if dora:
        moved *= (layer.lora_magnitude_vector["default"].weight.detach().double() / moved.norm(dim=1))[:, None]
    for _ in range(2):
        assert_close_to(from_model(model)["proj"].dense(), moved - weight, within=1e-5)
        with torch.no_grad():
            assert torch.allclose(layer.base_layer(torch.eye(64)).double().mT, weight, atol=0.05)
