"""Which process has which run in hand: claims that the kernel keeps, and takes back when their process ends.

    .claims                 locked for a moment by whoever looks at claims, makes one or gives one back
    .claim-3f2a90c1d4e5     locked by the process that trains this run, from beginning to end

A lock is gone with its process, however that ends: there is no process id here that another process may have by now, and no
time after which a claim lapses. All that try a claim do so in turn, so that one which is not to be had is always somebody's who
trains, never that of a passer-by who only looks; and its file is made and removed in turn too, so that nobody ever waits for, or
gets, the lock of a file that is not there any more.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout, lock_descriptor, unlock_descriptor

from lora_lab.errors import StoreError

_PREFIX = ".claim-"
_POLL_S = 0.002  # a turn is over in about that time


class Claim:
    """One run, in this process's hands until it is given back. It may be given back from another thread."""

    def __init__(self, claims: "Claims", lock: FileLock) -> None:
        self._claims, self._lock = claims, lock

    def give_back(self) -> None:
        """Let others have the run; a second time does nothing."""
        with self._claims.turn():
            self.drop()

    def drop(self) -> None:
        """`give_back` for who has the turn."""
        if self._lock.is_locked:
            with suppress(OSError):  # where an open file cannot be removed, its release removes it
                Path(self._lock.lock_file).unlink()
            self._lock.release()


class Claims:
    """The claims on the runs of one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Nobody else makes, tries or gives back a claim meanwhile. Not to be nested.

        Raises:
            StoreError: the folder cannot be written, or its file system has no locks.
        """
        try:
            descriptor = os.open(self.root / ".claims", os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as err:
            raise unwritable(self.root, err.strerror) from None
        try:
            self._wait_for(descriptor)
            try:
                yield
            finally:
                unlock_descriptor(descriptor)  # closing alone frees it only if no child was forked meanwhile
        finally:
            os.close(descriptor)

    def _wait_for(self, descriptor: int) -> None:
        try:
            lock_descriptor(descriptor, poll_interval=_POLL_S)
        except OSError as err:
            where = f"The runs folder must be on a file system with locks. Got {str(self.root)!r}: {err.strerror}."
            raise StoreError(where) from None

    def take(self, run_id: str) -> Claim | None:
        """The claim on a run, for who has the turn; None where it is somebody's."""
        # a lock of the kernel and no other: one that is a file's mere being there would outlive its process
        lock = FileLock(self._path(run_id), thread_local=False, fallback_to_soft=False)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return None
        except OSError as err:
            raise unwritable(self.root, err.strerror) from None
        return Claim(self, lock)

    def is_taken(self, run_id: str) -> bool:
        """Whether a process has the run in hand."""
        if not self._path(run_id).exists():
            return False
        with self.turn():
            claim = self.take(run_id)
            if claim is not None:
                claim.drop()
        return claim is None

    def known(self) -> list[str]:
        """The runs that there is a claim's file of: a process that was killed has left its own."""
        return [path.name.removeprefix(_PREFIX) for path in self.root.glob(f"{_PREFIX}*")]

    def _path(self, run_id: str) -> Path:
        return self.root / f"{_PREFIX}{run_id}"


def unwritable(root: Path, why: str | None) -> StoreError:
    """The sentence for a folder that nothing can be kept in."""
    return StoreError(f"The runs folder must be one that can be written. Got {str(root)!r}: {why}.")
