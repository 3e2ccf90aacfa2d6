"""Latency: variants over one base's weights, timed in turn; what merging does to logits, in each precision."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import lora_lab as ll
from lora_lab.analysis.timings import Shape
from lora_lab.errors import MergeError, SpecError
from lora_lab.inference import differences_of_random, differences_of_run, find_subject, logit_differences, measure_latency
from lora_lab.inference.interleaved import interleaved
from lora_lab.inference.subject import default_shapes, inputs_for
from lora_lab.inference.variants import random_lora, with_variants

CPU = torch.device("cpu")


class Clock:
    """A clock that only the calls move."""

    def __init__(self) -> None:
        self.now_s, self.log = 0.0, []

    def __call__(self) -> float:
        return self.now_s

    def call(self, name: str, taken_s: Callable[[int], float]) -> Callable[[], None]:
        def run() -> None:
            self.now_s += taken_s(len(self.log))
            self.log.append(name)

        return run


# Interleaving


def test_every_round_times_each_call_once_in_a_shuffled_order() -> None:
    clock = Clock()
    calls = {name: clock.call(name, lambda _: 1.0) for name in "abc"}
    interleaved(calls, repeats=10, warm_up=2, clock=clock, seed=1)
    rounds = [tuple(clock.log[i : i + 3]) for i in range(0, len(clock.log), 3)]
    assert len(rounds) == 12
    assert all(sorted(one) == ["a", "b", "c"] for one in rounds)
    assert len(set(rounds)) > 1
    again = Clock()
    interleaved({name: again.call(name, lambda _: 1.0) for name in "abc"}, repeats=10, warm_up=2, clock=again, seed=1)
    assert again.log == clock.log


def test_times_are_the_clocks_and_warm_up_does_not_count() -> None:
    clock = Clock()
    calls = {"a": clock.call("a", lambda n: 100.0 if n < 2 else 1.0), "b": clock.call("b", lambda n: 100.0 if n < 2 else 2.5)}
    assert interleaved(calls, repeats=3, warm_up=1, clock=clock) == {"a": [1.0] * 3, "b": [2.5] * 3}


def test_of_several_passes_the_least_is_the_rounds() -> None:
    clock = Clock()
    calls = {"a": clock.call("a", lambda n: 1.0 + n % 4)}
    assert interleaved(calls, repeats=2, passes=4, warm_up=0, clock=clock) == {"a": [1.0, 1.0]}


def test_a_measurement_has_a_round() -> None:
    with pytest.raises(SpecError, match=r"The repeats parameter of latency must be at least 1. Got 0"):
        interleaved({"a": lambda: None}, repeats=0)


# Variants


def graph(model: nn.Module) -> list[object]:
    """Every module: its name, its kind, the shapes of its parameters."""
    return [(name, type(m), [p.shape for p in m._parameters.values() if p is not None]) for name, m in model.named_modules()]


def test_a_merged_base_is_the_bases_own_graph() -> None:
    models, _ = with_variants(find_subject("digits"), r=4, seed=0, device=CPU)
    base, merged, lora = (graph(models[name]) for name in ("base", "merged", "lora"))
    assert merged == base
    assert len(lora) > len(base)


def test_variants_share_the_bases_weights_and_leave_them_alone() -> None:
    subject = find_subject("digits")
    models, _ = with_variants(subject, r=4, seed=0, device=CPU)
    base = {p.data_ptr() for p in models["base"].parameters()}
    own = {
        name: sum(p.numel() for p in model.parameters() if p.data_ptr() not in base)
        for name, model in models.items()
        if name != "base"
    }
    adapters = {
        name: ll.budget.method_params(subject.bench.geometry(), ll.MethodSpec(method=name, r=4)) for name in ("lora", "adapter")
    }
    q_and_v = 4 * 2 * (64 * 64)
    assert own["lora"] == adapters["lora"]
    assert own["adapter"] == adapters["adapter"]
    assert own["merged"] <= q_and_v + 4 * 2 * 64  # with their biases
    fresh = subject.build().state_dict()
    assert all(torch.equal(tensor, fresh[name]) for name, tensor in models["base"].state_dict().items())


@pytest.mark.parametrize("family", ["llama", "bert", "gpt2", "vit"])
def test_every_variant_answers_otherwise_than_the_base_and_merged_as_unmerged(family: str, tiny: SimpleNamespace) -> None:
    models, refused = with_variants(find_subject(lambda: tiny.base(family)), r=3, seed=0, device=CPU)
    inputs = tiny.batch(family)
    logits = {name: tiny.logits(model, inputs) for name, model in models.items()}
    torch.testing.assert_close(logits["merged"], logits["lora"], rtol=1e-4, atol=1e-5)
    assert all(not torch.equal(found, logits["base"]) for name, found in logits.items() if name != "base")
    assert {*models} | {one.name for one in refused} == {"base", "merged", "lora", "adapter", "adapter_pfeiffer", "prefix"}
    assert ("prefix" in models) is (family != "vit")


def test_a_random_adapter_is_as_large_as_it_is_said_to_be(tiny: SimpleNamespace) -> None:
    base = tiny.base("llama")
    weights = {name: module.weight.detach().clone() for name, module in base.named_modules() if name.endswith(("q_proj", "v_proj"))}
    model = random_lora(find_subject(lambda: base), base, r=2, seed=0)
    layers = {n.removeprefix("base_model.model."): m for n, m in model.named_modules() if hasattr(m, "get_delta_weight")}
    assert layers.keys() == weights.keys()
    for name, layer in layers.items():
        assert float(layer.get_delta_weight("default").detach().norm() / weights[name].norm()) == pytest.approx(0.1, rel=1e-5)


# Measuring


def test_a_language_model_is_measured_at_every_shape_with_every_variant(tiny: SimpleNamespace) -> None:
    record = measure_latency(lambda: tiny.base("llama"), [Shape(1, 4), Shape(2, 8)], r=2, repeats=8)
    assert [at.shape for at in record.shapes] == [Shape(1, 4), Shape(2, 8)]
    assert record.names == ("base", "merged", "lora", "adapter", "adapter_pfeiffer", "prefix")
    assert (record.refused, record.device, record.dtype, record.r) == ((), "cpu", "float32", 2)
    for at in record.shapes:
        for timing in at.timings:
            s = timing.seconds
            assert s.rounds == 8
            assert 0 < s.least <= s.q1 <= s.median <= s.q3
            assert (timing.ratio is None) is (timing.name == "base")
            assert (timing.told is None) is (timing.name == "base")


def test_what_a_base_cannot_take_is_a_sentence_and_no_number() -> None:
    record = measure_latency("digits", [Shape(2)], r=2, repeats=2)
    (refusal,) = record.refused
    assert refusal.name == "prefix"
    assert "takes none" in refusal.why
    assert "prefix" not in record.names


def test_a_base_that_reads_no_tokens_has_batch_sizes_alone() -> None:
    record = measure_latency("digits", [Shape(2, 32), Shape(2, 64), Shape(4)], r=2, repeats=1)
    assert [at.shape for at in record.shapes] == [Shape(2), Shape(4)]


def test_a_base_that_reads_tokens_needs_a_length(tiny: SimpleNamespace) -> None:
    with pytest.raises(SpecError, match="The shapes parameter of latency must be batch x tokens such as 8x128"):
        measure_latency(lambda: tiny.base("bert"), [Shape(2)], repeats=1)


def test_a_text_longer_than_the_base_reads_is_refused(tiny: SimpleNamespace) -> None:
    with pytest.raises(SpecError, match=r"The base cannot compute 1 × 50: "):
        measure_latency(lambda: tiny.base("bert"), [Shape(1, 50)], repeats=1)


def test_a_prefix_that_leaves_no_room_for_the_text_is_left_out_at_that_length(tiny: SimpleNamespace) -> None:
    record = measure_latency(lambda: tiny.base("gpt2"), [Shape(1, 8), Shape(1, 40)], r=4, repeats=1)
    short, long = record.shapes
    assert short.of("prefix") is not None
    assert long.of("prefix") is None
    assert [(one.name, one.shape) for one in record.refused] == [("prefix", Shape(1, 40))]


def test_a_bottleneck_hundreds_of_times_as_wide_takes_longer() -> None:
    narrow, wide = (measure_latency("digits", [Shape(64)], r=r, repeats=8).shapes[0].of("adapter") for r in (2, 2048))
    assert wide.ratio.median > narrow.ratio.median


def test_default_shapes_are_small_where_the_base_is_large(tiny: SimpleNamespace) -> None:
    digits = ll.find_bench("digits").geometry()
    assert default_shapes(digits) == (Shape(1), Shape(8), Shape(64))
    assert default_shapes(ll.find_model("gpt2").geometry)[-1] == Shape(4, 128)
    assert default_shapes(ll.read_geometry(tiny.base("llama")))[-1] == Shape(8, 128)


def test_inputs_are_seeded_whole_and_free_of_padding(tiny: SimpleNamespace) -> None:
    model = tiny.base("llama")
    first, again = (inputs_for(model, Shape(3, 9), seed=5) for _ in range(2))
    assert torch.equal(first["input_ids"], again["input_ids"])
    assert first["input_ids"].shape == (3, 9)
    assert bool(first["attention_mask"].all())
    assert not (first["input_ids"] == model.config.pad_token_id).any()


# Merged against unmerged


class OneMatrix(nn.Module):
    """logit = w · x."""

    def __init__(self, *weights: float) -> None:
        super().__init__()
        self.linear = nn.Linear(len(weights), 1, bias=False)
        self.linear.weight.data = torch.tensor([weights])

    def forward(self, x: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.linear(x))


def by_hand(weights: tuple[float, ...], b: float) -> nn.Module:
    """ΔW = (b, 0, …)."""
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(OneMatrix(*weights), LoraConfig(r=1, lora_alpha=1, target_modules=["linear"]))
    layer = model.base_model.model.linear
    layer.lora_A["default"].weight.data = torch.tensor([[1.0, *[0.0] * (len(weights) - 1)]])
    layer.lora_B["default"].weight.data = torch.tensor([[b]])
    return model.eval()


def test_a_change_below_the_precision_of_the_weight_is_lost_by_merging() -> None:
    """1 + 2⁻⁹ is 1 in bf16, and itself in fp16 and fp32; beside the base 2⁻⁹ is added to 1 - 1 = 0."""
    ways = {way.dtype: way for way in logit_differences(by_hand((1.0, -1.0), 2.0**-9), [{"x": torch.ones(1, 2)}])}
    assert {name: (way.difference, way.largest_logit) for name, way in ways.items()} == {
        "fp32": (0.0, 2.0**-9),
        "bf16": (2.0**-9, 2.0**-9),
        "fp16": (0.0, 2.0**-9),
    }
    assert ways["bf16"].relative == 1.0


def test_the_largest_difference_over_all_batches_counts() -> None:
    batches = [{"x": torch.full((1, 2), scale)} for scale in (1.0, 4.0, 2.0)]
    bf16 = logit_differences(by_hand((1.0, -1.0), 2.0**-9), batches)[1]
    assert (bf16.difference, bf16.largest_logit) == (2.0**-7, 2.0**-7)


def test_a_precision_that_overflows_has_no_number_but_a_reason() -> None:
    fp32, _, fp16 = logit_differences(by_hand((1e5, 0.0), 1.0), [{"x": torch.ones(1, 2)}])
    assert fp32.difference is not None
    assert (fp16.difference, fp16.largest_logit, fp16.relative) == (None, None, None)
    assert fp16.why == "fp16 overflows: some logits are not finite."


def test_the_model_stays_as_it_is(tiny: SimpleNamespace) -> None:
    base = tiny.base("llama")
    model = random_lora(find_subject(lambda: base), base, r=2, seed=0)
    before = tiny.snapshot(model)
    logit_differences(model, [tiny.batch("llama")])
    tiny.assert_same(tiny.snapshot(model), before)


def test_rounding_grows_as_the_precision_falls() -> None:
    found = differences_of_random(find_subject("digits"), r=4)
    fp32, bf16, fp16 = (way.relative for way in found.ways)
    assert fp32 < 1e-5
    assert fp32 < fp16 < bf16 < 0.1
    assert found.adapter == "a random LoRA of r = 4 on q and v, ‖ΔW‖ = 10 % of ‖W0‖ each"
    assert found.examples == "64 held-out examples"


def test_of_a_run_it_is_the_runs_own_adapter(digits_run: "ll.Run") -> None:
    subject = find_subject("digits")
    found = differences_of_run(subject, digits_run.spec, digits_run.adapter_dir)
    assert found.adapter == f"the LoRA of run {digits_run.run_id}"
    assert found.ways[0].relative < 1e-5
    assert found.ways != differences_of_random(subject, r=4).ways


def test_a_run_that_does_not_merge_here_is_refused_with_the_reason(digits_run: "ll.Run") -> None:
    subject = find_subject("digits")
    with pytest.raises(MergeError, match="The run's base is kept in nf4"):
        differences_of_run(subject, replace(digits_run.spec, quant="nf4"), digits_run.adapter_dir)
    with pytest.raises(MergeError, match="a network of its own beside the base's"):
        differences_of_run(subject, replace(digits_run.spec, tuning=ll.MethodSpec(method="adapter")), digits_run.adapter_dir)
