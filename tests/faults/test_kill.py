"""Processes killed in the middle: what was learned is kept, nothing is half-kept, and the next sweep does the rest."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

import lora_lab as ll
from lora_lab.events import DoneEvent, Event, StartEvent, StepEvent
from lora_lab.sweeps import Run, RunStore, expand, sweep_events

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals"),
]


def specs_of(grid: ll.SweepSpec) -> tuple[ll.RunSpec, ...]:
    return expand(ll.find_bench("digits"), grid)


def drafts(root: Path) -> list[Path]:
    return sorted(root.glob(".draft-*"))


def steps_logged(folder: Path) -> int:
    log = folder / "events.jsonl"
    return log.read_text().count('"StepEvent"') if log.is_file() else 0


def wait_for(what: Callable[[], bool], *, within_s: float = 90) -> None:
    deadline_s = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < deadline_s, "it did not happen"
        time.sleep(0.02)


def assert_whole(root: Path) -> list[Run]:
    """Every folder that a reader may see is a run in all its parts, and the index says the same as the folders."""
    store = RunStore(root)
    runs = store.runs()
    assert {run.run_id for run in runs} == {path.name for path in root.iterdir() if path.is_dir() and path.name[0] != "."}
    for run in runs:
        assert run.spec.run_id == run.run_id
        assert run.metrics["status"] in ("finished", "stopped")
        assert isinstance(run.events()[0], StartEvent)
        assert len(run.adapter()) == 8  # 4 layers, q and v
        if run.metrics["step"] > 1:  # the warm-up begins at a learning rate of 0
            assert all(delta.numerical_rank > 0 for delta in run.adapter().values())
    (root / "index.sqlite").unlink()
    assert store.runs() == runs
    return runs


def assert_next_sweep_does_the_rest(root: Path, specs: tuple[ll.RunSpec, ...]) -> None:
    """Only what is not finished is trained; then all of it is there."""
    finished = {run.run_id for run in RunStore(root).runs() if run.metrics["status"] == "finished"}
    begun = {i for i, event in sweep_events(specs, RunStore(root), runner="process") if isinstance(event, StartEvent)}
    assert begun == {spec.run_id for spec in specs} - finished
    runs = assert_whole(root)
    assert {run.run_id: run.metrics["status"] for run in runs} == {spec.run_id: "finished" for spec in specs}
    assert drafts(root) == []


# A worker is killed


class Fallen(NamedTuple):
    """A sweep that lost a worker."""

    store: RunStore
    specs: tuple[ll.RunSpec, ...]
    victim: str
    said: dict[str, list[Event]]
    snapshots: range  # the steps at which the run may have had one when its worker was killed


def sweep_with_a_kill(root: Path, *, eval_every_steps: int, at_step: int) -> Fallen:
    """Three runs; the worker that first comes to `at_step` is killed, long before it ends."""
    specs = tuple(
        replace(spec, eval_every_steps=eval_every_steps) for spec in specs_of(ll.SweepSpec(r=(1, 2, 4), steps=240, batch_size=4))
    )
    store, said, victim = RunStore(root), {spec.run_id: [] for spec in specs}, ""
    for run_id, event in sweep_events(specs, store, runner="process"):
        said[run_id].append(event)
        if not victim and isinstance(event, StepEvent) and event.step == at_step:
            victim = run_id
            (draft,) = root.glob(f".draft-{run_id}-*")
            os.kill(int(draft.name.rsplit("-", 1)[1]), signal.SIGKILL)
    return Fallen(store, specs, victim, said, snapshots=range(eval_every_steps, 240, eval_every_steps))


@pytest.fixture(scope="module", params=[(30, 40), (240, 5)], ids=["after a snapshot", "before any snapshot"])
def fallen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Fallen:
    eval_every_steps, at_step = request.param
    return sweep_with_a_kill(tmp_path_factory.mktemp("fallen"), eval_every_steps=eval_every_steps, at_step=at_step)


def test_a_killed_workers_run_failed_in_one_sentence(fallen: Fallen) -> None:
    *_, done = fallen.said[fallen.victim]
    assert isinstance(done, DoneEvent)
    assert done.status == "failed"
    assert "ended unexpectedly (exit code -9) at step " in done.message
    assert done.message.endswith(".")
    assert "\n" not in done.message
    assert [type(event) for event in fallen.said[fallen.victim]].count(DoneEvent) == 1


def test_the_other_runs_complete_when_a_worker_is_killed(fallen: Fallen) -> None:
    for spec in fallen.specs:
        if spec.run_id != fallen.victim:
            *_, done = fallen.said[spec.run_id]
            assert isinstance(done, DoneEvent)
            assert (done.status, done.step) == ("finished", 240)
            assert fallen.store.is_complete(spec.run_id)


def test_the_last_snapshot_of_a_killed_worker_is_kept_as_a_stopped_run(fallen: Fallen) -> None:
    kept = {run.run_id: run for run in assert_whole(fallen.store.root)}
    assert (fallen.victim in kept) == (len(fallen.snapshots) > 0)
    assert drafts(fallen.store.root) == []
    if fallen.snapshots:
        metrics = kept[fallen.victim].metrics
        assert metrics["status"] == "stopped"
        assert metrics["step"] in fallen.snapshots
        assert metrics["accuracy"] is not None


def test_the_next_sweep_trains_what_a_killed_worker_left(fallen: Fallen) -> None:
    assert_next_sweep_does_the_rest(fallen.store.root, fallen.specs)


# The command line is killed, or interrupted


class Killed(NamedTuple):
    """What the command line left when it ended."""

    root: Path
    specs: tuple[ll.RunSpec, ...]
    code: int
    stderr: str
    left: list[psutil.Process]  # processes still there some seconds later


class Command:
    """`python -m lora_lab sweep` in a process group of its own."""

    def __init__(self, folder: Path, repository: Path, *, steps: int) -> None:
        self.root, self.log = folder / "runs", folder / "stderr"
        self.specs = specs_of(ll.SweepSpec(r=(1, 2, 4, 8), steps=steps, batch_size=4))
        flags = ["--bench", "digits", "--r", "1,2,4,8", "--steps", str(steps), "--batch", "4", "--runs", str(self.root)]
        path = os.pathsep.join(filter(None, [str(repository), os.environ.get("PYTHONPATH")]))
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lora_lab", "sweep", *flags],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": path},
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
                # a shell's background job would hand its ignored SIGINT down
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )

    def wait_for(self, what: Callable[[], bool]) -> None:
        wait_for(lambda: self.process.poll() is not None or what())
        assert self.process.poll() is None, self.log.read_text()

    def end(self, signal_number: int, *, whole_group: bool) -> Killed:
        """Send the signal, wait for the end, and see who is still there."""
        family = psutil.Process(self.process.pid).children(recursive=True)
        assert len(family) >= 2, "there are no workers to leave behind"
        (os.killpg if whole_group else os.kill)(self.process.pid, signal_number)
        code = self.process.wait(timeout=30)
        _, left = psutil.wait_procs(family, timeout=10)
        return Killed(self.root, self.specs, code, self.log.read_text(), left)

    def clean_up(self) -> None:
        """Leave no process of this group behind, whatever the test found."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        finally:
            self.process.wait()


def whole_runs(root: Path) -> list[Path]:
    return [path.parent for path in root.glob("[!.]*/metrics.json")]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Iterator[Killed]:
    """The parent got SIGKILL when one run was whole and another had begun; its workers got no signal."""
    command = Command(tmp_path_factory.mktemp("killed"), repository, steps=120)
    try:
        command.wait_for(lambda: bool(whole_runs(command.root)) and any(steps_logged(d) >= 5 for d in drafts(command.root)))
        yield command.end(signal.SIGKILL, whole_group=False)
    finally:
        command.clean_up()


def test_workers_end_by_themselves_when_the_parent_is_killed(killed: Killed) -> None:
    assert killed.code == -signal.SIGKILL
    assert killed.left == []


def test_no_folder_looks_whole_that_is_not_when_the_parent_is_killed(killed: Killed) -> None:
    runs = assert_whole(killed.root)
    assert "finished" in {run.metrics["status"] for run in runs}
    assert len(runs) < len(killed.specs)


def test_the_next_sweep_finishes_only_what_the_killed_one_left(killed: Killed) -> None:
    assert_next_sweep_does_the_rest(killed.root, killed.specs)


@pytest.fixture(scope="module", params=[True, False], ids=["from the terminal", "to the parent alone"])
def interrupted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Iterator[Killed]:
    """SIGINT in the middle of runs that would take minutes; a terminal sends it to the workers too."""
    command = Command(tmp_path_factory.mktemp("interrupted"), repository, steps=5000)
    try:
        command.wait_for(lambda: any(steps_logged(draft) >= 20 for draft in drafts(command.root)))
        yield command.end(signal.SIGINT, whole_group=request.param)
    finally:
        command.clean_up()


def test_an_interrupted_sweep_exits_130_and_says_so_in_one_sentence(interrupted: Killed) -> None:
    assert interrupted.code == 130
    assert interrupted.stderr.splitlines()[-1] == "lora-lab: stopped; what was learned so far is in the store."
    assert "Traceback" not in interrupted.stderr


def test_an_interrupted_sweep_keeps_what_was_learned(interrupted: Killed) -> None:
    runs = assert_whole(interrupted.root)
    assert runs
    assert {run.metrics["status"] for run in runs} == {"stopped"}
    assert max(run.metrics["step"] for run in runs) >= 20
    assert drafts(interrupted.root) == []


def test_an_interrupted_sweep_leaves_no_worker(interrupted: Killed) -> None:
    assert interrupted.left == []
