"""The runs that the five analyses need, counted by hand."""

from dataclasses import replace

import pytest

from lora_lab.benches import find_bench
from lora_lab.budget import method_params
from lora_lab.report.plan import ReproductionPlan, plan_reproduction


@pytest.fixture(scope="module")
def digits() -> ReproductionPlan:
    return plan_reproduction(find_bench("digits"), seeds=(0, 1))


def test_ranks_stop_where_the_rank_is_half_of_the_whole_space(digits: ReproductionPlan) -> None:
    assert digits.ranks == (1, 2, 4, 8, 32)
    assert (digits.small, digits.large) == (8, 32)
    assert plan_reproduction(find_bench("reviews")).ranks == (1, 2, 4, 8, 64)


def test_table_6_is_three_choices_of_targets_at_every_rank_and_seed(digits: ReproductionPlan) -> None:
    assert len(digits.by_rank) == 3 * 5 * 2
    assert len({spec.tuning.target_modules for spec in digits.by_rank}) == 3


def test_table_5_trains_as_many_parameters_in_every_choice(digits: ReproductionPlan) -> None:
    assert len(digits.by_targets) == 7 * 2
    assert len({method_params(digits.geometry, spec.tuning) for spec in digits.by_targets}) == 1
    assert [(spec.tuning.target_modules, spec.tuning.r) for spec in digits.by_targets[::2]] == [
        *((one, 8) for one in (("q_proj",), ("k_proj",), ("v_proj",), ("o_proj",))),
        *((two, 4) for two in (("q_proj", "k_proj"), ("q_proj", "v_proj"))),
        (("q_proj", "k_proj", "v_proj", "o_proj"), 2),
    ]


def test_the_controls_are_the_pairs_before_their_first_step(digits: ReproductionPlan) -> None:
    for r in (digits.small, digits.large):
        trained, started = digits.pair(r), digits.pair(r, start=True)
        assert [spec.seed for spec in trained] == [0, 1]
        assert started == tuple(replace(spec, steps=0) for spec in trained)


def test_no_run_is_asked_for_twice(digits: ReproductionPlan) -> None:
    ids = [spec.run_id for spec in digits.specs]
    assert len(set(ids)) == len(ids) == 30 + 14 - 2 * 3 + 4  # q at 8, q,v at 4 and q,k,v,o at 2 are in both tables


def test_a_slow_bench_has_fewer_runs() -> None:
    plan = plan_reproduction(find_bench("e2e"))
    assert (len(plan.by_rank), plan.by_targets, plan.ranks) == (6, (), (1, 8, 64))
