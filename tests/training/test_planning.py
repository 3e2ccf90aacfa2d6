"""Planning: what a user says, in whatever words, becomes one spec that leaves nothing open."""

import math
from dataclasses import replace

import peft
import pytest

import lora_lab as ll
from lora_lab.assets import sha256_of
from lora_lab.benches import Bench
from lora_lab.errors import SpecError
from lora_lab.specs import METHODS
from lora_lab.training import methods_for, plan_run


@pytest.fixture(scope="module")
def bench() -> Bench:
    return ll.find_bench("digits")


@pytest.fixture(scope="module")
def bench_with_head(bench: Bench) -> Bench:
    """As `reviews` is: a head that is trained in full beside the adapter."""
    return replace(bench, trains_head=True)


def test_what_is_left_open_is_the_benchs_own(bench: Bench) -> None:
    spec = plan_run(bench, ll.LoraSpec())
    defaults = bench.defaults
    assert (spec.steps, spec.batch_size, spec.learning_rate) == (defaults.steps, defaults.batch_size, defaults.learning_rate)
    assert plan_run(bench, ll.LoraSpec(), steps=None, learning_rate=None, seed=None) == spec


def test_what_is_given_is_kept(bench: Bench) -> None:
    settings = {"steps": 7, "batch_size": 3, "learning_rate": 0.25, "warmup_steps": 2, "eval_every_steps": 5, "seed": 9}
    spec = plan_run(bench, ll.LoraSpec(r=3), **settings)
    assert {name: getattr(spec, name) for name in settings} == settings
    assert spec.tuning.r == 3


def test_a_base_is_pinned_by_its_weights(bench: Bench) -> None:
    assert plan_run(bench, ll.LoraSpec()).base_sha256 == sha256_of(bench.base_folder() / "model.safetensors")


@pytest.mark.parametrize("steps", [1, 2, 5, 39, 200, 1000])
def test_a_run_warms_up_for_a_small_part_and_is_scored_about_four_times(bench: Bench, steps: int) -> None:
    spec = plan_run(bench, ll.LoraSpec(), steps=steps)
    assert spec.warmup_steps <= steps / 10
    assert min(steps, 3) <= math.ceil(steps / spec.eval_every_steps) <= 4


@pytest.mark.parametrize(
    ("said", "resolved"),
    [
        (("q", "v"), ("q_proj", "v_proj")),
        (("query", "value"), ("q_proj", "v_proj")),
        (("v_proj", "q_proj"), ("q_proj", "v_proj")),
        (("v", "q", "q_proj"), ("q_proj", "v_proj")),
        (("all-linear",), ("all-linear",)),
        (("q", "all-linear"), ("all-linear",)),
    ],
)
def test_targets_are_said_in_the_models_own_names(bench: Bench, said: tuple[str, ...], resolved: tuple[str, ...]) -> None:
    assert plan_run(bench, ll.LoraSpec(target_modules=said)).tuning.target_modules == resolved


@pytest.mark.parametrize("said", [("q_proj", "v_proj"), ("v", "q"), ("query", "v_lin")])
def test_two_spellings_of_a_target_are_one_run(bench: Bench, said: tuple[str, ...]) -> None:
    spec = plan_run(bench, ll.LoraSpec(target_modules=said))
    assert spec.run_id == plan_run(bench, ll.LoraSpec(target_modules=("q", "v"))).run_id
    assert spec.run_id != plan_run(bench, ll.LoraSpec(target_modules=("q", "k"))).run_id


def test_one_matrix_can_be_meant_alone(bench: Bench) -> None:
    name = next(m.name for m in bench.geometry().matrices if m.role == "q" and m.layer == 2)
    spec = plan_run(bench, ll.LoraSpec(target_modules=(name,)))
    assert [m.name for m in bench.geometry().targeted(spec.tuning.target_modules)] == [name]


def test_a_target_that_the_base_has_not_is_refused_with_those_it_has(bench: Bench) -> None:
    with pytest.raises(SpecError, match=r"target_modules .* all-linear, the roles q, .* Got 'gate_proj'\."):
        plan_run(bench, ll.LoraSpec(target_modules=("q", "gate_proj")))


def test_the_rank_of_a_named_matrix_is_the_most_there_is(bench: Bench) -> None:
    assert plan_run(bench, ll.LoraSpec(r=64)).tuning.r == 64
    with pytest.raises(SpecError, match=r"r parameter of MethodSpec must be an int in 1\.\.min\(d_in, d_out\)=64 .* Got 65\."):
        plan_run(bench, ll.LoraSpec(r=65))


def test_a_head_is_a_target_like_others_where_it_is_frozen(bench: Bench) -> None:
    assert plan_run(bench, ll.LoraSpec(r=4, target_modules=("head",))).tuning.target_modules == ("classifier",)


@pytest.mark.parametrize("said", ["classifier", "head"])
def test_a_head_that_is_trained_in_full_is_refused_as_a_target(bench_with_head: Bench, said: str) -> None:
    with pytest.raises(SpecError, match=r"without the task head, which is trained in full\. Got 'classifier'\."):
        plan_run(bench_with_head, ll.LoraSpec(r=4, target_modules=("q", said)))


def test_all_linear_leaves_the_head_out(bench_with_head: Bench) -> None:
    spec = plan_run(bench_with_head, ll.LoraSpec(r=4, target_modules=("all-linear",)))
    assert "head" not in {m.role for m in bench_with_head.geometry().targeted(spec.tuning.target_modules)}


def test_a_lora_config_says_what_a_lora_spec_says(bench: Bench) -> None:
    config = peft.LoraConfig(r=4, lora_alpha=8, lora_dropout=0.1, target_modules=["v_proj", "q_proj"], use_rslora=True)
    spec = ll.LoraSpec(r=4, lora_alpha=8.0, lora_dropout=0.1, use_rslora=True)
    assert plan_run(bench, config) == plan_run(bench, spec)
    assert plan_run(bench, config).run_id == plan_run(bench, spec).run_id


@pytest.mark.parametrize(
    ("setting", "value"),
    [("steps", -1), ("batch_size", 0), ("learning_rate", 0), ("learning_rate", float("nan")), ("seed", -1)],
)
def test_a_setting_out_of_range_is_refused_by_its_name(bench: Bench, setting: str, value: object) -> None:
    with pytest.raises(SpecError, match=f"The {setting} parameter of RunSpec must be"):
        plan_run(bench, ll.LoraSpec(), **{setting: value})


def test_every_method_is_offered_or_refused_as_planning_refuses_it(bench: Bench) -> None:
    told = methods_for(bench)
    assert list(told) == list(METHODS)
    assert not told["lora"]
    for method, sentence in told.items():
        if sentence:
            with pytest.raises(SpecError) as refused:
                plan_run(bench, ll.MethodSpec(method=method))
            assert str(refused.value) == sentence
        else:
            assert plan_run(bench, ll.MethodSpec(method=method)).tuning.method == method
