"""Badges come from the repository's name, go without a trace, and are not there where no name is known."""

import json
import shutil
import subprocess
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest

from lora_lab.lessons.badges import badge_line, main, origin

LESSONS = Path(__file__).parent.parent.parent / "notebooks"


@pytest.fixture
def lessons(tmp_path: Path) -> Path:
    """The lessons themselves, in a folder without git."""
    return Path(shutil.copytree(LESSONS, tmp_path / "notebooks"))


def texts(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.ipynb"))}


def titles(folder: Path) -> list[str]:
    return [json_cells(path)[0] for path in sorted(folder.glob("*.ipynb"))]


def json_cells(path: Path) -> list[str]:
    return ["".join(cell["source"]) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]]


def test_a_line_of_badges_stands_under_each_title_and_nothing_else_changes(lessons: Path) -> None:
    before = {path.name: json_cells(path) for path in lessons.glob("*.ipynb")}
    assert main([str(lessons), "--repository", "someone/a-lab", "--branch", "main"]) == 0
    for path in lessons.glob("*.ipynb"):
        first, *others = json_cells(path)
        title, line, *rest = first.split("\n\n")
        assert [title, *rest] == before[path.name][0].split("\n\n")
        assert others == before[path.name][1:]
        assert f"https://colab.research.google.com/github/someone/a-lab/blob/main/notebooks/{path.name})" in line
        assert f"https://mybinder.org/v2/gh/someone/a-lab/main?labpath=notebooks/{path.name})" in unquote(line)
        assert 'pip install "lora-lab[notebooks] @ git+https://github.com/someone/a-lab@main"' in line
        nbformat.validate(nbformat.read(path, as_version=4))


def test_twice_is_once_another_name_takes_its_place_and_taking_away_leaves_no_trace(lessons: Path) -> None:
    before = texts(lessons)
    main([str(lessons), "--repository", "someone/a-lab"])
    once = texts(lessons)
    main([str(lessons), "--repository", "someone/a-lab"])
    assert texts(lessons) == once
    main([str(lessons), "--repository", "other/lab", "--branch", "next"])
    assert not any("someone/a-lab" in title for title in titles(lessons))
    assert all("other/lab/blob/next" in title for title in titles(lessons))
    main([str(lessons), "--remove"])
    assert texts(lessons) == before


def test_without_a_name_there_are_none(lessons: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = texts(lessons)
    main([str(lessons), "--repository", "someone/a-lab"])
    assert main([str(lessons)]) == 0
    assert texts(lessons) == before
    assert "without badges" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://github.com/someone/a-lab.git", "someone/a-lab"),
        ("https://github.com/someone/a.lab", "someone/a.lab"),
        ("git@github.com:someone/a-lab.git", "someone/a-lab"),
        ("https://example.org/someone/a-lab.git", None),
        ("/srv/github.com/someone/a-lab/deeper", None),
    ],
)
def test_the_name_is_that_of_gits_origin_on_github(tmp_path: Path, url: str, name: str | None) -> None:
    for command in (["init", "-q"], ["remote", "add", "origin", url]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    assert origin(tmp_path) == name


def test_a_branch_of_two_words_keeps_its_slash_apart_from_binders() -> None:
    line = badge_line("someone/a-lab", "try/it", "notebooks/a b.ipynb")
    assert "/blob/try/it/notebooks/a%20b.ipynb)" in line
    assert "/gh/someone/a-lab/try%2Fit?labpath=notebooks%2Fa%20b.ipynb)" in line


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--repository", "alone"], "The repository parameter of badges must be owner/name. Got 'alone'."),
        (["--repository", "a/b/c"], "Got 'a/b/c'."),
    ],
)
def test_what_is_no_name_is_refused_and_nothing_written(
    lessons: Path, arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = texts(lessons)
    assert main([str(lessons), *arguments]) == 2
    assert sentence in capsys.readouterr().err
    assert texts(lessons) == before


def test_a_folder_without_lessons_and_a_file_that_is_none_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--repository", "a/b"]) == 2
    (tmp_path / "a.ipynb").write_text('{"cells": []}')
    assert main([str(tmp_path), "--repository", "a/b"]) == 2
    assert "must be a notebook whose first cell begins with its title" in capsys.readouterr().err
