"""The widget Gradients: the first steps as the core measures them."""

from html import unescape
from pathlib import Path
from typing import Any

import pytest

import lora_lab as ll
from lora_lab.errors import SpecError
from lora_lab.events import StepEvent
from lora_lab.inference import chain_rule_of, first_gradients_of
from lora_lab.plots import gradient_caption
from lora_lab.roles import layer_of, role_of
from lora_lab.widgets.gradients import Gradients, _line


@pytest.fixture(scope="module")
def gradients() -> Gradients:
    return Gradients("digits", ll.LoraSpec(r=4), steps=4)


def norms(figure: Any, side: str) -> dict[int, float]:
    """What is drawn of one factor: its line, and a zero where the mark of a zero is."""
    drawn = {}
    for trace in figure.data:
        if trace.name.startswith(f"‖∂L/∂{side}‖"):
            drawn |= {step: norm for step, norm in zip(trace.x, trace.y, strict=True) if norm is not None}
        if trace.name == f"∂L/∂{side} = 0":
            drawn |= dict.fromkeys(trace.x, 0.0)
    return drawn


def test_nothing_reaches_a_at_the_first_step_as_b_is_zero(gradients: Gradients) -> None:
    first, second = gradients.records[:2]
    assert first.grad_norm_a == 0
    assert first.grad_norm_b is not None
    assert first.grad_norm_b > 0
    assert second.grad_norm_a is not None
    assert second.grad_norm_a > 0
    assert "exactly 0, because B = 0" in gradients._flow.sentence


def test_the_plot_has_every_norm_measured(gradients: Gradients) -> None:
    for side in "AB":
        measured = {one.step: getattr(one, f"grad_norm_{side.lower()}") for one in gradients.records}
        assert norms(gradients.figure(), side) == measured == norms(gradients._flow.plot, side)


def test_the_sentence_is_that_of_the_page(gradients: Gradients) -> None:
    assert gradient_caption([_line(gradients.plan)]) in unescape(gradients._flow.sentence)


def test_the_rule_is_that_of_the_chosen_matrix_on_the_first_batch(gradients: Gradients) -> None:
    name = gradients.matrix.options[0][1]
    gradients.matrix.value = name
    assert gradients.rule == chain_rule_of(gradients.plan, name)
    assert f"{gradients.rule.grad_norm_b:.3g}" in gradients._table.value


MOVES: dict[str, Any] = {
    **{"r": 2, "alpha": 32.0, "init": "pissa", "lr": 1e-3, "steps": 2, "seed": 3},
    **{"method": "dora", "targets": ("up", "down")},
}
SETTINGS = {"lr": "learning_rate", "steps": "steps", "seed": "seed"}
TUNING = {"r": "r", "alpha": "lora_alpha", "init": "init_lora_weights", "method": "method", "targets": "target_modules"}


@pytest.mark.parametrize("control", MOVES)
def test_a_control_moved_from_code_gives_the_steps_of_that_run(control: str) -> None:
    moved = Gradients("digits", ll.LoraSpec(r=4), steps=3)
    getattr(moved, control).value = MOVES[control]
    tuning = ll.MethodSpec(**{"r": 4, **{TUNING[name]: MOVES[name] for name in TUNING if name == control}})
    settings = {"steps": 3, "seed": 0, **{SETTINGS[name]: MOVES[name] for name in SETTINGS if name == control}}
    plan = ll.plan_run(ll.find_bench("digits"), tuning, **settings)
    assert moved.plan == plan
    assert moved.records == first_gradients_of(plan)
    assert not moved.refused


def test_the_first_step_is_the_one_that_training_logs(tmp_path: Path) -> None:
    widget = Gradients("digits", ll.LoraSpec(r=2), steps=3)
    logged = [event for event in ll.train_events(widget.plan, tmp_path) if isinstance(event, StepEvent)]
    assert logged[0].grad_norm_b == pytest.approx(widget.records[0].grad_norm_b, rel=1e-4)
    assert logged[0].loss == pytest.approx(widget.records[0].loss, rel=1e-5)


def test_other_start_values_let_the_gradient_through() -> None:
    widget = Gradients("digits", ll.LoraSpec(r=4, init_lora_weights="pissa"), steps=2)
    assert widget.records[0].grad_norm_a
    assert widget.rule.norm_b > 0


def test_the_menu_of_matrices_follows_the_targets() -> None:
    widget = Gradients("digits", steps=2)
    widget.targets.value = ("down",)
    assert [role_of(name) for _, name in widget.matrix.options] == ["down"] * 4
    assert widget.rule.name == widget.matrix.value


def test_a_refusal_is_one_sentence_and_the_last_steps_stay() -> None:
    widget = Gradients("digits", ll.LoraSpec(r=4), steps=2)
    before = widget.records
    widget.targets.value = ()
    assert "at least one matrix" in widget.refused
    assert widget.records is before


def test_only_matrices_of_the_layers_that_are_adapted_are_offered() -> None:
    widget = Gradients("digits", ll.LoraSpec(r=4, layers_to_transform=(0,)), steps=2)
    assert [layer_of(name) for _, name in widget.matrix.options] == [0, 0]
    assert widget.rule.name == widget.matrix.value


@pytest.mark.parametrize("method", ["bitfit", "full"])
def test_a_method_without_a_and_b_is_refused_in_one_sentence(method: str) -> None:
    with pytest.raises(SpecError, match=rf"must be one that adapts matrices, such as lora. Got '{method}'\.$"):
        Gradients("digits", ll.MethodSpec(method=method))


def test_a_rate_that_cannot_be_read_is_said_while_it_stands_there() -> None:
    widget = Gradients("digits", ll.LoraSpec(r=4), steps=2)
    widget.lr.set_state({"value": "0,001"})
    assert "The learning rate must be a number. Got '0,001'." in unescape(widget.refused)
    assert widget.lr.get_state("value") == {"value": "0,001"}
    widget.lr.set_state({"value": ""})
    assert (widget.refused, widget.lr.chosen()) == ("", None)
