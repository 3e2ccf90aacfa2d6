"""Files that visitors take along: each in a folder of its own, and none of them left when the app ends."""

import shutil
import weakref
from collections import deque
from pathlib import Path
from tempfile import mkdtemp

_KEPT = 64  # the page copies a file as it hands it over


class Exports:
    """The places of the last files; those before make room for them."""

    def __init__(self) -> None:
        self._folders: deque[Path] = deque()
        weakref.finalize(self, _remove_all, self._folders)  # at the latest as Python ends

    def path(self, name: str) -> Path:
        """Where to write a file of that name, which no other visitor's file has."""
        folder = Path(mkdtemp(prefix="lora-lab-"))
        self._folders.append(folder)
        while len(self._folders) > _KEPT:
            _remove(self._folders.popleft())
        return folder / name


def _remove_all(folders: deque[Path]) -> None:
    while folders:
        _remove(folders.popleft())


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
