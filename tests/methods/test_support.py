"""Every family takes every method, and the closed form counts it to the parameter; or it is refused in one known sentence."""

import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lora_lab.budget import head_params, method_params
from lora_lab.errors import SpecError
from lora_lab.live_geometry import read_geometry
from lora_lab.methods import attach_method, trainable_params
from lora_lab.methods.support import SUPPORT_JSON, SUPPORT_MD, TINY, as_json, as_markdown, support_table, tiny_model
from lora_lab.specs import METHODS, MethodSpec

COMMITTED: dict[str, dict[str, str]] = json.loads(SUPPORT_JSON.read_text())
CELLS = [(family, method) for family in TINY for method in METHODS]
TAKEN = [(family, method) for family, method in CELLS if not COMMITTED[method][family]]
HEADS = {
    "bert": ("classifier",),
    "roberta": ("classifier",),
    "deberta-v2": ("classifier",),
    "distilbert": ("pre_classifier", "classifier"),
    "vit": ("classifier",),
}


def batch(family: str) -> dict[str, Tensor]:
    """Something that a family reads."""
    if family == "vit":
        return {"pixel_values": torch.randn(2, 1, 8, 8)}
    tokens = torch.randint(3, 40, (2, 6))
    inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    return {**inputs, "labels": tokens} if family == "t5" else inputs


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(("family", "method"), TAKEN)
def test_a_cell_that_attaches_is_counted_to_the_parameter(family: str, method: str) -> None:
    model, spec = tiny_model(family), MethodSpec(method=method, r=3)
    expected = method_params(read_geometry(model), spec)
    assert trainable_params(attach_method(model, spec)) == (expected, 0)


@pytest.mark.parametrize(("family", "method"), sorted(set(CELLS) - set(TAKEN)))
def test_a_cell_that_does_not_is_refused_in_the_committed_sentence(family: str, method: str) -> None:
    with pytest.raises(SpecError) as refused:
        attach_method(tiny_model(family), MethodSpec(method=method, r=3))
    assert str(refused.value) == COMMITTED[method][family]


@pytest.mark.parametrize(("family", "method"), [cell for cell in TAKEN if cell[0] in HEADS])
def test_a_head_trained_in_full_adds_its_own_parameters(family: str, method: str) -> None:
    model, spec = tiny_model(family), MethodSpec(method=method, r=3)
    geometry = read_geometry(model)
    total, _ = trainable_params(attach_method(model, spec, head_modules=HEADS[family]))
    assert total == method_params(geometry, spec) + head_params(geometry, HEADS[family])


@pytest.mark.parametrize(("family", "method"), TAKEN)
def test_a_backward_pass_reaches_all_that_a_cell_trains(family: str, method: str) -> None:
    torch.manual_seed(0)
    model = attach_method(tiny_model(family, device="cpu"), MethodSpec(method=method, r=2))
    output: Any = model(**batch(family))
    output.logits.pow(2).sum().backward()
    gradients = {name: p.grad for name, p in trained(model).items()}
    assert [name for name, gradient in gradients.items() if gradient is None] == []
    assert any(gradient.any() for gradient in gradients.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize(("family", "method"), [cell for cell in TAKEN if cell[0] in ("bert", "gpt2", "llama", "qwen3_moe", "t5")])
def test_the_meta_device_attaches_what_the_cpu_does(family: str, method: str, dtype: torch.dtype) -> None:
    def attached(device: str) -> dict[str, tuple[torch.Size, torch.dtype, bool]]:
        model = attach_method(tiny_model(family, device=device, dtype=dtype), MethodSpec(method=method, r=2))
        return {name: (p.shape, p.dtype, p.requires_grad) for name, p in model.named_parameters()}

    assert attached("meta") == attached("cpu")


def test_the_committed_table_and_page_are_what_the_command_writes_now() -> None:
    table = support_table()
    assert SUPPORT_JSON.read_text() == as_json(table)
    assert SUPPORT_MD.read_text() == as_markdown(table)


def test_every_reason_is_one_sentence_and_stands_on_the_page() -> None:
    page = SUPPORT_MD.read_text()
    for why in {why for cells in COMMITTED.values() for why in cells.values() if why}:
        assert why.endswith(".")
        assert ". " not in why
        assert f". {why}\n" in page


def test_the_page_has_a_row_a_family_and_a_column_a_method() -> None:
    table = [line for line in SUPPORT_MD.read_text().splitlines() if line.startswith("|")]
    assert [row.split(" | ")[0].removeprefix("| ") for row in table[2:]] == list(TINY)
    assert {row.count("|") for row in table} == {len(METHODS) + 2}
