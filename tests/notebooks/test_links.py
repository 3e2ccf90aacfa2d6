"""Where a lesson sends its readers there is something: files, places of the page, the list of lessons with their pictures."""

import re
import tomllib
from pathlib import Path

import nbformat
import pytest

REPOSITORY = Path(__file__).parent.parent.parent
NOTEBOOKS = REPOSITORY / "notebooks"
LESSONS = sorted(NOTEBOOKS.glob("*.ipynb"))


@pytest.fixture(scope="module")
def places() -> set[str]:
    """The routes of the page; the first one's is empty."""
    from lora_lab.ui.page import build

    return {route for route, *_ in build().pages}


def prose_of(lesson: Path) -> str:
    return "\n\n".join(cell.source for cell in nbformat.read(lesson, as_version=4).cells if cell.cell_type == "markdown")


def title_of(lesson: Path) -> str:
    return prose_of(lesson).splitlines()[0].removeprefix("# ")


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_every_file_linked_is_there_and_every_place_of_the_page_exists(lesson: Path, places: set[str]) -> None:
    prose = prose_of(lesson)
    for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", prose):
        assert (NOTEBOOKS / target).exists(), target
    assert {place.strip("/") for place in re.findall(r"http://localhost:7860/([\w/]*)", prose)} <= places


def test_the_reading_order_names_every_lesson_in_order_with_its_picture() -> None:
    readme = (NOTEBOOKS / "README.md").read_text(encoding="utf-8")
    linked = re.findall(r"\[(\d+ · [^\]]+)\]\((\w+\.ipynb)\)", readme)
    assert linked == [(title_of(lesson), lesson.name) for lesson in LESSONS]
    assert re.findall(r"src=\"(pictures/\w+\.png)\"", readme) == [f"pictures/{lesson.stem}.png" for lesson in LESSONS]
    assert {path.stem for path in (NOTEBOOKS / "pictures").iterdir()} == {lesson.stem for lesson in LESSONS}


def test_the_readme_of_the_repository_has_a_question_for_every_lesson() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    table = readme.split("## The lessons")[1].split("\n## ")[0]
    rows = re.findall(r"^\| \[(\d+ · [^\]]+)\]\(notebooks/(\w+\.ipynb)\) \| (.+\?) \|$", table, re.MULTILINE)
    assert [(title, name) for title, name, _ in rows] == [(title_of(lesson), lesson.name) for lesson in LESSONS]


def test_what_a_place_that_runs_lessons_installs_is_the_extra_that_there_is() -> None:
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]["dynamic"]["optional-dependencies"]
    assert "notebooks" in extras
    assert (REPOSITORY / ".binder" / "requirements.txt").read_text() == "-e .[notebooks]\n"
    assert 'pip install -e ".[notebooks]"' in (NOTEBOOKS / "README.md").read_text(encoding="utf-8")
