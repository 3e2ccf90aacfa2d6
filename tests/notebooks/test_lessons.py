"""Every lesson, top to bottom, in a clean kernel, with the small values of its parameters cell."""

import os
from pathlib import Path

import pytest
from nbmake.nb_run import NotebookRun

REPOSITORY = Path(__file__).parent.parent.parent
LESSONS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_lesson_runs(lesson: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))
    result = NotebookRun(lesson, default_timeout=300).execute()
    assert result.error is None, result.error
