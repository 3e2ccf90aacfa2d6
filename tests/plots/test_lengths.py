"""The histogram of row lengths shows the record's counts, says where a row is cut, and its sentence is of the same numbers."""

from dataclasses import replace

import pytest

from lora_lab import plots
from lora_lab.benches.preview import Preview

SEEN = Preview(
    task="classification",
    metric="accuracy",
    train_rows=1200,
    validation_rows=100,
    test_rows=50,
    examples=(("fine", "good"),),
    label_counts=(("bad", 400), ("good", 800)),
    counted_rows=1200,
    edges_tokens=(0, 10, 20, 30),
    bin_counts=(100, 1000, 100),
    longest_tokens=29,
    mean_tokens=14.25,
    max_tokens=24,
    cut_rows=31,
)


def texts(seen: Preview) -> list[str]:
    return [annotation.text for annotation in plots.lengths(seen).layout.annotations]


def test_bars_are_the_counts_in_their_bins() -> None:
    (bars,) = plots.lengths(SEEN).data
    assert list(bars.y) == [100, 1000, 100]
    assert [(x - bars.width / 2, x + bars.width / 2) for x in bars.x] == [(0, 10), (10, 20), (20, 30)]
    assert list(bars.customdata) == ["0 to 9", "10 to 19", "20 to 29"]


def test_axes_say_what_is_counted() -> None:
    layout = plots.lengths(SEEN).layout
    assert (layout.xaxis.title.text, layout.yaxis.title.text) == ("tokens a row", "training rows")
    some = plots.lengths(replace(SEEN, counted_rows=1000)).layout
    assert some.yaxis.title.text == "of the first 1,000 training rows"


def test_a_line_stands_where_a_row_is_cut() -> None:
    figure = plots.lengths(SEEN)
    (line,) = figure.layout.shapes
    assert (line.x0, line.x1) == (24, 24)
    assert texts(SEEN) == ["cut at 24 tokens"]
    assert figure.layout.xaxis.range == (0, 30)
    beyond = plots.lengths(replace(SEEN, max_tokens=50)).layout
    assert beyond.xaxis.range[1] >= beyond.shapes[0].x0 == 50


def test_a_limit_far_off_is_an_arrow_and_squeezes_no_bar() -> None:
    far = replace(SEEN, max_tokens=4096)
    assert texts(far) == ["cut at 4,096 tokens →"]
    assert not plots.lengths(far).layout.shapes
    assert plots.lengths(far).layout.xaxis.range == (0, 30)


def test_the_sentence_is_of_the_same_numbers() -> None:
    said = plots.lengths_caption(SEEN)
    assert said == (
        "Training rows have 14.2 tokens on average, 29 at most; a row is cut at 24: "
        "31 of 1,200 are longer, and what comes after is not read."
    )
    assert plots.lengths_caption(replace(SEEN, cut_rows=1)).endswith("1 of 1,200 is longer, and what comes after is not read.")
    assert plots.lengths_caption(replace(SEEN, cut_rows=0)).endswith("a row is cut at 24, and none is longer.")
    assert plots.lengths_caption(replace(SEEN, counted_rows=1000)).startswith("The first 1,000 training rows have 14.2 tokens")


@pytest.mark.parametrize(
    ("task", "what"), [("completion", "the beginning of the prompt is not read"), ("text", "the rest is a row of its own")]
)
def test_what_becomes_of_a_long_row_is_its_tasks(task: str, what: str) -> None:
    assert what in plots.lengths_caption(replace(SEEN, task=task))


def test_rows_and_labels_in_words() -> None:
    assert plots.rows_sentence(SEEN) == (
        "Classification of 2 labels: 1,200 rows to train on, 100 to validate, 50 to test; scored by accuracy."
    )
    plain = replace(SEEN, task="text", metric="", label_counts=())
    assert plots.rows_sentence(plain).startswith("Plain text: 1,200 rows")
    assert plots.rows_sentence(plain).endswith("scored by the loss alone.")
    assert plots.labels_sentence(SEEN) == "Training rows a label: bad 400, good 800."
    assert plots.labels_sentence(plain) == ""
    many = replace(SEEN, label_counts=tuple((f"l{i}", i) for i in range(25)))
    assert plots.labels_sentence(many).endswith("l19 19, and 5 labels more.")


@pytest.mark.parametrize(
    ("text", "most", "shown"),
    [
        ("short", 10, "short"),
        ("two\n lines", 10, "two lines"),
        ("one two three four five six", 20, "one two … five six"),
        ("a" * 30, 11, "aaaa … aaaa"),
    ],
)
def test_a_long_text_loses_its_middle(text: str, most: int, shown: str) -> None:
    assert plots.shortened(text, most) == shown
    assert len(plots.shortened(text, most)) <= most
