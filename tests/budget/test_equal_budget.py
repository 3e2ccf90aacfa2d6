"""The same number of trained parameters, spent on other matrices."""

from dataclasses import replace

import pytest

from lora_lab.budget import equal_choice, find_model, method_params, r_for_params, ranks_for_params
from lora_lab.budget.paper import table_5
from lora_lab.errors import SpecError
from lora_lab.specs import MethodSpec

ALL_LINEAR = ("all-linear",)
TABLE_5 = {row.targets: row.r for row in table_5()}
BUDGET = 18_874_368  # of Table 5: 96 layers, 12288 wide, r = 8 on one matrix
WITH_R = (
    "lora",
    "rslora",
    "dora",
    "vera",
    "adalora",
    "lora+prefix",
    "adapter",
    "adapter_pfeiffer",
    "prefix",
    "preembed",
    "partial",
)


def found(targets: tuple[str, ...], budget: int | MethodSpec, *, may_exceed: bool = False) -> tuple[int, int]:
    """(r, parameters) for GPT-3."""
    geometry = find_model("gpt3-175b").geometry
    choice = equal_choice(geometry, MethodSpec(target_modules=targets), budget, may_exceed=may_exceed)
    return choice.spec.r, choice.params


@pytest.mark.parametrize(("targets", "r"), TABLE_5.items(), ids=["".join(targets) for targets in TABLE_5])
def test_table_5_is_what_gpt3_has_for_as_much_as_q_and_v_at_4(targets: tuple[str, ...], r: int) -> None:
    assert found(targets, MethodSpec(r=4, target_modules=("q", "v"))) == (r, BUDGET)


@pytest.mark.parametrize(("targets", "r"), TABLE_5.items(), ids=["".join(targets) for targets in TABLE_5])
def test_table_5_is_what_comes_nearest_to_a_round_18_million(targets: tuple[str, ...], r: int) -> None:
    assert found(targets, 18_000_000, may_exceed=True) == (r, BUDGET)
    assert found(targets, 18_000_000) == (r - 1, BUDGET // r * (r - 1))


@pytest.mark.parametrize("method", WITH_R)
@pytest.mark.parametrize("params", [60_000, 1_000_000, 9_175_040])
def test_the_largest_r_within_the_budget_and_the_nearest_on_either_side(method: str, params: int) -> None:
    geometry = find_model("gpt2").geometry
    spec = MethodSpec(method=method, num_virtual_tokens=1)

    def count(r: int) -> int:
        return method_params(geometry, replace(spec, r=r))

    most = {"partial": 12, "preembed": 12_000, "prefix": 12_000}.get(method, 768)
    within = r_for_params(geometry, spec, params)
    assert count(1) > params if within is None else count(within) <= params
    assert within == most or count((within or 0) + 1) > params
    nearest = r_for_params(geometry, spec, params, may_exceed=True)
    assert nearest is not None
    others = [r for r in (nearest - 1, nearest + 1) if 1 <= r <= most]
    assert all(abs(count(nearest) - params) <= abs(count(r) - params) for r in others)


def test_equal_budgets_of_a_model_whose_matrices_differ() -> None:
    geometry = find_model("llama-3.2-3b").geometry
    choices = [("q", "v"), ("gate", "up", "down"), ("q", "k", "v", "o"), ALL_LINEAR, ("k",)]
    for params in (2_000_000, 9_175_040, 50_000_000):
        for targets, r in ranks_for_params(geometry, params, choices).items():
            assert r is not None
            assert method_params(geometry, MethodSpec(r=r, target_modules=targets)) <= params
            capped = r == min(m.max_r for m in geometry.targeted(targets))
            assert capped or method_params(geometry, MethodSpec(r=r + 1, target_modules=targets)) > params


def test_a_choice_that_costs_too_much_at_rank_one_has_no_rank() -> None:
    geometry = find_model("llama-3.2-3b").geometry
    one = method_params(geometry, MethodSpec(r=1, target_modules=ALL_LINEAR))
    assert ranks_for_params(geometry, one - 1, [ALL_LINEAR, ("q",)])[ALL_LINEAR] is None
    assert ranks_for_params(geometry, one, [ALL_LINEAR])[ALL_LINEAR] == 1
    with pytest.raises(SpecError) as refusal:
        equal_choice(geometry, MethodSpec(target_modules=ALL_LINEAR), one - 1)
    wanted = f"at least {one:,}, which LoRA on all-linear trains at r = 1"
    assert str(refusal.value) == f"The equal_budget parameter of SweepSpec must be {wanted}. Got {one - 1}."


def test_layers_and_biases_are_part_of_what_a_budget_buys() -> None:
    geometry = find_model("gpt2").geometry
    whole = equal_choice(geometry, MethodSpec(target_modules=("c_attn",)), MethodSpec(r=4, target_modules=("c_attn",)))
    half = MethodSpec(target_modules=("c_attn",), layers_to_transform=tuple(range(6)))
    assert (whole.spec.r, equal_choice(geometry, half, whole.params).spec.r) == (4, 8)
    with_biases = equal_choice(geometry, replace(half, bias="lora_only"), whole.params)
    assert (with_biases.spec.r, with_biases.params) == (7, whole.params * 7 // 8 + 6 * 3 * 768)


def test_a_method_without_an_r_is_refused() -> None:
    with pytest.raises(SpecError, match="method parameter of MethodSpec must be one with an r"):
        r_for_params(find_model("gpt2").geometry, MethodSpec(method="bitfit"), 1000)
