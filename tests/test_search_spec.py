"""A search refuses what it cannot do at once; its rungs, and its space as a user writes it."""

from itertools import pairwise
from typing import Any

import jaxtyping
import pytest

from lora_lab.errors import SpecError
from lora_lab.search_spec import LEAST_STEPS, Range, SearchSpec, parse_space, point_text

SPACE = {"r": Range(1, 64, log=True)}


@pytest.fixture(autouse=True)
def _unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As users run it: tests alone check types at the call."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"trials": 0}, "The trials parameter of SearchSpec must be an int of at least 1. Got 0."),
        ({"trials": 2.0}, "The trials parameter of SearchSpec must be an int of at least 1. Got 2.0."),
        ({"confirm": -1}, "The confirm parameter of SearchSpec must be an int of at least 0. Got -1."),
        ({"confirm_seeds": 0}, "The confirm_seeds parameter of SearchSpec must be an int of at least 1. Got 0."),
        ({"steps": 0}, "The steps parameter of SearchSpec must be an int of at least 1. Got 0."),
        ({"eta": 1}, "The eta parameter of SearchSpec must be an int of at least 2. Got 1."),
        ({"eta": 3, "trials": 2}, "The trials parameter of SearchSpec must be at least eta=3. Got 2."),
        ({"rungs": 2}, "The rungs parameter of SearchSpec must be None where eta is. Got 2."),
        ({"space": {}}, "The space parameter of SearchSpec must be a mapping of at least one axis. Got {}."),
        ({"space": {"r": ()}}, "The r parameter of SearchSpec must be a Range, or a tuple of at least one choice. Got ()."),
        ({"space": {"r": 8}}, "The r parameter of SearchSpec must be a Range, or a tuple of at least one choice. Got 8."),
        ({"space": {"r": Range(0.5, 8)}}, "The r parameter of SearchSpec must be a Range of two ints, or choices. Got"),
        ({"space": {"targets": Range(1, 2)}}, "The targets parameter of SearchSpec must be choices, which have no range. Got"),
        ({"space": {"seeds": (0, 1)}}, "The space parameter of SearchSpec must be of the axes methods, init_lora_weights"),
        ({"space": {"rank": (1, 2)}}, "The space parameter of SearchSpec must be of the axes methods, init_lora_weights"),
    ],
)
def test_a_search_refuses_what_is_out_of_range(said: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SpecError) as refusal:
        SearchSpec(**{"space": SPACE, **said})
    assert str(refusal.value).startswith(sentence)


@pytest.mark.parametrize(("low", "high", "log"), [(2, 1, False), (0, 1, True), (float("nan"), 1, False), ("1", 2, False)])
def test_a_range_is_two_numbers_in_order(low: Any, high: Any, log: bool) -> None:
    with pytest.raises(SpecError, match="low and high parameter of Range must be two numbers, the lower first"):
        Range(low, high, log)


@pytest.mark.parametrize("trials", [2, 3, 7, 16, 27, 100])
@pytest.mark.parametrize("steps", [30, 97, 200, 4000])
@pytest.mark.parametrize("eta", [2, 3, 4])
def test_a_ladder_keeps_one_in_eta_and_trains_it_eta_times_as_long(trials: int, steps: int, eta: int) -> None:
    if eta > trials or steps < eta * LEAST_STEPS:
        return
    ladder = SearchSpec(space=SPACE, trials=trials, eta=eta).ladder(steps)
    assert ladder[0][0] == trials
    assert ladder[-1][1] == steps
    for (many, short), (few, long) in pairwise(ladder):
        assert few == many // eta >= 1
        assert short == long // eta >= LEAST_STEPS
    assert ladder[-1][0] < eta or ladder[0][1] < eta * LEAST_STEPS  # another rung would have none to keep, or no steps


def test_as_many_rungs_as_were_asked_for() -> None:
    assert SearchSpec(space=SPACE, trials=8, eta=2, rungs=4).ladder(8) == ((8, 1), (4, 2), (2, 4), (1, 8))
    assert SearchSpec(space=SPACE, trials=8, eta=2, rungs=1).ladder(8) == ((8, 8),)
    assert SearchSpec(space=SPACE, trials=8).ladder(8) == ((8, 8),)


@pytest.mark.parametrize(
    ("said", "steps", "sentence"),
    [
        ({"trials": 8, "eta": 2, "rungs": 5}, 100, "The trials parameter of SearchSpec must be at least 16. Got 8."),
        ({"trials": 8, "eta": 2, "rungs": 4}, 7, "The steps parameter of SearchSpec must be at least 8. Got 7."),
        ({"trials": 8, "eta": 2}, 19, "The steps parameter of SearchSpec must be at least 20, for two rungs. Got 19."),
    ],
)
def test_more_rungs_than_there_are_trials_or_steps_for_are_refused(said: dict[str, int], steps: int, sentence: str) -> None:
    with pytest.raises(SpecError) as refusal:
        SearchSpec(space=SPACE, **said).ladder(steps)
    assert str(refusal.value) == sentence


def test_a_space_reads_from_a_line() -> None:
    numbers = "r=1:64:log; lr = 1e-4:1e-1:log;dropout=0:0.2;alpha=16|2r;batch=4|4|8"
    assert parse_space(f"{numbers};targets=q,v|all-linear;layers=0-1|all;method=lora|dora") == {
        "r": Range(1, 64, log=True),
        "learning_rate": Range(1e-4, 1e-1, log=True),
        "lora_dropout": Range(0.0, 0.2),
        "lora_alpha": ("16", "2r"),
        "targets": (("q", "v"), ("all-linear",)),
        "layers_to_transform": ((0, 1), None),
        "methods": ("lora", "dora"),
        "batch_size": (4, 8),
    }


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("r", "--space must be of parts such as r=1:64:log"),
        ("r=", "--space must be of parts such as r=1:64:log"),
        ("rank=1:8", "--space must be of parts such as r=1:64:log"),
        ("r=1:8;r=2|4", "--space must be of parts such as r=1:64:log"),
        ("seeds=0|1", "--space must be of parts such as r=1:64:log"),
        ("r=1:8:exp", "--space must give r as low:high or low:high:log, or choices such as a|b. Got '1:8:exp'."),
        ("method=lora:dora", "--space must give method as choices such as a|b. Got 'lora:dora'."),
        ("r=1:many", "--r must be an int. Got 'many'."),
        ("r=1,2", "--r must be an int. Got '1,2'."),
        ("lr=0:1:log", "The low and high parameter of Range must be two numbers, the lower first, both above 0."),
    ],
)
def test_any_other_space_is_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(SpecError) as refusal:
        parse_space(text)
    assert str(refusal.value).startswith(sentence)


def test_a_point_is_said_in_the_words_of_the_command_line() -> None:
    point = {"r": 4, "learning_rate": 0.00125, "targets": (), "layers_to_transform": (0, 3), "quant": None}
    assert point_text(point) == "r 4, lr 0.00125, targets own, layers 0,3, quant own"
