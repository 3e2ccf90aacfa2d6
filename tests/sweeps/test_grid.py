"""A grid becomes every combination once."""

from itertools import product
from typing import Any

import pytest

import lora_lab as ll
from lora_lab.benches import Bench
from lora_lab.budget import method_params
from lora_lab.errors import SpecError
from lora_lab.specs import MethodSpec
from lora_lab.sweeps import expand
from lora_lab.sweeps.grid import equal_choices


@pytest.fixture(scope="module")
def bench() -> Bench:
    return ll.find_bench("digits")


def test_every_combination_is_one_run_the_seed_moving_fastest(bench: Bench) -> None:
    grid = ll.SweepSpec(
        r=(2, 1),
        lora_alpha=(8.0, 16.0),
        targets=(("q",), ("q", "v")),
        learning_rate=(1e-3, 1e-2),
        methods=("lora", "rslora"),
        seeds=(3, 4),
    )
    specs = expand(bench, grid)
    said = [(s.tuning.target_modules, s.tuning.r, s.tuning.lora_alpha, s.tuning.method, s.learning_rate, s.seed) for s in specs]
    targets = [("q_proj",), ("q_proj", "v_proj")]
    expected = product(("lora", "rslora"), targets, (2, 1), (8.0, 16.0), (1e-3, 1e-2), (3, 4))
    assert said == [(t, r, alpha, method, lr, seed) for method, t, r, alpha, lr, seed in expected]
    assert len({spec.run_id for spec in specs}) == 2**6


def test_what_all_runs_share_reaches_every_run(bench: Bench) -> None:
    grid = ll.SweepSpec(r=(1, 2), steps=7, batch_size=3, lora_dropout=0.25)
    assert {(s.steps, s.batch_size, s.tuning.lora_dropout) for s in expand(bench, grid)} == {(7, 3, 0.25)}


OF_RUNS: dict[str, tuple[Any, ...]] = {
    "learning_rate": (1e-3, 1e-2),
    "batch_size": (2, 4),
    "weight_decay": (0.0, 0.1),
    "optimizer": ("AdamW", "SGD"),
    "quant": ("none", "nf4"),
}
OF_TUNINGS: dict[str, tuple[Any, ...]] = {
    "layers_to_transform": (None, (0, 1), (3,)),
    "lora_dropout": (0.0, 0.25),
    "bias": ("none", "lora_only"),
    "init_lora_weights": ("default", "gaussian", "pissa"),
}


@pytest.mark.parametrize(("axis", "values"), OF_RUNS.items(), ids=OF_RUNS)
def test_every_value_of_a_run_is_a_run(bench: Bench, axis: str, values: tuple[Any, ...]) -> None:
    specs = expand(bench, ll.SweepSpec(r=2, **{axis: values}))
    assert [getattr(spec, axis) for spec in specs] == list(values)
    assert len({spec.run_id for spec in specs}) == len(values)


@pytest.mark.parametrize(("axis", "values"), OF_TUNINGS.items(), ids=OF_TUNINGS)
def test_every_value_of_a_method_is_a_run(bench: Bench, axis: str, values: tuple[Any, ...]) -> None:
    specs = expand(bench, ll.SweepSpec(r=2, **{axis: values}))
    assert [getattr(spec.tuning, axis) for spec in specs] == list(values)
    assert len({spec.run_id for spec in specs}) == len(values)


def test_a_ratio_of_rates_makes_runs_of_lora_plus_alone(bench: Bench) -> None:
    specs = expand(bench, ll.SweepSpec(r=2, methods=("lora", "lora+"), loraplus_lr_ratio=(4.0, 16.0)))
    assert [(s.tuning.method, s.loraplus_lr_ratio) for s in specs] == [("lora", 16.0), ("lora+", 4.0), ("lora+", 16.0)]


def test_virtual_tokens_make_runs_of_what_has_them_alone(bench: Bench) -> None:
    tiny = ll.SweepSpec(r=2, methods=("lora", "bitfit"), num_virtual_tokens=(4, 8))
    assert [s.tuning.method for s in expand(bench, tiny)] == ["lora", "bitfit"]


def test_what_a_method_has_no_use_for_makes_no_second_run(bench: Bench) -> None:
    grid = ll.SweepSpec(r=(1, 2), lora_alpha=(8.0, 16.0), methods=("lora", "bitfit", "adapter"), seeds=(0, 1))
    methods = [spec.tuning.method for spec in expand(bench, grid)]
    assert (methods.count("lora"), methods.count("bitfit"), methods.count("adapter")) == (8, 2, 4)


def test_none_leaves_a_value_to_the_bench(bench: Bench) -> None:
    (spec,) = expand(bench, ll.SweepSpec(r=(1,)))
    defaults = bench.defaults
    assert (spec.steps, spec.batch_size, spec.learning_rate) == (defaults.steps, defaults.batch_size, defaults.learning_rate)


@pytest.mark.parametrize(
    "grid",
    [
        ll.SweepSpec(r=(8, 8)),
        ll.SweepSpec(r=(8,), lora_alpha=(16.0, "16", "2r")),
        ll.SweepSpec(r=(8,), targets=(("q", "v"), ("v_proj", "q_proj"))),
        ll.SweepSpec(r=(8,), seeds=(0, 0)),
        ll.SweepSpec(r=(8,), layers_to_transform=(None, (0, 1, 2, 3), (3, 2, 1, 0))),
        ll.SweepSpec(r=(8,), optimizer=("AdamW", "adamw")),
    ],
    ids=["r", "alpha", "targets", "seeds", "layers", "optimizer"],
)
def test_two_ways_to_say_one_run_are_one_run(bench: Bench, grid: ll.SweepSpec) -> None:
    assert len(expand(bench, grid)) == 1


@pytest.mark.parametrize(("alpha", "expected"), [("r", [1, 4, 8]), ("2r", [2, 8, 16]), ("0.5r", [0.5, 2, 4]), ("3", [3, 3, 3])])
def test_an_alpha_may_be_a_multiple_of_the_rank(bench: Bench, alpha: str, expected: list[float]) -> None:
    specs = expand(bench, ll.SweepSpec(r=(1, 4, 8), lora_alpha=(alpha,)))
    assert [spec.tuning.lora_alpha for spec in specs] == expected


@pytest.mark.parametrize(
    ("grid", "named"),
    [
        (ll.SweepSpec(r=(1, 0)), "r parameter"),
        (ll.SweepSpec(r=(1, 65)), "r parameter"),
        (ll.SweepSpec(lora_alpha=(16.0, "much")), "lora_alpha parameter"),
        (ll.SweepSpec(lora_alpha=(16.0, "-1")), "lora_alpha parameter"),
        (ll.SweepSpec(targets=(("q",), ("nothing",))), "target_modules parameter"),
        (ll.SweepSpec(learning_rate=(1e-3, 0.0)), "learning_rate parameter"),
        (ll.SweepSpec(seeds=(0, -1)), "seed parameter"),
        (ll.SweepSpec(steps=-1), "steps parameter"),
        (ll.SweepSpec(lora_dropout=(0.1, 1.0)), "lora_dropout parameter"),
        (ll.SweepSpec(layers_to_transform=((0,), (4,))), "layers_to_transform parameter"),
        (ll.SweepSpec(batch_size=(2, 0)), "batch_size parameter"),
        (ll.SweepSpec(optimizer=("AdamW", "Adem")), "optimizer parameter"),
        (ll.SweepSpec(methods="lora+", loraplus_lr_ratio=(4.0, 0.0)), "loraplus_lr_ratio parameter"),
        (ll.SweepSpec(equal_budget=100), "equal_budget parameter"),
    ],
)
def test_one_bad_value_refuses_the_whole_grid(bench: Bench, grid: ll.SweepSpec, named: str) -> None:
    with pytest.raises(SpecError, match=named):
        expand(bench, grid)


# Equal budgets


def test_every_choice_of_targets_has_the_r_that_the_budget_buys(bench: Bench) -> None:
    geometry = bench.geometry()
    targets = (("q",), ("q", "v"), ("q", "k", "v", "o"), ("up", "down"))
    specs = expand(bench, ll.SweepSpec(targets=targets, equal_budget=MethodSpec(r=4, target_modules=("q", "v")), seeds=(0, 1)))
    assert [spec.seed for spec in specs] == [0, 1] * 4
    q_and_v = method_params(geometry, MethodSpec(r=4, target_modules=("q", "v")))
    assert {method_params(geometry, spec.tuning) for spec in specs[:6]} == {q_and_v}
    assert [spec.tuning.r for spec in specs[:6]] == [8, 8, 4, 4, 2, 2]
    mlp = specs[-1].tuning
    assert method_params(geometry, mlp) <= q_and_v < method_params(geometry, MethodSpec(r=mlp.r + 1, target_modules=("up", "down")))


def test_alpha_follows_the_r_that_was_found(bench: Bench) -> None:
    grid = ll.SweepSpec(targets=(("q",), ("q", "v")), lora_alpha="2r", equal_budget=2048)
    assert [spec.tuning.scaling for spec in expand(bench, grid)] == [2.0, 2.0]


@pytest.mark.parametrize("may_exceed", [False, True])
def test_the_choices_are_told_with_their_counts(bench: Bench, may_exceed: bool) -> None:
    geometry = bench.geometry()
    layers = ((0,), (2, 3), (0, 1, 2, 3))
    grid = ll.SweepSpec(
        methods=("lora", "adapter"), layers_to_transform=layers, lora_dropout=(0.0, 0.1), equal_budget=3000, may_exceed=may_exceed
    )
    choices = equal_choices(geometry, grid)
    assert [choice.spec.layers_to_transform for choice in choices] == [(0,), (2, 3), None, (0,), (2, 3), (0, 1, 2, 3)]
    for choice in choices:
        assert choice.params == method_params(geometry, choice.spec)
        assert may_exceed or choice.params <= 3000
    by_run = {(s.tuning.method, s.tuning.layers_to_transform): s.tuning.r for s in expand(bench, grid)}
    assert by_run == {(c.spec.method, c.spec.layers_to_transform): c.spec.r for c in choices}


def test_a_grid_with_ranks_of_its_own_has_no_equal_choices(bench: Bench) -> None:
    assert equal_choices(bench.geometry(), ll.SweepSpec()) == ()
