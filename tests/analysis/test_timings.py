"""Medians with their spread, ratios within a round, and what can be told from 1."""

import random

import pytest

from lora_lab.analysis.timings import Latency, LogitDifference, Shape, ShapeTimings, parse_shape, spread, timings_of
from lora_lab.errors import SpecError


def test_quartiles_are_linear_between_values() -> None:
    found = spread([5.0, 1.0, 2.0, 4.0, 3.0])
    assert (found.rounds, found.median, found.q1, found.q3, found.least) == (5, 3.0, 2.0, 4.0, 1.0)
    assert spread([1.0, 2.0]).q1 == 1.25


def test_one_value_has_a_median_and_no_interval() -> None:
    found = spread([7.0])
    assert (found.median, found.q1, found.q3, found.least, found.low, found.high) == (7.0, 7.0, 7.0, 7.0, None, None)


@pytest.mark.parametrize(("rounds", "k"), [(7, 0), (8, 1), (20, 4), (100, 37)])
def test_the_interval_ends_at_the_order_statistics_of_the_sign_test(rounds: int, k: int) -> None:
    found = spread([float(i) for i in range(1, rounds + 1)])
    assert (found.low, found.high) == ((float(k), float(rounds + 1 - k)) if k else (None, None))


@pytest.mark.parametrize("rounds", [8, 20, 51])
def test_the_interval_misses_the_median_at_most_once_in_a_hundred_whatever_the_distribution(rounds: int) -> None:
    draw, tries = random.Random(0), 4000
    found = [spread([draw.paretovariate(1.2) for _ in range(rounds)]) for _ in range(tries)]
    median = 2 ** (1 / 1.2)
    assert sum(not one.low <= median <= one.high for one in found) / tries <= 0.013  # type: ignore[operator]


def test_a_ratio_is_one_within_a_round() -> None:
    """A machine that is ten times as slow in every other round leaves the ratios alone."""
    slow = [1.0, 10.0] * 5
    base, lora = timings_of({"base": [0.1 * s for s in slow], "lora": [0.12 * s for s in slow]})
    assert (base.ratio, base.told) == (None, None)
    assert lora.seconds.median == pytest.approx(0.66)
    assert lora.ratio is not None
    assert [lora.ratio.low, lora.ratio.median, lora.ratio.high] == pytest.approx([1.2, 1.2, 1.2])
    assert lora.told is True


def test_what_lies_on_both_sides_of_the_base_is_not_told_from_it() -> None:
    base = [1.0] * 12
    _, merged, faster = timings_of({"base": base, "merged": [0.9, 1.1] * 6, "faster": [0.8] * 12})
    assert (merged.told, faster.told) == (False, True)


def test_with_too_few_rounds_nothing_can_be_said() -> None:
    _, lora = timings_of({"base": [1.0] * 7, "lora": [2.0] * 7})
    assert lora.told is None


def test_names_keep_their_order_and_a_variant_may_be_missing_at_a_shape() -> None:
    first = ShapeTimings(Shape(1, 8), timings_of({"base": [1.0], "lora": [2.0], "prefix": [3.0]}))
    second = ShapeTimings(Shape(1, 40), timings_of({"base": [1.0], "lora": [2.0]}))
    record = Latency("x", 1, 8, "cpu", 1, "float32", (first, second), ())
    assert record.names == ("base", "lora", "prefix")
    assert second.of("prefix") is None


@pytest.mark.parametrize(
    ("text", "shape"), [("1x32", Shape(1, 32)), (" 8 × 128 ", Shape(8, 128)), ("64", Shape(64)), ("2X4", Shape(2, 4))]
)
def test_a_shape_is_read_as_it_is_typed(text: str, shape: Shape) -> None:
    assert parse_shape(text) == shape


@pytest.mark.parametrize("text", ["", "0x4", "4x", "1x2x3", "-1", "a"])
def test_what_is_no_shape_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="The shape parameter of latency must be batch x tokens such as 8x128"):
        parse_shape(text)


def test_a_shape_has_a_label_and_a_size() -> None:
    assert [(s.label, s.size) for s in (Shape(8, 128), Shape(64))] == [("8 × 128", 1024), ("batch 64", 64)]


def test_a_difference_is_relative_to_the_largest_logit() -> None:
    assert LogitDifference("bf16", 0.5, 10.0).relative == 0.05
    assert LogitDifference("fp16", None, None, "overflows").relative is None
