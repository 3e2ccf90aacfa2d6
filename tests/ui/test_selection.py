"""The address holds the selection, whatever somebody wrote into it."""

from urllib.parse import parse_qsl

import pytest

from lora_lab.ui.selection import Selection

CHOSEN = Selection(
    bench="yours",
    base="my/base",
    data="a b.csv",
    r=(2, 16),
    alpha="2r",
    targets=("q", "up"),
    seeds=(3,),
    lr=1e-4,
    steps=7,
    methods=("lora+", "bitfit"),
    init=("pissa", "default"),
    base_quant="nf4",
    optim="SGD",
    dropout=0.1,
    tokens=4,
    run="0a",
    against="/some/where/adapter",
    measure="phi",
    threshold=0.65,
    under="digits",
)


@pytest.mark.parametrize("selection", [Selection(), CHOSEN, Selection(r=(), seeds=(), targets=())])
def test_selection_survives_the_address(selection: Selection) -> None:
    assert Selection.from_query(dict(parse_qsl(selection.query(), keep_blank_values=True))) == selection


def test_address_of_the_defaults_is_empty() -> None:
    assert Selection().query() == ""


@pytest.mark.parametrize(
    "query", [{"r": "eight"}, {"steps": "1.5"}, {"lr": "fast"}, {"dropout": "much"}, {"threshold": "9"}, {"unknown": "1"}]
)
def test_nonsense_in_the_address_is_the_default(query: dict[str, str]) -> None:
    assert Selection.from_query(query) == Selection()


@pytest.mark.parametrize("query", [{"of": "a", "side": "out"}, {"side": "up"}, {"of": "b"}])
def test_sides_that_do_not_exist_are_the_input_side(query: dict[str, str]) -> None:
    assert Selection.from_query(query).side == "in"
    assert Selection.from_query(query).of in ("a", "delta")
