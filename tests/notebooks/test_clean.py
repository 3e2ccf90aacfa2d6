"""Lessons are kept without outputs, define nothing, mark their parameters, check their claims, and lead from one to the next."""

import ast
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

NOTEBOOKS = Path(__file__).parent.parent.parent / "notebooks"
LESSONS = sorted(NOTEBOOKS.glob("*.ipynb"))
MOST_LINES = 8  # of a code cell
PAPER = "https://arxiv.org/abs/2106.09685"
PAGE = "http://localhost:7860/"


@pytest.fixture(params=LESSONS, ids=lambda path: path.stem)
def lesson(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


@pytest.fixture
def cells(lesson: Path) -> list[Any]:
    return list(nbformat.read(lesson, as_version=4).cells)


@pytest.fixture
def code_cells(cells: list[Any]) -> list[Any]:
    return [cell for cell in cells if cell.cell_type == "code"]


@pytest.fixture
def prose(cells: list[Any]) -> str:
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def test_there_are_at_least_ten() -> None:
    assert len(LESSONS) >= 10
    assert [path.name[:2] for path in LESSONS] == [f"{i:02}" for i in range(1, len(LESSONS) + 1)]


def test_no_outputs_are_kept(code_cells: list[Any]) -> None:
    assert not any(cell.outputs or cell.execution_count for cell in code_cells)


def test_the_file_is_what_nbformat_writes_for_the_plain_kernel(lesson: Path) -> None:
    book = nbformat.read(lesson, as_version=4)
    nbformat.validate(book)
    assert nbformat.writes(book).rstrip("\n") + "\n" == lesson.read_text(encoding="utf-8")
    assert (book.nbformat, book.nbformat_minor, book.metadata.kernelspec.name) == (4, 5, "python3")
    assert all(re.fullmatch(r"cell-\d+", cell.id) for cell in book.cells)


def test_first_cell_is_the_parameters_with_small_values_of_the_same_names(code_cells: list[Any]) -> None:
    first = code_cells[0]
    assert "parameters" in first.metadata.tags
    targets = [t for node in ast.parse(first.source).body if isinstance(node, ast.Assign) for t in node.targets]
    names = {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    assert first.metadata.nbmake["mock"].keys() <= names


def test_lessons_define_nothing_and_check_their_claims(code_cells: list[Any]) -> None:
    nodes = [node for cell in code_cells for node in ast.walk(ast.parse(cell.source))]
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda
    assert not any(isinstance(node, kinds) for node in nodes)
    assert sum(isinstance(node, ast.Assert) for node in nodes) >= 3


def test_cells_are_short(code_cells: list[Any]) -> None:
    imports = ast.Import | ast.ImportFrom
    for cell in code_cells:
        lines = [line for line in cell.source.splitlines() if line.strip()]
        only_sets_up = any(isinstance(node, imports) for node in ast.parse(cell.source).body)
        assert only_sets_up or len(lines) <= MOST_LINES, cell.source


def test_every_lesson_has_a_widget_that_is_moved_from_code(code_cells: list[Any]) -> None:
    made = "\n".join(cell.source for cell in code_cells)
    assert "ll.widgets." in made
    assert re.search(r"\w\.value = |\.start\(\)", made)


def test_one_cell_is_the_picture_of_the_lesson(cells: list[Any]) -> None:
    assert [cell.cell_type for cell in cells if "picture" in cell.metadata.get("tags", [])] == ["code"]


def test_a_title_then_links_to_the_page_the_paper_and_the_neighbours(lesson: Path, cells: list[Any]) -> None:
    title, links = cells[0].source.split("\n\n")[:2]
    assert re.fullmatch(rf"# {int(lesson.name[:2])} · .+", title)
    assert PAGE in links
    assert PAPER in links
    at = LESSONS.index(lesson)
    for neighbour in (*LESSONS[max(at - 1, 0) : at], *LESSONS[at + 1 : at + 2]):
        assert f"({neighbour.name})" in links


def test_a_prediction_is_asked_and_an_exercise_with_a_hint_and_a_way_on_are_given(prose: str) -> None:
    assert re.search(r"predict|guess", prose, re.IGNORECASE)
    assert "## Exercise" in prose
    assert re.search(r"<summary>Hints?</summary>", prose)
    assert "## Where next" in prose
