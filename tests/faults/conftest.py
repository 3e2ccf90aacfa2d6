"""A sweep in a process of its own, and which of its workers has which run in hand."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest


class Command:
    """`python -m lora_lab sweep` on the digits, in a process group of its own; what it says goes to a file."""

    def __init__(self, root: Path, repository: Path, flags: list[str]) -> None:
        self.root, self.log = root, root.with_name(root.name + ".log")
        path = os.pathsep.join(filter(None, [str(repository), os.environ.get("PYTHONPATH")]))
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lora_lab", "sweep", "--bench", "digits", "--runs", str(root), *flags],
                cwd=root.parent,
                env={**os.environ, "PYTHONPATH": path},
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
                # a shell's background job would hand its ignored SIGINT down
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def wait_for(self, what: Callable[[], object], *, within_s: float = 90) -> bool:
        """Whether it came about before the sweep ended."""
        deadline_s = time.monotonic() + within_s
        while not (found := what()) and not self.ended:
            assert time.monotonic() < deadline_s, f"it did not happen: {self.log.read_text()}"
            time.sleep(0.01)
        return bool(found)

    def family(self) -> list[psutil.Process]:
        """All processes that it has started."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def workers(self) -> list[psutil.Process]:
        """The processes that train: those that the server of forks has forked."""
        try:
            with_children = [process.children() for process in psutil.Process(self.process.pid).children()]
        except psutil.NoSuchProcess:  # it ended meanwhile
            return []
        return [worker for workers in with_children for worker in workers]

    def clean_up(self) -> None:
        """Leave no process of this group behind, whatever the test found."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        finally:
            self.process.wait()


@pytest.fixture(scope="module")
def command(repository: Path) -> Iterator[Callable[..., Command]]:
    """`command(root, *flags)` starts a sweep."""
    started: list[Command] = []

    def start(root: Path, *flags: str) -> Command:
        started.append(Command(root, repository, list(flags)))
        return started[-1]

    yield start
    for one in started:
        one.clean_up()


@pytest.fixture(scope="session")
def claimed_by() -> Callable[[psutil.Process, Path], set[str]]:
    """The runs of a store that a process has in hand: its claims are files that it keeps open."""

    def claimed_by(process: psutil.Process, root: Path) -> set[str]:
        try:
            names = [Path(file.path).name for file in process.open_files() if Path(file.path).parent == root.resolve()]
        except psutil.Error:  # it is gone
            return set()
        return {name.removeprefix(".claim-") for name in names if name.startswith(".claim-")}

    return claimed_by
