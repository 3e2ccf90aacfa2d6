"""The chain rule on a run's own first batch, at its start and at its end."""

from dataclasses import replace
from typing import Any

import pytest

import lora_lab as ll
from lora_lab.errors import SpecError
from lora_lab.inference import chain_rule_of
from lora_lab.training import plan_run

Q = "vit.layers.2.attention.q_proj"


@pytest.fixture(scope="module")
def run(digits_run: Any) -> Any:
    return digits_run


def test_at_the_start_b_is_zero_and_only_its_gradient_is_there(run: Any) -> None:
    start = chain_rule_of(run.spec, Q)
    assert (start.norm_b, start.grad_norm_a) == (0, 0)
    assert start.grad_norm_b > 0
    assert (start.d_out, start.d_in, start.r, start.scaling) == (64, 64, 4, 4)


def test_the_loss_of_the_start_is_the_first_one_logged(run: Any) -> None:
    assert chain_rule_of(run.spec, Q).loss == pytest.approx(run.progress().steps[0].loss, rel=1e-5)


def test_the_gradients_of_the_start_make_up_the_norm_logged_at_the_first_step(run: Any) -> None:
    names = list(run.adapter())
    squares = sum(chain_rule_of(run.spec, name).grad_norm_b ** 2 for name in names)
    assert squares**0.5 == pytest.approx(run.progress().steps[0].grad_norm_b, rel=1e-4)


def test_at_the_end_both_factors_get_what_the_rule_says(run: Any) -> None:
    end = chain_rule_of(run.spec, Q, adapter_dir=run.adapter_dir)
    assert min(end.norm_b, end.grad_norm_a, end.grad_norm_b) > 0
    assert max(end.difference_a, end.difference_b) < 1e-5


def test_a_second_asking_costs_nothing(run: Any) -> None:
    assert chain_rule_of(run.spec, Q) is chain_rule_of(run.spec, Q)


def test_start_values_out_of_the_base_are_those_of_the_run() -> None:
    spec = plan_run(ll.find_bench("digits"), ll.LoraSpec(r=2, init_lora_weights="pissa"), steps=2)
    assert chain_rule_of(spec, Q).norm_b > 0


@pytest.mark.parametrize("method", ["adalora", "vera", "lora+prefix"])
def test_a_method_with_another_rule_says_so(run: Any, method: str) -> None:
    with pytest.raises(SpecError, match=ll.specs.METHODS[method].label):
        chain_rule_of(replace(run.spec, tuning=ll.MethodSpec(method=method)), Q)


def test_a_quantized_weight_has_no_gradient(run: Any) -> None:
    with pytest.raises(SpecError, match="a weight kept in nf4 has no gradient"):
        chain_rule_of(replace(run.spec, quant="nf4"), Q)
