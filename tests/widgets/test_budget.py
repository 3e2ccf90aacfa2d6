"""The widget Budget: what `ll.budget` gives for its controls, as bars, tiles and sentences."""

import json
from html import unescape
from typing import Any

import pytest

import lora_lab as ll
from lora_lab.budget import PARTS, find_card, versus
from lora_lab.budget.sentences import budget_sentence, counter_sentence, remedy_sentence
from lora_lab.cli import main
from lora_lab.errors import SpecError
from lora_lab.specs import METHODS
from lora_lab.widgets.budget import Budget


def bars(costs: Budget) -> dict[str, dict[str, int]]:
    """Bytes by row and part, as they are drawn."""
    drawn: dict[str, dict[str, int]] = {}
    for trace in costs.figure().data:
        for row, size_bytes in zip(trace.y, trace.customdata, strict=True):
            drawn.setdefault(row, {})[trace.name] = int(size_bytes)
    return drawn


def test_the_bars_are_the_ledger_of_every_way_to_train_and_their_sum_is_what_the_card_must_hold() -> None:
    costs = Budget("llama-3.2-3b", ll.LoraSpec(r=8), batch=4)
    made = ll.budget("llama-3.2-3b", ll.LoraSpec(r=8), batch=4)
    drawn = bars(costs)
    assert list(drawn) == list(versus(made))
    for row, one in versus(made).items():
        assert {part: drawn[row][part] for part in PARTS} == {part: getattr(one.ledger, part) for part in PARTS}
        assert sum(drawn[row].values()) == one.ledger.on_card


def test_what_is_shown_is_the_figure_for_export() -> None:
    costs = Budget()
    shown = costs._answer.plot.to_plotly_json()
    assert [list(trace["x"]) for trace in shown["data"]] == [list(trace.x) for trace in costs.figure().data]
    json.loads(costs.figure().to_json())


def test_the_line_is_the_card() -> None:
    costs = Budget(gpu="24GB")
    assert costs.figure().layout.shapes[0].x0 == pytest.approx(24)
    costs.gpu.value = "A100 80GB"
    assert costs.figure().layout.shapes[0].x0 == pytest.approx(find_card("A100 80GB").memory_bytes / 10**9)


MOVES: dict[str, dict[str, Any]] = {
    "r": {"r": 64},
    "targets": {"targets": ("q", "k", "v", "o")},
    "batch and length": {"batch": 8, "seq": 2048},
    "type": {"dtype": "fp32"},
    "quantized": {"quant": "nf4"},
    "optimizer": {"optimizer": "adamw8bit", "adapter_dtype": "bf16"},
    "step": {"checkpointing": True, "attention": "flash", "fused_loss": True},
    "another model": {"model": "gpt2-medium"},
}
OF_SPEC = {"r": "r", "targets": "target_modules"}


@pytest.mark.parametrize("moves", MOVES.values(), ids=MOVES)
def test_controls_moved_from_code_give_what_the_function_gives(moves: dict[str, Any]) -> None:
    costs = Budget()
    for name, value in moves.items():
        getattr(costs, name).value = value
    spec = ll.LoraSpec(**{OF_SPEC[name]: value for name, value in moves.items() if name in OF_SPEC})
    step = {name: value for name, value in moves.items() if name not in (*OF_SPEC, "model")}
    wanted = ll.budget(moves.get("model", "llama-3.2-3b"), spec, **step)
    assert costs.budget.to_json() == {**wanted.to_json(), "targets": costs.budget.to_json()["targets"]}
    assert bars(costs)["LoRA"]["weights"] == wanted.ledger.weights
    assert not costs.refused


def test_the_command_line_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    costs = Budget("llama-3.2-3b", ll.LoraSpec(r=8, target_modules=("q", "v")), batch=2, seq=750)
    costs.r.value = 32
    main(["budget", "--model", "llama-3.2-3b", "--r", "32", "--targets", "q,v", "--batch", "2", "--seq", "750", "--json"])
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(costs.budget.to_json()))


def test_tiles_and_sentences_are_those_of_the_core() -> None:
    costs = Budget("llama-3.2-3b", gpu="T4", batch=16, seq=2048)
    made, card = costs.budget, find_card("T4")
    assert f"{made.trainable_params:,}" in costs._tiles.value
    assert remedy_sentence(ll.budget.cheapest_change(made, card), card) in unescape(costs._tiles.value)
    assert budget_sentence(made) in unescape(costs._sentence.value)
    assert counter_sentence(made) in unescape(costs._answer.sentence)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_may_be_chosen_and_left_again(method: str) -> None:
    costs = Budget("roberta-base")
    before = costs.budget.to_json()
    costs.method.value = method
    assert not costs.refused
    assert costs.budget.to_json() == ll.budget("roberta-base", ll.MethodSpec(method=method)).to_json()
    costs.method.value = "lora"
    assert costs.budget.to_json() == before


@pytest.mark.parametrize("method", ["full", "prefix", "ia3", "lora"])
def test_a_method_given_at_first_is_shown_as_one_that_is_chosen(method: str) -> None:
    given, chosen = Budget("roberta-base", method), Budget("roberta-base")
    chosen.method.value = method
    shown = [(costs.r.description, costs.r.disabled, costs.targets.layout.display) for costs in (given, chosen)]
    assert shown[0] == shown[1]
    assert given.r.disabled == (not METHODS[method].r_is)
    assert (given.targets.layout.display == "none") == (not METHODS[method].has_targets)


def test_a_matrix_clicked_is_a_target() -> None:
    costs = Budget()
    costs.targets.pick("down")
    assert costs.spec.target_modules == ("q", "v", "down")
    assert costs.budget.trainable_params == ll.budget("llama-3.2-3b", costs.spec).trainable_params
    assert costs.targets.drawn.count("lab-matrix on") == 3


def test_no_matrix_is_refused_in_one_sentence_and_the_bars_stay() -> None:
    costs = Budget()
    shown = costs._answer.plot.to_plotly_json()["data"]
    costs.targets.value = ()
    assert "at least one matrix" in costs.refused
    assert costs._answer.plot.to_plotly_json()["data"] == shown


def test_what_no_control_has_stays_as_it_was_given() -> None:
    spec = ll.LoraSpec(r=4, lora_dropout=0.1, layers_to_transform=(0, 1))
    costs = Budget("gpt2-medium", spec)
    costs.r.value = 8
    assert (costs.spec.lora_dropout, costs.spec.layers_to_transform) == (0.1, (0, 1))


def test_names_are_taken_as_the_function_takes_them() -> None:
    costs = Budget("Llama-3.2-3B", "qlora", gpu="4090")
    assert (costs.method.value, costs.quant.value, costs.gpu.value) == ("qlora", "nf4-dq", "RTX 4090")
    costs.model.value = "GPT2-medium"
    assert costs.budget.model.name == ll.find_model("gpt2-medium").name


def test_a_peft_config_is_a_spec() -> None:
    from peft import LoraConfig

    costs = Budget("gpt2-medium", LoraConfig(r=4, lora_alpha=8, target_modules=["c_attn"]))
    assert (costs.r.value, costs.alpha.value, costs.targets.value) == (4, 8.0, ("c_attn",))


@pytest.mark.parametrize("wrong", [{"model": "no such model"}, {"batch": 0}, {"gpu": "no such card"}])
def test_what_cannot_be_is_refused_in_one_sentence(wrong: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="Got"):
        Budget(**wrong)
