"""A run with every ΔW cut is the base with the cut ΔW added by hand; whole, it scores what was recorded."""

from typing import Any

import pytest
import torch

import lora_lab as ll
from lora_lab.errors import SpecError
from lora_lab.inference import open_run
from lora_lab.inference.truncation import truncated


def test_a_cut_run_scores_as_the_base_with_the_cut_change_added(digits_run: Any, digits_base: Any) -> None:
    for name, delta in digits_run.adapter().items():
        u, s, vh = torch.linalg.svd(delta.dense())
        digits_base.get_submodule(name).weight.data += (u[:, :2] * s[:2] @ vh[:2]).float()
    (cut,) = ll.truncated_scores(digits_run.spec, digits_run.adapter_dir, (2,))
    by_hand = ll.evaluate(digits_base, ll.find_bench("digits").splits().test).value
    assert (cut.kept, cut.score) == (2, pytest.approx(by_hand, abs=1e-9))


def test_with_all_directions_it_scores_what_was_recorded(digits_run: Any) -> None:
    (whole,) = ll.truncated_scores(digits_run.spec, digits_run.adapter_dir, (digits_run.spec.tuning.r,))
    assert whole.score == pytest.approx(digits_run.score(split="test"), abs=0.005)  # rounding may turn one of 249


def test_every_change_has_the_rank_that_was_kept_and_comes_back_to_the_bit(digits_run: Any) -> None:
    model = open_run(digits_run.spec, digits_run.adapter_dir)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    layers = [module for module in model.modules() if hasattr(module, "get_delta_weight")]
    with truncated(model, 1):
        assert {int(torch.linalg.matrix_rank(layer.get_delta_weight("default"))) for layer in layers} == {1}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("kept", [0, 5])
def test_more_directions_than_the_rank_are_refused(digits_run: Any, kept: int) -> None:
    with pytest.raises(SpecError, match=rf"kept .* 1\.\.r=4\. Got {kept}"):
        ll.truncated_scores(digits_run.spec, digits_run.adapter_dir, (1, kept))


def test_a_method_without_plain_factors_is_refused(digits_run: Any) -> None:
    spec = ll.train("digits", "bitfit", steps=0, runs=digits_run.folder.parent).spec
    with pytest.raises(SpecError, match="BitFit"):
        ll.truncated_scores(spec, digits_run.adapter_dir, (1,))
