"""Quantities at the edges of their units."""

import pytest

from lora_lab.units import count, file_size, percent, seconds


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1 k"),
        (1234, "1.23 k"),
        (999_400, "999 k"),
        (999_500, "1 M"),  # rounds up into the next unit, never to "1e+03 k"
        (999_999, "1 M"),
        (152_650, "153 k"),
        (10**6, "1 M"),
        (999_999_999, "1 B"),
        (7_000_000_000, "7 B"),
        (1_300_000_000_000, "1300 B"),
    ],
)
def test_a_count_has_three_digits_and_a_unit(n: int, text: str) -> None:
    assert count(n) == text


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (999_999, "1 MB"), (10**6, "1 MB"), (999_999_999, "1 GB"), (24 * 10**9, "24 GB")],
)
def test_a_file_size_has_three_digits_and_a_decimal_unit(size_bytes: int, text: str) -> None:
    assert file_size(size_bytes) == text


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
