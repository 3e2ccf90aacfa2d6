"""Badges that open a lesson in Colab or on Binder: `python -m lora_lab.lessons.badges --repository owner/name notebooks`.

They carry the repository's name, so that they are written where one is known and taken away where none is: a line under each
lesson's title. The repository itself is kept without.
"""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lora_lab.errors import DataError, LabError, out_of_range

_BEGINS = "[![Open in Colab]"
_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_ORIGIN = re.compile(r"(?:https?://(?:[^/@]+@)?|ssh://git@|git@)github\.com[:/]([\w.-]+/[\w.-]+?)(?:\.git)?/?")


def badge_line(repository: str, branch: str, path: str) -> str:
    """The badges of one lesson, and what Colab lacks.

    Args:
        repository: `owner/name` on GitHub.
        branch: of it.
        path: of the lesson in it.
    """
    colab = f"https://colab.research.google.com/github/{repository}/blob/{quote(branch)}/{quote(path)}"
    binder = f"https://mybinder.org/v2/gh/{repository}/{quote(branch, safe='')}?labpath={quote(path, safe='')}"
    install = f'%pip install "lora-lab[notebooks] @ git+https://github.com/{repository}@{branch}"'
    return (
        f"{_BEGINS}(https://colab.research.google.com/assets/colab-badge.svg)]({colab})"
        f" [![Open on Binder](https://mybinder.org/badge_logo.svg)]({binder})"
        f" In Colab run `{install}` first, in a cell of its own."
    )


def origin(folder: Path) -> str | None:
    """The repository that git's origin of a folder is on GitHub; None where it is elsewhere or there is none."""
    asked = ["git", "-C", str(folder), "remote", "get-url", "origin"]
    try:
        url = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:  # no git
        return None
    found = _ORIGIN.fullmatch(url)
    return found[1] if found else None


def put_badges(lesson: Path, line: str | None) -> bool:
    """Put this line under a lesson's title in place of the one that is there; with None take that away.

    Returns:
        Whether the file has changed.

    Raises:
        DataError: it is no notebook whose first cell is a title.
    """
    text = lesson.read_text(encoding="utf-8")
    book = _parsed(lesson, text)
    title = book["cells"][0]
    source = _with_line("".join(title["source"]), line)
    title["source"] = source if isinstance(title["source"], str) else source.splitlines(keepends=True)  # both are written
    new = json.dumps(book, indent=1, ensure_ascii=False) + "\n"
    if new == text:
        return False
    lesson.write_text(new, encoding="utf-8")
    return True


def _parsed(lesson: Path, text: str) -> dict[str, Any]:
    try:
        book: dict[str, Any] = json.loads(text)
        first = book["cells"][0]
        if first["cell_type"] == "markdown" and "".join(first["source"]).startswith("# "):
            return book
    except (ValueError, LookupError, TypeError):
        pass
    raise DataError(f"A lesson must be a notebook whose first cell begins with its title. Got {str(lesson)!r}.")


def _with_line(source: str, line: str | None) -> str:
    """The title, the badges where there are any, and what followed."""
    title, *others = source.split("\n\n")
    body = [part for part in others if not part.startswith(_BEGINS)]
    return "\n\n".join([title, *([line] if line else []), *body])


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or take away the badges of every lesson of a folder."""
    parser = argparse.ArgumentParser(prog="python -m lora_lab.lessons.badges", description=__doc__)
    parser.add_argument("folder", nargs="?", default="notebooks", type=Path)
    parser.add_argument("--repository", help="owner/name on GitHub; git's origin where it is there, else no badges")
    parser.add_argument("--branch", default="main")
    parser.add_argument("--remove", action="store_true", help="take the badges away")
    asked = parser.parse_args(arguments)
    try:
        print(_write(asked.folder, None if asked.remove else asked.repository or origin(asked.folder), asked.branch))
    except LabError as err:
        print(err, file=sys.stderr)
        return 2
    return 0


def _write(folder: Path, repository: str | None, branch: str) -> str:
    if repository is not None and not _NAME.fullmatch(repository):
        raise DataError(out_of_range("repository", "badges", "owner/name", repository))
    lessons = sorted(folder.glob("*.ipynb"))
    if not lessons:
        raise DataError(f"The folder must have lessons (*.ipynb). Got {str(folder)!r}.")
    lines = [repository and badge_line(repository, branch, f"{folder.resolve().name}/{lesson.name}") for lesson in lessons]
    changed = sum(put_badges(lesson, line) for lesson, line in zip(lessons, lines, strict=True))
    what = f"with badges of {repository} ({branch})" if repository else "without badges"
    return f"{len(lessons)} lessons {what}, {changed} of them changed."


if __name__ == "__main__":
    sys.exit(main())
