"""Folders that a reader sees whole: replaced by two renames, and mended where those were cut short."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

RECORD = "lora_lab.json"


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """A path to write the new folder at; it takes the old one's place if the block ends well.

    A reader sees a whole folder or, if this is killed between two renames, none: `restore` brings the old one back.
    """
    fresh, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    shutil.rmtree(fresh, ignore_errors=True)
    yield fresh
    shutil.rmtree(old, ignore_errors=True)  # left by a save that was killed here
    if folder.exists():
        os.rename(folder, old)
    os.rename(fresh, folder)
    shutil.rmtree(old, ignore_errors=True)


def restore(folder: Path) -> None:
    """Bring back the old folder where a save was killed between putting it aside and putting the new one in place."""
    old = folder.with_name(folder.name + ".old")
    if old.exists() and not folder.exists():
        os.rename(old, folder)


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Keep what the lab knows of an adapter beside its weights."""
    (folder / RECORD).write_text(json.dumps(record) + "\n")


def read_record(folder: Path) -> dict[str, Any]:
    """What the lab wrote beside an adapter's weights; empty where there is nothing, or nothing of that kind."""
    try:
        record = json.loads((folder / RECORD).read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def saved_step(folder: Path) -> int | None:
    """The optimizer step that a saved adapter stands at; None where there is none, or it was not saved here."""
    try:
        return int(read_record(folder)["step"])
    except (ValueError, KeyError, TypeError):
        return None
