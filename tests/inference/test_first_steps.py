"""The first steps of a planned run."""

from dataclasses import replace

import pytest

import lora_lab as ll
from lora_lab.errors import SpecError
from lora_lab.inference import first_gradients_of
from lora_lab.training.begin import batches, begun


@pytest.fixture(scope="module")
def spec() -> ll.RunSpec:
    return ll.plan_run(ll.find_bench("digits"), ll.LoraSpec(r=4), steps=3, seed=1)


def test_they_are_those_of_the_run_on_its_own_batches(spec: ll.RunSpec) -> None:
    bench = ll.find_bench("digits")
    training = bench.splits().train
    model = begun(spec, bench, bench.build(), training)
    shown = batches(training, spec.batch_size, steps=3, seed=1)
    by_hand = ll.first_gradients(model, shown, steps=3, learning_rate=spec.learning_rate)
    assert [one.grad_norm_b for one in first_gradients_of(spec)] == pytest.approx([one.grad_norm_b for one in by_hand], rel=1e-5)


def test_a_second_asking_costs_nothing(spec: ll.RunSpec) -> None:
    assert first_gradients_of(spec) is first_gradients_of(spec)


def test_a_method_without_factors_has_no_gradients_of_them(spec: ll.RunSpec) -> None:
    bitfit = ll.plan_run(ll.find_bench("digits"), ll.MethodSpec(method="bitfit"), steps=2)
    assert {(one.grad_norm_a, one.grad_norm_b) for one in first_gradients_of(bitfit)} == {(None, None)}


def test_two_rates_are_refused(spec: ll.RunSpec) -> None:
    with pytest.raises(SpecError, match="A and B at one rate"):
        first_gradients_of(replace(spec, tuning=ll.MethodSpec(method="lora+")))
