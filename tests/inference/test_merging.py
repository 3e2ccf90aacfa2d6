"""Merging an adapter: the same answers from one weight, and the base back to the bit."""

import sys
import warnings

import pytest
import torch
from torch import nn

from lora_lab.errors import MergeError, SpecError
from lora_lab.inference import merge, merge_costs, on_unquantized, unload_merged
from lora_lab.methods import quantized
from lora_lab.methods.quantized import keep_exact

_DECODER = ["q_proj", "v_proj", "down_proj"]
_BERT = ["query", "intermediate.dense"]


def config(kind, **values):
    import peft

    classes = {
        "lora": peft.LoraConfig,
        "vera": peft.VeraConfig,
        "adalora": peft.AdaLoraConfig,
        "ia3": peft.IA3Config,
        "ln": peft.LNTuningConfig,
        "prefix": peft.PrefixTuningConfig,
        "prompt": peft.PromptTuningConfig,
        "loha": peft.LoHaConfig,
        "adaption": peft.AdaptionPromptConfig,
    }
    return classes[kind](**values)


MERGEABLE = {
    "LoRA": ("llama", "lora", {"r": 3, "target_modules": _DECODER}),
    "rsLoRA": ("bert", "lora", {"r": 4, "use_rslora": True, "target_modules": _BERT}),
    "DoRA": ("llama", "lora", {"r": 3, "use_dora": True, "target_modules": _DECODER}),
    "LoRA on Conv1D": ("gpt2", "lora", {"r": 3, "target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True}),
    "DoRA on Conv1D": ("gpt2", "lora", {"r": 3, "target_modules": ["c_attn"], "fan_in_fan_out": True, "use_dora": True}),
    "LoRA on a tied embedding": ("gpt2", "lora", {"r": 3, "target_modules": ["wte"]}),
    "LoRA on a tied head": ("gpt2", "lora", {"r": 3, "target_modules": ["lm_head"]}),
    "LoRA and a head that was tied": ("gpt2", "lora", {"r": 3, "target_modules": ["c_attn"], "modules_to_save": ["lm_head"]}),
    "LoRA with its own bias": ("bert", "lora", {"r": 3, "target_modules": _BERT, "lora_bias": True}),
    "LoRA and the base's biases": ("bert", "lora", {"r": 3, "target_modules": _BERT, "bias": "all"}),
    "LoRA and a head": ("vit", "lora", {"r": 3, "target_modules": ["q_proj"], "modules_to_save": ["classifier"]}),
    "LoRA on experts": (
        "mixtral",
        "lora",
        {"r": 2, "target_modules": [], "target_parameters": ["experts.gate_up_proj", "experts.down_proj"]},
    ),
    "LoRA on half of the experts": (
        "mixtral",
        "lora",
        {"r": 2, "target_modules": ["q_proj"], "target_parameters": ["experts.down_proj"]},
    ),
    "VeRA": ("llama", "vera", {"r": 6, "target_modules": ["q_proj", "v_proj"]}),
    "AdaLoRA": ("bert", "adalora", {"init_r": 5, "target_modules": _BERT, "total_step": 10}),
    "IA3": ("bert", "ia3", {"target_modules": ["key", "value", "output.dense"], "feedforward_modules": ["output.dense"]}),
    "IA3 on Conv1D": (
        "gpt2",
        "ia3",
        {"target_modules": ["c_attn", "mlp.c_proj"], "feedforward_modules": ["mlp.c_proj"], "fan_in_fan_out": True},
    ),
    "LN tuning": ("bert", "ln", {"target_modules": ["LayerNorm"]}),
    "LoHa": ("bert", "loha", {"r": 3, "target_modules": _BERT}),
}


def off(found, expected):
    return float((found - expected).double().norm() / expected.double().norm())


@pytest.mark.parametrize("kind", MERGEABLE)
def test_merged_answers_as_unmerged_and_undoing_brings_back_every_bit(kind, tiny):
    family, method, values = MERGEABLE[kind]
    model = tiny.adapted(tiny.base(family), config(method, **values))
    inputs = tiny.batch(family)
    weights, trained = tiny.snapshot(model), [p.requires_grad for p in model.parameters()]
    unmerged = tiny.logits(model, inputs)
    plain = tiny.logits(tiny.base(family), inputs)

    merged = merge(model)
    assert off(tiny.logits(model, inputs), unmerged) < 1e-5 < off(plain, unmerged)
    merged.undo()

    tiny.assert_same(tiny.snapshot(model), weights)
    assert torch.equal(tiny.logits(model, inputs), unmerged)
    assert [p.requires_grad for p in model.parameters()] == trained


@pytest.mark.parametrize("kind", MERGEABLE)
def test_unloaded_is_a_plain_model_that_saves_and_trains_as_a_fresh_one(kind, tiny, tmp_path):
    family, method, values = MERGEABLE[kind]
    model = tiny.adapted(tiny.base(family), config(method, **values))
    inputs = tiny.batch(family)
    unmerged = tiny.logits(model, inputs)

    plain = unload_merged(model)
    assert off(tiny.logits(plain, inputs), unmerged) < 1e-5
    assert not any(type(module).__module__.startswith("peft") for module in plain.modules())
    fresh = tiny.base(family)
    assert {n: p.requires_grad for n, p in fresh.named_parameters()}.items() <= {
        n: p.requires_grad for n, p in plain.named_parameters()
    }.items()
    if plain.get_output_embeddings() is not None:
        tied = plain.get_output_embeddings().weight is plain.get_input_embeddings().weight
        assert plain.config.tie_word_embeddings == tied
    plain.save_pretrained(tmp_path)
    assert off(tiny.logits(type(plain).from_pretrained(tmp_path).eval(), inputs), unmerged) < 1e-5


def test_what_a_model_freezes_of_its_own_stays_frozen_and_the_rest_trains(tiny):
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "image_size": 8}
    decoder = {"decoder_hidden_size": 16, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
    fresh = ViTMAEForPreTraining(ViTMAEConfig(patch_size=4, decoder_intermediate_size=16, num_channels=1, **size, **decoder))
    own = {name: parameter.requires_grad for name, parameter in fresh.named_parameters()}
    assert set(own.values()) == {True, False}
    plain = unload_merged(tiny.adapted(fresh, config("lora", target_modules="all-linear")))
    assert {name: parameter.requires_grad for name, parameter in plain.named_parameters()} == own
    plain(**tiny.batch("vit")).loss.backward()
    assert all(parameter.grad is not None for name, parameter in plain.named_parameters() if "decoder_pred" in name)


def test_kept_bytes_are_those_of_the_changed_weights(tiny):
    model = tiny.adapted(tiny.base("llama"), config("lora", r=3, target_modules=_DECODER))
    merged = merge(model)
    # q (24, 24), v (12, 24), down (24, 40), two layers, four bytes each
    assert merged.kept_bytes == 2 * 4 * (24 * 24 + 12 * 24 + 24 * 40)
    merged.undo()
    assert merged.kept_bytes == 0
    merged.undo()


def test_layer_norms_are_swapped_so_nothing_is_kept(tiny):
    with merge(tiny.adapted(tiny.base("bert"), config("ln", target_modules=["LayerNorm"]))) as merged:
        assert merged.kept_bytes == 0


def test_only_the_targeted_experts_are_kept(tiny):
    values = {"r": 2, "target_modules": [], "target_parameters": ["experts.down_proj"]}
    with merge(tiny.adapted(tiny.base("mixtral"), config("lora", **values))) as merged:
        assert merged.kept_bytes == 2 * 4 * (4 * 24 * 40)


def test_as_a_context_it_undoes_even_when_the_body_fails(tiny):
    model = tiny.adapted(tiny.base("llama"), config("lora", target_modules=_DECODER))
    before = tiny.snapshot(model)
    with pytest.raises(KeyError), merge(model):
        raise KeyError
    tiny.assert_same(tiny.snapshot(model), before)


def test_a_named_adapter_is_merged_and_the_active_one_comes_back(tiny):
    inputs = tiny.batch("llama")
    model = tiny.adapted(tiny.base("llama"), config("lora", r=3, target_modules=_DECODER))
    model.add_adapter("other", config("lora", r=2, init_lora_weights=False, target_modules=["q_proj", "o_proj"]))
    trained = [p.requires_grad for p in model.parameters()]
    first = tiny.logits(model, inputs)
    model.set_adapter("other")
    second = tiny.logits(model, inputs)
    model.set_adapter("default")
    with merge(model, adapter_name="other"):
        assert off(tiny.logits(model, inputs), second) < 1e-5 < off(first, second)
    assert model.active_adapters == ["default"]
    assert torch.equal(tiny.logits(model, inputs), first)
    assert [p.requires_grad for p in model.parameters()] == trained
    assert off(tiny.logits(unload_merged(model, adapter_name="other"), inputs), second) < 1e-5


def test_merging_twice_is_refused(tiny):
    model = tiny.adapted(tiny.base("llama"), config("lora", target_modules=_DECODER))
    with merge(model), pytest.raises(MergeError, match="must be a model with no adapter merged"):
        merge(model)
    model.merge_adapter()
    with pytest.raises(MergeError, match="undo that first"):
        merge(model)


def with_bottlenecks(model):
    from lora_lab.live_geometry import read_geometry
    from lora_lab.methods.bottleneck import add_bottlenecks

    add_bottlenecks(model, read_geometry(model), ("o",), r=2, layers=None, dtype=torch.float32)
    return model


def test_what_changes_no_weights_is_refused_in_one_sentence(tiny):
    sentence = r"^The model parameter of merge must be a PEFT model whose adapter changes weights \(LoRA, IA3, …\)\. Got '{}'\.$"
    bottleneck = with_bottlenecks(tiny.base("llama"))
    refused = {
        "PREFIX_TUNING": tiny.adapted(tiny.base("llama"), config("prefix", num_virtual_tokens=2, task_type="CAUSAL_LM")),
        "PROMPT_TUNING": tiny.adapted(tiny.base("llama"), config("prompt", num_virtual_tokens=2, task_type="CAUSAL_LM")),
        "LlamaForCausalLM": bottleneck,
    }
    for name, model in refused.items():
        for function in (merge, unload_merged, lambda m: merge_costs(m, [])):
            with pytest.raises(MergeError, match=sentence.format(name)):
                function(model)


def test_several_active_adapters_are_refused(tiny):
    model = tiny.adapted(tiny.base("llama"), config("lora", target_modules=_DECODER))
    model.add_adapter("other", config("lora", target_modules=_DECODER))
    model.base_model.set_adapter(["default", "other"])
    with pytest.raises(MergeError, match=r"must be given where not exactly one adapter is active. Got \['default', 'other'\]"):
        merge(model)


def test_an_unknown_adapter_is_refused(tiny):
    model = tiny.adapted(tiny.base("llama"), config("lora", target_modules=_DECODER))
    with pytest.raises(MergeError, match=r"The adapter_name parameter of merge must be one of \['default'\]. Got 'mine'"):
        merge(model, adapter_name="mine")


def test_a_broken_adapter_leaves_the_base_as_it_was(tiny):
    model = tiny.adapted(tiny.base("llama"), config("lora", target_modules=_DECODER))
    layers = model.base_model.model.model.layers
    with torch.no_grad():
        layers[1].mlp.down_proj.lora_B["default"].weight[0, 0] = float("nan")
    before = tiny.snapshot(model.base_model.model.model.layers[0])
    with pytest.raises(MergeError, match="default cannot be merged: NaNs detected"):
        merge(model)
    tiny.assert_same(tiny.snapshot(layers[0]), before)
    with torch.no_grad():
        layers[1].mlp.down_proj.lora_B["default"].weight[0, 0] = 0
    merge(model).undo()


def test_no_warning_of_rounding_escapes(tiny):
    model = tiny.adapted(tiny.base("gpt2"), config("ia3", **MERGEABLE["IA3 on Conv1D"][2]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        merge(model).undo()


QUANTIZED_METHODS = {
    "LoRA": ("lora", {"r": 3, "target_modules": _DECODER}),
    "DoRA": ("lora", {"r": 3, "use_dora": True, "target_modules": _DECODER}),
    "VeRA": ("vera", {"r": 6, "target_modules": ["q_proj", "v_proj"]}),
    "AdaLoRA": ("adalora", {"init_r": 5, "target_modules": _DECODER, "total_step": 10}),
    "IA3": ("ia3", {"target_modules": ["k_proj", "down_proj"], "feedforward_modules": ["down_proj"]}),
}
# 8-bit layers round their inputs to 8 bits too, which a merged one does not
TOLERANCE = {"nf4": 1e-5, "nf4-dq": 1e-5, "int8": 0.05}


@pytest.mark.parametrize("how", TOLERANCE)
@pytest.mark.parametrize("kind", QUANTIZED_METHODS)
def test_a_quantized_base_is_dequantized_and_comes_back_quantized(kind, how, tiny, few_bits):
    method, values = QUANTIZED_METHODS[kind]
    model = tiny.adapted(few_bits(how), config(method, **values))
    inputs = tiny.batch("llama")
    unmerged = tiny.logits(model, inputs)
    weights = tiny.snapshot(model)
    adapted_layer = next(name for name, module in model.named_modules() if name.endswith(f"layers.0.{_first(values)}"))

    with merge(model, dtype=torch.float32) as merged:
        stand_in = model.get_submodule(adapted_layer)
        assert isinstance(stand_in, nn.Linear)
        assert type(stand_in).__module__.startswith("lora_lab")
        assert stand_in.weight.dtype == torch.float32
        assert off(tiny.logits(model, inputs), unmerged) < TOLERANCE[how]
        assert merged.kept_bytes > 0
    tiny.assert_same(tiny.snapshot(model), weights)
    assert torch.equal(tiny.logits(model, inputs), unmerged)


def _first(values):
    name = values["target_modules"][0]
    return f"self_attn.{name}"


def test_the_stand_in_computes_in_the_layers_own_dtype(tiny, few_bits):
    model = tiny.adapted(few_bits("nf4"), config("lora", r=3, target_modules=_DECODER))
    for module in model.modules():
        if type(module).__name__ == "Linear4bit" and hasattr(module, "compute_dtype"):
            module.compute_dtype = torch.bfloat16
    unmerged = tiny.logits(model, tiny.batch("llama"))
    with merge(model):
        assert model.base_model.model.model.layers[0].self_attn.q_proj.weight.dtype == torch.bfloat16
        found = tiny.logits(model, tiny.batch("llama"))
    assert found.dtype == torch.float32
    assert off(found, unmerged) < 0.02


def test_an_8_bit_layer_computes_in_float16(tiny, few_bits):
    model = tiny.adapted(few_bits("int8"), config("lora", r=3, target_modules=_DECODER))
    unmerged = tiny.logits(model, tiny.batch("llama"))
    with merge(model):
        assert model.base_model.model.model.layers[0].self_attn.q_proj.weight.dtype == torch.float16
        assert off(tiny.logits(model, tiny.batch("llama")), unmerged) < TOLERANCE["int8"]


def test_a_quantized_conv1d_is_a_conv1d_again_when_unloaded(tiny, tmp_path):
    conv1d = tiny.quantize("gpt2", "nf4", tmp_path / "base")
    model = tiny.adapted(conv1d, config("lora", r=3, target_modules=["c_attn", "mlp.c_proj"]))
    inputs = tiny.batch("gpt2")
    unmerged = tiny.logits(model, inputs)
    plain = unload_merged(model)
    plain.save_pretrained(tmp_path / "merged")
    assert off(tiny.logits(plain, inputs), unmerged) < 1e-5
    assert off(tiny.logits(type(plain).from_pretrained(tmp_path / "merged").eval(), inputs), unmerged) < 1e-5


@pytest.mark.parametrize("double", [False, True])
def test_a_layer_that_was_repacked_is_unpacked(double):
    import bitsandbytes as bnb

    if not bnb.functional.has_avx512bf16():
        pytest.skip("this processor has no AVX512-BF16, so that bitsandbytes repacks nothing")
    layer = bnb.nn.Linear4bit(128, 64, quant_type="nf4", compress_statistics=double).to("cpu").eval()
    weight = quantized.dequantize(layer, torch.float32).weight
    with torch.no_grad():
        layer(torch.randn(2, 128))
    assert layer.weight.quant_state.packing_format_for_cpu
    keep_exact(nn.Sequential(layer))
    assert off(quantized.dequantize(layer, torch.float32).weight, weight) < 2**-8
    with torch.no_grad():
        assert off(layer(torch.eye(128)).T - layer.bias[:, None], weight) < 2**-8


@pytest.mark.parametrize("how", TOLERANCE)
def test_an_unloaded_quantized_model_is_plain_and_loads_again(how, tiny, few_bits, tmp_path):
    model = tiny.adapted(few_bits(how), config("lora", r=3, target_modules=_DECODER))
    inputs = tiny.batch("llama")
    unmerged = tiny.logits(model, inputs)
    plain = unload_merged(model)
    assert {type(m).__module__.split(".")[0] for m in plain.modules()} <= {"torch", "transformers"}
    assert {p.dtype for p in plain.parameters()} == {torch.float32}
    assert all(p.requires_grad for p in plain.parameters())
    plain.save_pretrained(tmp_path)
    again = type(plain).from_pretrained(tmp_path).eval()
    assert off(tiny.logits(plain, inputs), unmerged) < TOLERANCE[how]
    assert torch.equal(tiny.logits(again, inputs), tiny.logits(plain, inputs))


@pytest.mark.parametrize("how", TOLERANCE)
def test_merging_into_few_bits_again_costs_most(how, tiny, few_bits):
    model = tiny.adapted(few_bits(how), config("lora", r=3, target_modules=_DECODER))
    inputs = tiny.batch("llama")
    unmerged, weights = tiny.logits(model, inputs), tiny.snapshot(model)
    states = [getattr(module, "quant_state", None) for module in model.modules()]
    costs = {cost.name: cost.difference for cost in merge_costs(model, [inputs, tiny.batch("llama", seed=5)])}
    assert list(costs) == ["fp32", "bf16", how]
    if how != "int8":
        assert costs["fp32"] < 1e-5 < costs["bf16"] < 0.01 < costs[how] < 0.5
    else:
        assert 0 < costs["fp32"] < TOLERANCE[how]
    assert all(getattr(m, "quant_state", None) is state for m, state in zip(model.modules(), states, strict=True))
    tiny.assert_same(tiny.snapshot(model), weights)
    assert torch.equal(tiny.logits(model, inputs), unmerged)


def test_what_peft_cannot_merge_into_few_bits_is_missing(tiny, few_bits):
    model = tiny.adapted(few_bits("nf4"), config("ia3", **QUANTIZED_METHODS["IA3"][1]))
    costs = merge_costs(model, [tiny.batch("llama")])
    assert [cost.difference is None for cost in costs] == [False, False, True]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_costs_on_a_plain_base_are_two_and_the_model_comes_back(dtype, tiny):
    model = tiny.adapted(tiny.base("llama", dtype=dtype), config("lora", r=3, target_modules=_DECODER)).train()
    weights = tiny.snapshot(model)
    fp32, bf16 = merge_costs(model, [tiny.batch("llama")])
    assert (fp32.name, bf16.name) == ("fp32", "bf16")
    floor = 1e-5 if dtype == torch.float32 else 0.02
    assert fp32.difference < floor
    assert 1e-4 < bf16.difference < 0.02
    tiny.assert_same(tiny.snapshot(model), weights)
    assert model.training


def test_the_bf16_cost_is_that_of_the_rounded_merged_weights(tiny):
    model = tiny.adapted(tiny.base("llama"), config("lora", r=3, target_modules=["q_proj"]))
    inputs = tiny.batch("llama")
    unmerged = tiny.logits(model, inputs)
    by_hand = tiny.base("llama")
    for ours, theirs in zip(by_hand.model.layers, model.base_model.model.model.layers, strict=True):
        lora = theirs.self_attn.q_proj
        update = lora.scaling["default"] * lora.lora_B["default"].weight @ lora.lora_A["default"].weight
        ours.self_attn.q_proj.weight.data += update.detach()
        ours.self_attn.q_proj.weight.data = ours.self_attn.q_proj.weight.data.bfloat16().float()
    expected = off(tiny.logits(by_hand, inputs), unmerged)
    assert merge_costs(model, [inputs])[1].difference == pytest.approx(expected, rel=1e-3)


def test_rounding_layer_norms_does_not_round_the_adapter(tiny):
    model = tiny.adapted(tiny.base("bert"), config("ln", target_modules=["LayerNorm"]))
    weights = tiny.snapshot(model)
    assert merge_costs(model, [tiny.batch("bert")])[1].difference > 1e-4
    tiny.assert_same(tiny.snapshot(model), weights)


def test_no_batch_is_refused(tiny):
    model = tiny.adapted(tiny.base("llama"), config("lora", target_modules=_DECODER))
    with pytest.raises(MergeError, match="batches parameter of merge_costs must be at least one batch"):
        merge_costs(model, [])


def test_the_same_adapter_on_the_quantized_base_answers_differently(tiny, few_bits):
    values = config("lora", r=3, target_modules=_DECODER)
    ours, plain = tiny.adapted(few_bits("nf4"), values), tiny.adapted(tiny.base("llama"), values)
    inputs = tiny.batch("llama")
    found = on_unquantized(ours, plain, [inputs])
    assert found == pytest.approx(off(tiny.logits(ours, inputs), tiny.logits(plain, inputs)))
    assert 0.001 < found < 0.5
    assert on_unquantized(plain, plain, [inputs]) == 0


def test_without_bitsandbytes_a_quantized_base_is_refused_in_one_sentence(tiny, few_bits, monkeypatch):
    model = tiny.adapted(few_bits("nf4"), config("lora", target_modules=_DECODER))
    before = tiny.snapshot(model)
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "bitsandbytes", None)
        with pytest.raises(SpecError, match="needs bitsandbytes, which is not installed: pip install bitsandbytes"):
            merge(model)
    tiny.assert_same(tiny.snapshot(model), before)


def test_the_package_loads_without_bitsandbytes():
    import subprocess

    code = "import sys; sys.modules['bitsandbytes'] = None; import lora_lab.methods.quantized"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_exact_layers_never_repack(tiny, few_bits):
    model = few_bits("nf4")
    keep_exact(model)
    layer = model.model.layers[0].self_attn.q_proj
    before = layer.weight.data.clone()
    tiny.logits(model, tiny.batch("llama"))
    assert torch.equal(layer.weight.data, before)
    assert not getattr(layer.weight.quant_state, "packing_format_for_cpu", False)
