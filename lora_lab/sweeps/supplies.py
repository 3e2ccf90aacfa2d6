"""Files that a bench reads, for machines that do not have them: put into an object store once, written to a machine's disk once."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from lora_lab.assets import cache_dir, sha256_of
from lora_lab.benches import Bench
from lora_lab.errors import AssetError

_READ = (".json", ".jinja", ".jsonl", ".csv", ".model", ".safetensors", ".txt")  # of a base's folder and of data
Put = Callable[[Any], Any]
Get = Callable[[Any], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Supply:
    """A folder or file that a bench asks for.

    Attributes:
        name: that it asks for.
        path: on the machine that has it.
        sha256: of each file, by its name.
        content: the reference to the files' bytes by name; None where no other machine will want them.
    """

    name: str
    path: Path
    sha256: Mapping[str, str]
    content: Any

    @property
    def key(self) -> str:
        """The SHA-256 of the whole."""
        lines = "".join(f"{sha256} {name}\n" for name, sha256 in sorted(self.sha256.items()))
        return hashlib.sha256(lines.encode()).hexdigest()


def supplies_of(bench: Bench, put: Put | None) -> tuple[Supply, ...]:
    """What the bench needs, put where other machines can get it.

    Args:
        bench: the bench.
        put: gives a reference for a mapping of names to arrays of bytes; None where there is no other machine.

    Raises:
        LabError: the files cannot be had.
    """
    return tuple(_supply(name, path, put) for name, path in bench.supplies().items())


def _supply(name: str, path: Path, put: Put | None) -> Supply:
    files = _files(path)
    content = put({file.name: np.fromfile(file, dtype=np.uint8) for file in files}) if put else None
    return Supply(name, path.absolute(), {file.name: sha256_of(file) for file in files}, content)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return sorted(file for file in path.iterdir() if file.is_file() and file.suffix in _READ)


def placed(supply: Supply, get: Get) -> Path:
    """Where the files are on this machine: under their own path if they are there, else in the cache, written there once.

    Raises:
        AssetError: what was sent is not what was put.
    """
    if _is_there(supply, supply.path):
        return supply.path
    folder = cache_dir() / "supplied" / supply.key
    place = folder / supply.path.name if supply.path.name in supply.sha256 else folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not folder.is_dir():
            _write(supply, get(supply.content), folder)
    return place


def _is_there(supply: Supply, path: Path) -> bool:
    folder = path.parent if path.is_file() else path
    return all((folder / name).is_file() and sha256_of(folder / name) == sha256 for name, sha256 in supply.sha256.items())


def _write(supply: Supply, content: Mapping[str, Any], folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".supply-") as scratch:
        fresh = Path(scratch) / "files"
        fresh.mkdir()
        for name, array in content.items():
            array.tofile(fresh / name)
        if not _is_there(supply, fresh):
            raise AssetError(f"The files of {supply.name!r} must arrive as they were sent. Some did not.")
        os.rename(fresh, folder)
