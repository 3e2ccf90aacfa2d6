"""The map of costs: colours follow the cost, lines run where a budget ends."""

import pytest

from lora_lab.plots.budget_map import budget_map

VALUES = [[10, 20, 40], [20, 40, 80]]


def drawn(lines: dict[str, int]) -> tuple[object, list[object]]:
    texts = [[str(value) for value in row] for row in VALUES]
    fig = budget_map(VALUES, texts, rows=["q", "q v"], ranks=[1, 2, 4], lines=lines)
    return fig.data[0], list(fig.data[1:])


def test_equal_costs_have_equal_colours_and_larger_ones_are_darker() -> None:
    heat, _ = drawn({})
    shade = {cost: heat.z[i][j] for i, row in enumerate(VALUES) for j, cost in enumerate(row)}  # type: ignore[attr-defined]
    assert [shade[cost] for cost in sorted(shade)] == sorted(set(shade.values()))
    assert heat.z[0][1] == heat.z[1][0]  # type: ignore[attr-defined]
    assert [list(row) for row in heat.customdata] == VALUES  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("budget", "edges"),
    [(5, [0, 0, 0, 0]), (10, [1, 1, 0, 0]), (40, [3, 3, 2, 2]), (79, [3, 3, 2, 2]), (80, [3, 3, 3, 3])],
)
def test_line_runs_after_the_last_cell_within_the_budget(budget: int, edges: list[int]) -> None:
    _, (line,) = drawn({"mine": budget})
    assert list(line.x) == edges  # type: ignore[attr-defined]
    assert line.name == "mine"  # type: ignore[attr-defined]


def test_two_budgets_are_two_lines_apart_in_colour() -> None:
    _, lines = drawn({"mine": 20, "card": 40})
    assert len({line.line.color for line in lines}) == 2  # type: ignore[attr-defined]
