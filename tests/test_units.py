"""Quantities at the edges of their units."""

import re

import pytest

from lora_lab.units import count, file_size, percent, seconds

UNITS = {"": 1, "k": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
SIZES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
EDGES = [1000, 1001, 12_345, 999_499, 999_500, 999_999, 10**6, 999_999_999, 10**9, 1_300_000_000_000]


def read(text: str, units: dict[str, int]) -> float:
    """The number that a person reads: digits, a point perhaps, a unit."""
    number, unit = re.fullmatch(r"(\d+(?:\.\d+)?) ?([a-zA-Z]*)", text).groups()
    return float(number) * units[unit]


@pytest.mark.parametrize("n", EDGES)
def test_counts_and_file_sizes_read_back_to_three_digits(n: int) -> None:
    assert read(count(n), UNITS) == pytest.approx(n, rel=0.005)
    assert read(file_size(n), SIZES) == pytest.approx(n, rel=0.005)


@pytest.mark.parametrize("n", [0, 1, 999])
def test_below_a_thousand_every_one_counts(n: int) -> None:
    assert (count(n), file_size(n)) == (str(n), f"{n} B")


@pytest.mark.parametrize(
    ("n", "counted", "sized"),
    [(1000, "1 k", "1 kB"), (152_650, "153 k", "153 kB"), (10**6, "1 M", "1 MB"), (7 * 10**9, "7 B", "7 GB")],
)
def test_a_unit_begins_at_its_own_size(n: int, counted: str, sized: str) -> None:
    assert (count(n), file_size(n)) == (counted, sized)


@pytest.mark.parametrize(
    ("duration_s", "text"),
    [(0.0, "0 s"), (0.4, "0 s"), (119.4, "119 s"), (119.6, "2 min 0 s"), (120.0, "2 min 0 s"), (3661.0, "61 min 1 s")],
)
def test_a_duration_changes_to_minutes_after_two(duration_s: float, text: str) -> None:
    assert seconds(duration_s) == text


@pytest.mark.parametrize(
    ("fraction", "digits", "text"),
    [(0.0, 1, "0.0 %"), (1.0, 1, "100.0 %"), (0.99949, 1, "99.9 %"), (0.5, 0, "50 %"), (-0.25, 2, "-25.00 %")],
)
def test_a_fraction_becomes_a_percentage(fraction: float, digits: int, text: str) -> None:
    assert percent(fraction, digits) == text
