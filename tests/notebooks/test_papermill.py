"""Papermill runs a lesson with other parameters: nothing below the first cell takes a value for granted."""

import os
from pathlib import Path
from typing import Any

import papermill
import pytest

REPOSITORY = Path(__file__).parent.parent.parent
NOTEBOOKS = REPOSITORY / "notebooks"
MATRIX = "vit.layers.1.attention.q_proj"
OTHERS: dict[str, dict[str, Any]] = {
    "01_a_low_rank_update_by_hand": {"D_OUT": 30, "D_IN": 50, "RANKS": [2], "DIGIT": 9},
    "05_how_much_rank": {"RANKS": [1, 16], "SEEDS": [3, 5], "STEPS": 130, "MATRIX": MATRIX},
    "07_what_is_learned": {"SMALL": 4, "LARGE": 24, "SEEDS": [5, 6], "STEPS": 90, "MATRIX": MATRIX},
    "11_more_than_one_machine": {"RANKS": [1, 3, 5], "SEEDS": [7], "STEPS": 60, "STOP_AT": 0.7},
}


@pytest.mark.slow
@pytest.mark.parametrize("lesson", OTHERS)
def test_a_lesson_runs_with_other_parameters(lesson: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))
    given = {**OTHERS[lesson], "TIDY": True}
    ran = papermill.execute_notebook(
        NOTEBOOKS / f"{lesson}.ipynb", tmp_path / "ran.ipynb", parameters=given, cwd=tmp_path, progress_bar=False
    )
    put_in = next(cell for cell in ran.cells if "injected-parameters" in cell.metadata.tags)
    assert all(f"{name} = " in put_in.source for name in given)
    assert all(cell.execution_count for cell in ran.cells if cell.cell_type == "code")


@pytest.mark.slow
def test_an_adapter_of_the_readers_own_is_put_under_the_microscope(
    digits_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))
    lesson = NOTEBOOKS / "10_your_own_adapter.ipynb"
    given = {"ADAPTER": str(digits_run.adapter_dir), "TIDY": True}
    ran = papermill.execute_notebook(lesson, tmp_path / "ran.ipynb", parameters=given, cwd=tmp_path, progress_bar=False)
    told = "".join(output.get("text", "") for cell in ran.cells for output in cell.get("outputs", []))
    assert f"'r': {digits_run.spec.tuning.r}, " in told
    assert "8 matrices" in told
