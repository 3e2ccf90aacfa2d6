"""A grid refuses bad axes at once; its values read from a line as a user writes them."""

from dataclasses import fields
from typing import Any

import jaxtyping
import pytest

from lora_lab.errors import SpecError
from lora_lab.specs import MethodSpec, RunSpec
from lora_lab.sweep_spec import AXES, SweepSpec, parse_budget

NEEDED = ("r", "lora_alpha", "methods", "init_lora_weights", "bias", "lora_dropout", "num_virtual_tokens", "seeds")
OPEN = ("quant", "optimizer", "batch_size", "weight_decay", "learning_rate", "loraplus_lr_ratio")
NESTED = ("targets", "layers_to_transform")


@pytest.fixture(autouse=True)
def _unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As users run it: tests alone check types at the call."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def refusal_of(**said: Any) -> str:
    with pytest.raises(SpecError) as refusal:
        SweepSpec(**said)
    return str(refusal.value)


def test_every_axis_is_a_field_and_fills_a_field_of_a_run() -> None:
    assert set(AXES) == {*NEEDED, *OPEN, *NESTED} <= {field.name for field in fields(SweepSpec)}
    there = {"tuning": MethodSpec, "run": RunSpec}
    for axis in AXES.values():
        assert axis.fills in {field.name for field in fields(there[axis.of])}
    assert len({axis.fills for axis in AXES.values()}) == len({axis.flag for axis in AXES.values()}) == len(AXES)


@pytest.mark.parametrize("name", NEEDED)
@pytest.mark.parametrize("got", [(), [1], None])
def test_an_axis_without_values_is_refused(name: str, got: object) -> None:
    assert refusal_of(**{name: got}) == f"The {name} parameter of SweepSpec must be a value or a tuple of them. Got {got!r}."


@pytest.mark.parametrize("name", OPEN)
def test_an_axis_that_is_left_open_is_none_and_not_empty(name: str) -> None:
    assert SweepSpec(**{name: None}).choices(name) == (None,)
    assert refusal_of(**{name: ()}) == f"The {name} parameter of SweepSpec must be a value or a tuple of them, or None. Got ()."


@pytest.mark.parametrize("name", NESTED)
@pytest.mark.parametrize("got", [(), [("q",)], "q", 1, None])
def test_choices_of_several_are_a_tuple_of_them(name: str, got: object) -> None:
    assert refusal_of(**{name: got}) == f"The {name} parameter of SweepSpec must be a tuple of at least one choice. Got {got!r}."


def test_one_value_stands_for_a_tuple_of_one() -> None:
    one = SweepSpec(r=8, lora_alpha="2r", methods="dora", batch_size=4, learning_rate=1e-3, seeds=3)
    assert one == SweepSpec(r=(8,), lora_alpha=("2r",), methods=("dora",), batch_size=(4,), learning_rate=(1e-3,), seeds=(3,))


@pytest.mark.parametrize(
    ("name", "text", "values"),
    [
        ("r", "1, 2,8", (1, 2, 8)),
        ("lora_alpha", "16,2r", ("16", "2r")),
        ("learning_rate", "1e-3,0.01", (0.001, 0.01)),
        ("lora_dropout", "0,0.1", (0.0, 0.1)),
        ("loraplus_lr_ratio", "4,16", (4.0, 16.0)),
        ("methods", "lora,dora", ("lora", "dora")),
        ("targets", "q,v;q,k,v,o", (("q", "v"), ("q", "k", "v", "o"))),
        ("targets", "", ((),)),
        ("layers_to_transform", "0-1;2,3;all", ((0, 1), (2, 3), None)),
        ("layers_to_transform", "", (None,)),
        ("seeds", "", ()),
    ],
)
def test_a_line_is_read_as_values(name: str, text: str, values: tuple[Any, ...]) -> None:
    assert AXES[name].read_all(text) == values


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("r", "1,two", "--r must be an int. Got 'two'."),
        ("learning_rate", "fast", "--lr must be a number. Got 'fast'."),
        ("layers_to_transform", "0-x", "The layers_to_transform parameter of MethodSpec must be numbers and spans"),
    ],
)
def test_a_value_that_is_none_is_one_sentence(name: str, text: str, sentence: str) -> None:
    with pytest.raises(SpecError) as refusal:
        AXES[name].read_all(text)
    assert str(refusal.value).startswith(sentence)


@pytest.mark.parametrize(
    ("text", "params"),
    [
        ("18M", 18_000_000),
        ("18.9m", 18_900_000),
        ("18,874,368", 18_874_368),
        ("4096", 4096),
        ("4 k", 4000),
        ("1.5B", 1_500_000_000),
    ],
)
def test_a_budget_is_a_number_of_parameters(text: str, params: int) -> None:
    assert parse_budget(text) == params


def test_a_budget_may_be_what_targets_train_at_an_r() -> None:
    assert parse_budget("q, v@8", method="dora") == MethodSpec(method="dora", r=8, target_modules=("q", "v"))
    assert parse_budget("@4") == MethodSpec(r=4)  # on the method's own


@pytest.mark.parametrize("text", ["", "much", "q,v", "q,v@", "q,v@many", "-5", "18 MB", "1e6"])
def test_any_other_budget_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="--equal-budget must be a number such as 18M, or targets and an r") as refusal:
        parse_budget(text)
    assert repr(text) in str(refusal.value)


@pytest.mark.parametrize("got", [0, -5, True, 1.5, "18M"])
def test_a_budget_out_of_range_is_refused(got: object) -> None:
    assert refusal_of(equal_budget=got).startswith("The equal_budget parameter of SweepSpec must be an int of at least 1")


def test_a_method_without_an_r_has_nothing_to_spend_a_budget_with() -> None:
    said = refusal_of(equal_budget=1000, methods=("lora", "bitfit"))
    assert said == "The methods parameter of SweepSpec must be methods with an r where equal_budget is given. Got 'bitfit'."
