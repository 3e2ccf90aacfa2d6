"""A preview shows rows as the model will read them and counts lengths as its tokenizer does."""

from collections.abc import Sequence
from itertools import pairwise

import pytest

from lora_lab.benches.examples import Completion, Labelled, TextData
from lora_lab.benches.preview import BINS, bin_edges, preview


def words(texts: Sequence[str]) -> list[int]:
    """A tokenizer that takes a word for a token."""
    return [len(text.split()) for text in texts]


TEXTS = ("one", "one two", "one two three", "one two three four", "one two", "one")
CLASSES = TextData(
    "classification",
    "accuracy",
    train=tuple(Labelled(text, i % 3) for i, text in enumerate(TEXTS[:5])),
    validation=(Labelled("a", 0),),
    test=(Labelled("b", 1), Labelled("c", 2)),
    label_names=("bad", "good", "mixed", "never"),
)


def test_a_classification_is_shown_with_its_labels() -> None:
    seen = preview(CLASSES, words, max_tokens=2, rows=2)
    assert (seen.kind, seen.train_rows, seen.validation_rows, seen.test_rows) == ("classification", 5, 1, 2)
    assert seen.examples == (("one", "bad"), ("one two", "good"))
    assert seen.label_counts == (("bad", 2), ("good", 2), ("mixed", 1), ("never", 0))


def test_lengths_are_counted_over_the_training_rows() -> None:
    seen = preview(CLASSES, words, max_tokens=2)
    assert seen.edges_tokens == (0, 1, 2, 3, 4, 5)
    assert seen.bin_counts == (0, 1, 2, 1, 1)  # lengths 1, 2, 3, 4, 2
    assert (seen.longest_tokens, seen.mean_tokens, seen.max_tokens, seen.cut_rows) == (4, 2.4, 2, 2)
    assert preview(CLASSES, words, max_tokens=3).cut_rows == 1
    assert preview(CLASSES, words, max_tokens=4).cut_rows == 0


def test_a_pair_is_read_whole_and_counted_whole() -> None:
    rows = (Labelled("one two", 1, "three"), Labelled("one", 0, "two three four"))
    seen = preview(TextData("classification", "accuracy", rows, rows, rows, ("no", "yes")), words, max_tokens=3)
    assert seen.examples == (("one two\nthree", "yes"), ("one\ntwo three four", "no"))
    assert (seen.longest_tokens, seen.mean_tokens, seen.cut_rows) == (4, 3.5, 1)


def test_a_number_is_shown_as_it_is() -> None:
    rows = (Labelled("a", 2.5), Labelled("b", 0.0))
    seen = preview(TextData("regression", "pearson", rows, rows, rows), words, max_tokens=9)
    assert seen.examples == (("a", "2.5"), ("b", "0.0"))
    assert seen.label_counts == ()


def test_a_completion_is_counted_with_its_prompt() -> None:
    rows = (Completion("say it: ", "it is so"), Completion("", "plain text"))
    seen = preview(TextData("completion", "bleu", rows, rows, rows), words, max_tokens=4)
    assert seen.examples == (("say it: ", "it is so"), ("", "plain text"))
    assert (seen.longest_tokens, seen.mean_tokens, seen.cut_rows) == (5, 3.5, 1)


@pytest.mark.parametrize("longest", [0, 1, 19, 20, 21, 39, 40, 1000, 4096])
def test_bins_are_few_and_hold_the_longest(longest: int) -> None:
    edges = bin_edges(longest)
    assert 1 <= len(edges) - 1 <= BINS
    assert edges[0] == 0
    assert edges[-2] <= longest < edges[-1]
    assert len({upper - lower for lower, upper in pairwise(edges)}) == 1


def test_the_bins_hold_every_row_once() -> None:
    rows = tuple(Completion("", "w " * n) for n in range(1, 101))
    seen = preview(TextData("completion", "", rows, rows, rows), words, max_tokens=50)
    assert sum(seen.bin_counts) == 100
    assert seen.edges_tokens[:3] == (0, 6, 12)
    assert seen.bin_counts[:2] == (5, 6)  # 1 to 5, 6 to 11
    assert seen.cut_rows == 50
