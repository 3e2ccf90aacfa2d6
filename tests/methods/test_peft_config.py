"""A LoraSpec, MethodSpec and a LoraConfig say the same, and what a LoraSpec cannot say is refused rather than dropped."""

from typing import Any

import pytest
from peft import LoraConfig, get_peft_model
from torch import nn

from lora_lab.errors import SpecError
from lora_lab.methods import from_peft, to_peft
from lora_lab.specs import LoraSpec, MethodSpec

SPECS = [
    LoraSpec(target_modules=("q", "v")),
    LoraSpec(r=1, lora_alpha=0.5, lora_dropout=0.1, target_modules=("q_proj", "v_proj")),
    LoraSpec(r=64, use_rslora=True, target_modules=("query",)),
    LoraSpec(target_modules=("all-linear",)),
    LoraSpec(target_modules=("q",), use_dora=True, layers_to_transform=(0, 2), rank_pattern=(("q", 2),), bias="all"),
    LoraSpec(target_modules=("q",), init_lora_weights="pissa"),
]


@pytest.mark.parametrize("spec", SPECS)
def test_a_spec_survives_the_way_to_peft_and_back(spec: MethodSpec) -> None:
    assert from_peft(to_peft(spec)) == spec


@pytest.mark.parametrize("use_rslora", [False, True])
@pytest.mark.parametrize(("r", "alpha"), [(1, 16.0), (8, 16.0), (8, 1.5)])
def test_peft_scales_b_a_as_the_spec_says(r: int, alpha: float, use_rslora: bool) -> None:
    spec = LoraSpec(r=r, lora_alpha=alpha, use_rslora=use_rslora, target_modules=("0",))
    layer = get_peft_model(nn.Sequential(nn.Linear(8, 8)), to_peft(spec)).base_model.model[0]
    assert layer.scaling["default"] == pytest.approx(spec.scaling, rel=1e-12)


def test_task_and_head_modules_go_into_the_config() -> None:
    config = to_peft(LoraSpec(), task_type="SEQ_CLS", modules_to_save=("classifier",))
    assert (config.task_type, config.modules_to_save) == ("SEQ_CLS", ["classifier"])
    assert to_peft(LoraSpec()).modules_to_save is None


def test_the_order_of_pefts_targets_means_nothing() -> None:
    assert from_peft(LoraConfig(target_modules=["v", "q"])) == from_peft(LoraConfig(target_modules=["q", "v"]))


@pytest.mark.parametrize(
    "unsaid",
    [
        {"alpha_pattern": {"q": 2}},
        {"target_parameters": ["experts.weight"]},
        {"exclude_modules": ["classifier"]},
        {"lora_bias": True},
    ],
    ids=lambda unsaid: next(iter(unsaid)),
)
def test_what_a_spec_cannot_say_is_refused_by_name(unsaid: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=f"The {next(iter(unsaid))} parameter of LoraConfig must be"):
        from_peft(LoraConfig(target_modules=["q"], **unsaid))


@pytest.mark.parametrize("targets", [None, [], ""])
def test_a_config_without_targets_is_refused(targets: list[str] | str | None) -> None:
    with pytest.raises(SpecError, match="The target_modules parameter of LoraConfig must be a list of at least one name"):
        from_peft(LoraConfig(target_modules=targets))
