"""A grid becomes every combination once."""

from itertools import product

import pytest

import lora_lab as ll
from lora_lab.benches import Bench
from lora_lab.errors import SpecError
from lora_lab.sweeps import expand


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
    ],
    ids=["r", "alpha", "targets", "seeds"],
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
    ],
)
def test_one_bad_value_refuses_the_whole_grid(bench: Bench, grid: ll.SweepSpec, named: str) -> None:
    with pytest.raises(SpecError, match=named):
        expand(bench, grid)
