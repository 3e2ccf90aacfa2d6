"""The picture of a lesson is what its tagged cell shows, small enough to be kept."""

import io
from pathlib import Path

import nbformat
import plotly.graph_objects as go
import pytest
from PIL import Image

from lora_lab.lessons import pictures

LESSONS = sorted((Path(__file__).parent.parent.parent / "notebooks").glob("*.ipynb"))
FIGURE = "import plotly.graph_objects as go\nshown = go.Figure(go.Bar(y=[3, 1, 2]))"


def a_lesson(path: Path, *cells: str, tagged: int | None) -> Path:
    code = [nbformat.v4.new_code_cell(cell) for cell in cells]
    if tagged is not None:
        code[tagged].metadata["tags"] = [pictures.TAG]
    nbformat.write(nbformat.v4.new_notebook(cells=code), path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("shows", ["shown", "type('Widget', (), {'figure': lambda self: shown})()"], ids=["figure", "widget"])
def test_the_figure_is_that_of_the_tagged_cell_and_later_cells_are_not_run(tmp_path: Path, shows: str) -> None:
    lesson = a_lesson(tmp_path / "a.ipynb", FIGURE, shows, "raise RuntimeError", tagged=1)
    (trace,) = pictures.figure_of(lesson)["data"]
    assert go.Bar(trace).y == (3, 1, 2)


@pytest.mark.parametrize("tagged", [None], ids=["no tag"])
def test_a_lesson_without_the_tag_is_refused(tmp_path: Path, tagged: int | None, capsys: pytest.CaptureFixture[str]) -> None:
    a_lesson(tmp_path / "a.ipynb", FIGURE, tagged=tagged)
    assert pictures.main([str(tmp_path)]) == 2
    assert "must have one cell tagged picture. Got a.ipynb, which has 0" in capsys.readouterr().err


def test_a_picture_of_many_colours_is_made_small() -> None:
    noise = Image.effect_noise((400, 300), 80).convert("RGB")
    png = io.BytesIO()
    noise.save(png, "PNG")
    small = pictures.shrink(png.getvalue())
    assert len(small) < len(png.getvalue())
    assert Image.open(io.BytesIO(small)).size == (400, 300)


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_every_lesson_has_its_picture_and_the_cell_that_makes_it(lesson: Path) -> None:
    path = lesson.parent / "pictures" / f"{lesson.stem}.png"
    assert 2_000 < path.stat().st_size <= pictures.MOST_BYTES
    book = nbformat.read(lesson, as_version=4)
    assert [cell.cell_type for cell in book.cells if pictures.TAG in cell.metadata.get("tags", [])] == ["code"]
