"""Lessons are kept without outputs, define nothing, and mark their parameters."""

import ast
from pathlib import Path
from typing import Any

import nbformat
import pytest

LESSONS = sorted((Path(__file__).parent.parent.parent / "notebooks").glob("*.ipynb"))


@pytest.fixture(params=LESSONS, ids=lambda path: path.stem)
def code_cells(request: pytest.FixtureRequest) -> list[Any]:
    book = nbformat.read(request.param, as_version=4)
    return [cell for cell in book.cells if cell.cell_type == "code"]


def test_there_is_a_lesson() -> None:
    assert LESSONS


def test_no_outputs_are_kept(code_cells: list[Any]) -> None:
    assert not any(cell.outputs or cell.execution_count for cell in code_cells)


def test_first_cell_is_the_parameters(code_cells: list[Any]) -> None:
    assert "parameters" in code_cells[0].metadata.tags


def test_lessons_define_nothing_and_check_their_claims(code_cells: list[Any]) -> None:
    nodes = [node for cell in code_cells for node in ast.walk(ast.parse(cell.source))]
    assert not any(isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda) for node in nodes)
    assert any(isinstance(node, ast.Assert) for node in nodes)
