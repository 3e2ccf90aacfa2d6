"""The bill of a step as bars."""

from lora_lab.budget import PARTS, Card, Ledger
from lora_lab.plots.budget_bill import PART_COLOURS, budget_bill

ROWS = {"one": Ledger(weights=6_000_000_000, loss=1_000_000_000), "other": Ledger(weights=2_000_000_000, optimizer=3_000_000_000)}


def test_every_part_is_a_piece_of_every_bar_in_its_colour() -> None:
    figure = budget_bill(ROWS, Card("card", 24 * 10**9))
    for part, trace in zip(PARTS, figure.data, strict=False):
        assert (trace.name, trace.marker.color, list(trace.y)) == (part, PART_COLOURS[part], ["one", "other"])
        assert list(trace.x) == [getattr(ledger, part) / 10**9 for ledger in ROWS.values()]


def test_bar_and_overhead_end_left_of_the_line_where_it_fits_and_right_of_it_where_not() -> None:
    for card in (Card("small", 7 * 10**9), Card("large", 9 * 10**9)):
        figure = budget_bill(ROWS, card)
        ends = {row: sum(trace.x[i] for trace in figure.data) for i, row in enumerate(ROWS)}
        line = figure.layout.shapes[0].x0
        assert {row: end <= line for row, end in ends.items()} == {
            row: ledger.on_card <= card.memory_bytes for row, ledger in ROWS.items()
        }


def test_the_card_is_named_with_its_size() -> None:
    assert budget_bill(ROWS, Card("T4", 15_843_721_216)).layout.annotations[0].text == "T4, 15.8 GB"
