"""The SQLite index over a store's folders: what can be told of a run without opening its files.

The folders are the truth. Every look compares them with the index first, by the time at which a run's metrics were written, and
reads in what is new, in one transaction with the answer: nobody sees the index behind the folders that he saw, whatever other
processes write meanwhile. In WAL mode readers wait for no one, and writers for each other.
"""

import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path

from lora_lab.sweeps.claims import unwritable
from lora_lab.sweeps.run import Run, parse_run

_VERSION = 1  # raise it when the table changes: it is made anew from the folders
_TABLE = """
CREATE TABLE runs (
    run_id TEXT PRIMARY KEY, finished_ns INTEGER NOT NULL, status TEXT NOT NULL, spec TEXT NOT NULL, metrics TEXT NOT NULL
)
"""
_PATIENCE_S = 60.0
_ATTEMPTS = 3
Answer = list[tuple[str, ...]]


class RunIndex:
    """The index of one folder. Cheap to make; any number of threads and processes may hold one.

    Args:
        root: the folder of runs.
        turn: held by whoever makes or mends the index file.
    """

    def __init__(self, root: Path, turn: Callable[[], AbstractContextManager[None]]) -> None:
        self.root, self._turn = root, turn
        self.file = root / "index.sqlite"

    def runs(self, run_ids: Iterable[str] | None = None) -> list[Run]:
        """Every run, oldest first, or those of these ids."""
        columns = "SELECT run_id, spec, metrics FROM runs"
        if run_ids is None:
            rows = self._ask(f"{columns} ORDER BY finished_ns, run_id")
        else:
            rows = self._ask(f"{columns} WHERE run_id IN (SELECT value FROM json_each(?))", json.dumps(list(run_ids)))
        return list(filter(None, (parse_run(self.root / run_id, spec, metrics) for run_id, spec, metrics in rows)))

    def ids(self, *, prefix: str = "", statuses: Iterable[str] | None = None) -> list[str]:
        """The ids of the runs that begin so and ended so."""
        question = "SELECT run_id FROM runs WHERE substr(run_id, 1, length(?1)) = ?1"
        if statuses is None:
            rows = self._ask(question, prefix)
        else:
            rows = self._ask(f"{question} AND status IN (SELECT value FROM json_each(?2))", prefix, json.dumps(list(statuses)))
        return [run_id for (run_id,) in rows]

    def _ask(self, question: str, *values: str) -> Answer:
        """The answer, after the index has caught up with the folders.

        Raises:
            StoreError: there can be no index in the folder.
        """
        for attempt in range(_ATTEMPTS):
            try:
                with closing(self._connect()) as index, _caught_up(index, self.root):
                    return index.execute(question, values).fetchall()
            except sqlite3.DatabaseError as err:
                if attempt == _ATTEMPTS - 1:
                    raise unwritable(self.root, str(err)) from None
                self._clear_if_broken()
        raise AssertionError("unreachable")

    def _connect(self) -> sqlite3.Connection:
        index = sqlite3.connect(self.file, timeout=_PATIENCE_S, isolation_level=None)
        try:
            if _version(index) != _VERSION:
                with self._turn():
                    _make(index)
        except BaseException:
            index.close()
            raise
        return index

    def _clear_if_broken(self) -> None:
        """A file that is no database is removed, unless somebody has by now: it is only an index."""
        with self._turn():
            if not _is_sound(self.file):
                for name in ("index.sqlite", "index.sqlite-wal", "index.sqlite-shm"):
                    (self.root / name).unlink(missing_ok=True)


def _is_sound(file: Path) -> bool:
    """Whether it is a database, as far as can be told: one that another process keeps busy is."""
    try:
        with closing(sqlite3.connect(file, timeout=_PATIENCE_S)) as index:
            return bool(index.execute("PRAGMA quick_check(1)").fetchone() == ("ok",))
    except sqlite3.OperationalError:
        return True
    except sqlite3.DatabaseError:
        return False


def _version(index: sqlite3.Connection) -> int:
    version: int = index.execute("PRAGMA user_version").fetchone()[0]
    return version


def _make(index: sqlite3.Connection) -> None:
    """The table, for who has the turn."""
    if _version(index) == _VERSION:
        return
    index.execute("PRAGMA journal_mode = WAL")
    with _transaction(index, "IMMEDIATE"):
        index.execute("DROP TABLE IF EXISTS runs")
        index.execute(_TABLE)
        index.execute(f"PRAGMA user_version = {_VERSION}")


@contextmanager
def _caught_up(index: sqlite3.Connection, root: Path) -> Iterator[None]:
    """A transaction in which the index says what the folders say.

    Where it does already nothing is written, and nobody is kept waiting. Where it does not, the folders are looked at again once
    no other may write: what another process has read in since is then seen in both.
    """
    with _transaction(index, "DEFERRED"):
        if _finished(root) == _known(index):
            yield
            return
    with _transaction(index, "IMMEDIATE"):
        _catch_up(index, root)
        yield


@contextmanager
def _transaction(index: sqlite3.Connection, kind: str) -> Iterator[None]:
    index.execute(f"BEGIN {kind}")
    try:
        yield
    except BaseException:
        with suppress(sqlite3.Error):  # the first error is the one to tell
            index.execute("ROLLBACK")
        raise
    index.execute("COMMIT")


def _catch_up(index: sqlite3.Connection, root: Path) -> None:
    """New folders are read in, replaced ones read again, missing ones dropped; what cannot be read is no run."""
    on_disk, known = _finished(root), _known(index)
    index.executemany("DELETE FROM runs WHERE run_id = ?", [(run_id,) for run_id in known.keys() - on_disk.keys()])
    for run_id, finished_ns in on_disk.items():
        if known.get(run_id) != finished_ns and (texts := _texts(root / run_id)):
            run = parse_run(root / run_id, *texts)
            if run is None:
                index.execute("DELETE FROM runs WHERE run_id = ?", (run_id,))
            else:
                row = (run_id, finished_ns, run.metrics["status"], *texts)
                index.execute("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?)", row)


def _known(index: sqlite3.Connection) -> dict[str, int]:
    return dict(index.execute("SELECT run_id, finished_ns FROM runs").fetchall())


def _finished(root: Path) -> dict[str, int]:
    """Run id -> when its metrics were written, in nanoseconds."""
    found = {}
    with os.scandir(root) as entries:
        for entry in entries:
            if not entry.name.startswith("."):
                with suppress(OSError):  # no run, or one that is being replaced at this moment
                    found[entry.name] = os.stat(f"{entry.path}/metrics.json").st_mtime_ns
    return found


def _texts(folder: Path) -> tuple[str, str] | None:
    """Spec and metrics; None where they are being replaced at this moment: the next look finds them."""
    try:
        return (folder / "spec.json").read_text(), (folder / "metrics.json").read_text()
    except OSError:
        return None
