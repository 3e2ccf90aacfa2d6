"""Restaurants: every sentence tells its facts and no others, and no split has met another's restaurants."""

import hashlib
import subprocess
import sys
from itertools import permutations
from pathlib import Path
from random import Random

import pytest

from lora_lab.benches.draws import pick, some
from lora_lab.benches.examples import Completion, TextData
from lora_lab.benches.restaurants import restaurants

SPLITS = ("train", "validation", "test")
OPEN = ("name", "near")
# How each value of the closed classes may be said, written down apart from the generator.
SAID = {
    "priceRange": {
        "low": ("cheap", "low prices", "prices are low"),
        "moderate": ("moderately priced", "moderate prices", "prices are moderate"),
        "high": ("expensive", "high prices", "prices are high"),
    },
    "area": {
        "riverside": ("y the river",),
        "city centre": ("n the city centre",),
        "old town": ("n the old town",),
        "harbour": ("t the harbour",),
    },
    "familyFriendly": {
        "yes": ("family-friendly", "good for families", "welcomes families", "children are welcome"),
        "no": ("adults-only", "not suited to children", "admits only adults", "children are not allowed"),
    },
    "eatType": {kind: (kind,) for kind in ("restaurant", "pub", "coffee shop", "bistro")},
    "food": {
        food: (food,)
        for food in ("Italian", "French", "Japanese", "Indian", "Chinese", "Thai", "Greek", "Mexican", "Turkish", "Spanish")
    },
    "customer rating": {
        rating: (f"rated {rating}", f"rating of {rating}")
        for rating in ("poor", "average", "excellent", "1 star", "3 stars", "5 stars")
    },
}
PRINT_HASH = """
import hashlib
from lora_lab.benches.restaurants import restaurants
print(hashlib.sha256(repr(restaurants()).encode()).hexdigest())
"""


@pytest.fixture(scope="module")
def data() -> TextData:
    return restaurants()


def rows(data: TextData, split: str) -> tuple[Completion, ...]:
    return getattr(data, split)


def everything(data: TextData) -> list[Completion]:
    return [row for split in SPLITS for row in rows(data, split)]


def facts(row: Completion) -> dict[str, str]:
    line, rest = row.prompt.split("\n")
    assert rest == "Sentence:"
    return dict(fact.split(": ") for fact in line.split(" | "))


def texts(row: Completion) -> set[str]:
    return {row.prompt, row.completion, *row.references}


def test_the_splits_are_as_large_as_told(data: TextData) -> None:
    assert (data.kind, data.metric) == ("completion", "bleu")
    assert [len(rows(data, split)) for split in SPLITS] == [2000, 200, 200]
    assert all(len({row.prompt for row in rows(data, split)}) == len(rows(data, split)) for split in SPLITS)


def test_another_process_makes_the_same(data: TextData, repository: Path) -> None:
    command = [sys.executable, "-c", PRINT_HASH]
    env = {"PYTHONHASHSEED": "1", "PYTHONPATH": str(repository)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == hashlib.sha256(repr(data).encode()).hexdigest()


def test_an_example_has_three_to_eight_facts_in_the_order_of_e2e(data: TextData) -> None:
    order = ["name", "eatType", "food", "priceRange", "customer rating", "area", "familyFriendly", "near"]
    for row in everything(data):
        told = facts(row)
        assert 3 <= len(told) <= 8
        assert list(told) == [name for name in order if name in told]
        assert "name" in told
    assert {len(facts(row)) for row in data.train} == set(range(3, 9))


def test_every_way_of_saying_it_tells_each_fact_and_no_other(data: TextData) -> None:
    for row in everything(data):
        told = facts(row)
        for text in row.references:
            assert all(told[name] in text for name in OPEN if name in told), (told, text)
            for name, values in SAID.items():
                said = {value for value, ways in values.items() if any(way in text for way in ways)}
                assert said == ({told[name]} if name in told else set()), (name, told, text)


def test_every_way_of_saying_it_is_one_sentence(data: TextData) -> None:
    for text in {text for row in everything(data) for text in row.references}:
        assert text[0] == " "
        assert text[1].isupper()
        assert text.endswith(".")
        assert text.count(".") == 1
        assert "\n" not in text
        assert "  " not in text
        assert " ," not in text


def test_the_completion_is_the_first_of_several_references(data: TextData) -> None:
    for row in everything(data):
        assert row.references[0] == row.completion
        assert 3 <= len(set(row.references)) == len(row.references) <= 5


def test_no_way_of_saying_it_is_always_taken(data: TextData) -> None:
    opinions = [row.completion.startswith(" Customers give") for row in data.train if "customer rating" in facts(row)]
    assert 0.2 < sum(opinions) / len(opinions) < 0.3


@pytest.mark.parametrize(("one", "other"), [*permutations(SPLITS, 2)])
def test_no_text_or_open_value_of_a_split_is_in_another(data: TextData, one: str, other: str) -> None:
    there = set().union(*(texts(row) for row in rows(data, other)))
    assert not there & set().union(*(texts(row) for row in rows(data, one)))
    all_of_it = "\n".join(there).lower()
    values = {facts(row)[name] for row in rows(data, one) for name in OPEN if name in facts(row)}
    assert len(values) > 60
    assert [value for value in values if value.lower() in all_of_it] == []


def test_restaurants_share_no_word_but_the_article(data: TextData) -> None:
    words = [{word for row in rows(data, split) for word in facts(row)["name"].split()} for split in SPLITS]
    assert words[0] & words[1] == words[0] & words[2] == words[1] & words[2] == {"The"}


def test_examples_are_short(data: TextData) -> None:
    lengths = [len(row.prompt) + max(map(len, row.references)) for row in everything(data)]
    assert max(lengths) <= 4 * 95
    assert sum(lengths) / len(lengths) <= 4 * 65


def test_draws_reach_every_option_about_as_often() -> None:
    rng = Random(0)
    drawn = [pick(rng, "abcd") for _ in range(4000)]
    assert all(abs(drawn.count(letter) - 1000) < 150 for letter in "abcd")
    orders = {tuple(some(rng, "abc", 3)) for _ in range(200)}
    assert orders == set(permutations("abc"))
    with pytest.raises(IndexError):
        some(rng, "abc", 4)
