"""Processes killed in the middle: what was learned is kept, nothing is half-kept, and the sweep or the next one does the rest."""

import multiprocessing
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

import lora_lab as ll
from lora_lab.events import DoneEvent, Event, StartEvent, StepEvent
from lora_lab.sweeps import Run, RunStore, expand, sweep_events
from lora_lab.sweeps.tries import MOST_TRIES

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals"),
]

STEPS = 240
ClaimedBy = Callable[[psutil.Process, Path], set[str]]


def specs_of(grid: ll.SweepSpec) -> tuple[ll.RunSpec, ...]:
    return expand(ll.find_bench("digits"), grid)


def drafts(root: Path) -> list[Path]:
    return sorted(root.glob(".draft-*"))


def steps_logged(folder: Path) -> int:
    log = folder / "events.jsonl"
    return log.read_text().count('"StepEvent"') if log.is_file() else 0


def any_has_begun(root: Path, steps: range) -> bool:
    """Whether a run is so far on its way."""
    return any(steps_logged(draft) in steps for draft in drafts(root))


def kinds(events: Sequence[Event]) -> Counter[type[Event]]:
    return Counter(map(type, events))


def file_of(run: Run) -> bytes:
    return (run.adapter_dir / "adapter_model.safetensors").read_bytes()


def assert_whole(root: Path) -> list[Run]:
    """Every folder that a reader may see is a run in all its parts, and the index says the same as the folders."""
    store = RunStore(root)
    runs = store.runs()
    assert {run.run_id for run in runs} == {path.name for path in root.iterdir() if path.is_dir() and path.name[0] != "."}
    for run in runs:
        assert run.spec.run_id == run.run_id
        assert run.metrics["status"] in ("finished", "stopped")
        events = run.events()
        assert isinstance(events[0], StartEvent)
        assert isinstance(events[-1], DoneEvent)
        assert (kinds(events)[StartEvent], kinds(events)[DoneEvent]) == (1, 1)
        steps = [event.step for event in events if isinstance(event, StepEvent)]
        assert steps == list(range(1, len(steps) + 1))
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
    """A sweep that lost workers: four runs, two to a worker where there are two."""

    store: RunStore
    specs: tuple[ll.RunSpec, ...]
    victim: str  # the run whose workers were killed
    company: set[str]  # the runs that went with it the first time, itself among them
    said: dict[str, list[Event]]
    snapshots: range  # the steps at which a run may have one


def sweep_with_kills(root: Path, claimed_by: ClaimedBy, *, eval_every_steps: int, at_step: int, kills: int) -> Fallen:
    """The worker of the run that first comes to `at_step` is killed there, long before it ends; so are the next ones to have it."""
    grid = ll.SweepSpec(r=(1, 2, 3, 4), steps=STEPS, batch_size=4)
    specs = tuple(replace(spec, eval_every_steps=eval_every_steps) for spec in specs_of(grid))
    store, said = RunStore(root), {spec.run_id: [] for spec in specs}
    victim, company = "", set()
    for run_id, event in sweep_events(specs, store, runner="process"):
        said[run_id].append(event)
        if kills and isinstance(event, StepEvent) and event.step == at_step and run_id == (victim or run_id):
            claims = {child.pid: claimed_by(psutil.Process(child.pid), root) for child in multiprocessing.active_children()}
            (pid,) = [pid for pid, runs in claims.items() if run_id in runs]
            victim, company, kills = run_id, company or claims[pid], kills - 1
            os.kill(pid, signal.SIGKILL)
    return Fallen(store, specs, victim, company, said, snapshots=range(eval_every_steps, STEPS, eval_every_steps))


@pytest.fixture(scope="module", params=[(30, 40), (STEPS, 5)], ids=["after a snapshot", "before any snapshot"])
def when(request: pytest.FixtureRequest) -> dict[str, int]:
    """When the worker is killed."""
    return dict(zip(("eval_every_steps", "at_step"), request.param, strict=True))


@pytest.fixture(scope="module")
def fallen(when: dict[str, int], tmp_path_factory: pytest.TempPathFactory, claimed_by: ClaimedBy) -> Fallen:
    """One worker was killed."""
    return sweep_with_kills(tmp_path_factory.mktemp("fallen"), claimed_by, kills=1, **when)


@pytest.fixture(scope="module")
def doomed(when: dict[str, int], tmp_path_factory: pytest.TempPathFactory, claimed_by: ClaimedBy) -> Fallen:
    """Whoever had the run in hand was killed."""
    return sweep_with_kills(tmp_path_factory.mktemp("doomed"), claimed_by, kills=MOST_TRIES, **when)


def test_a_killed_workers_runs_are_trained_again_in_the_same_sweep_which_says_so(fallen: Fallen) -> None:
    assert fallen.victim in fallen.company
    for run_id, events in fallen.said.items():
        assert kinds(events)[StartEvent] == (2 if run_id in fallen.company else 1)
        assert kinds(events)[DoneEvent] == 1
        *_, done = events
        assert isinstance(done, DoneEvent)
        assert (done.status, done.step) == ("finished", STEPS)


def test_the_store_has_every_run_of_a_sweep_that_lost_a_worker_whole(fallen: Fallen, left_behind: Callable[..., Any]) -> None:
    runs = assert_whole(fallen.store.root)
    assert {run.run_id: run.metrics["status"] for run in runs} == {spec.run_id: "finished" for spec in fallen.specs}
    for run in runs:
        said = fallen.said[run.run_id]
        last_start = max(at for at, event in enumerate(said) if isinstance(event, StartEvent))
        assert run.events() == said[last_start:]
    assert left_behind(fallen.store.root) == []


def test_runs_trained_again_in_the_same_company_are_those_of_an_undisturbed_sweep_bit_for_bit(
    fallen: Fallen, tmp_path: Path
) -> None:
    undisturbed = RunStore(tmp_path)
    list(sweep_events(fallen.specs, undisturbed, runner="process"))
    for run in undisturbed.runs():
        assert file_of(fallen.store.get(run.run_id)) == file_of(run)
        assert fallen.store.get(run.run_id).score(split="test") == run.score(split="test")


def test_a_run_whose_worker_dies_every_time_fails_in_one_sentence(doomed: Fallen) -> None:
    events = doomed.said[doomed.victim]
    assert kinds(events)[StartEvent] == MOST_TRIES
    assert kinds(events)[DoneEvent] == 1
    *_, done = events
    assert isinstance(done, DoneEvent)
    assert done.status == "failed"
    assert f"ended unexpectedly {MOST_TRIES} times (exit code -9), at step " in done.message
    assert done.message.endswith(".")
    assert "\n" not in done.message


def test_the_other_runs_complete_where_one_kills_its_workers(doomed: Fallen) -> None:
    """Those of its group too: the last time each is tried alone."""
    for spec in doomed.specs:
        if spec.run_id != doomed.victim:
            *_, done = doomed.said[spec.run_id]
            assert isinstance(done, DoneEvent)
            assert (done.status, done.step) == ("finished", STEPS)
            assert doomed.store.is_complete(spec.run_id)
            alone = spec.run_id in doomed.company
            assert doomed.store.get(spec.run_id).metrics["group_runs"] == (1 if alone else len(doomed.specs) - len(doomed.company))


def test_the_last_snapshot_of_a_failed_run_is_kept_as_a_stopped_run(doomed: Fallen, left_behind: Callable[..., Any]) -> None:
    kept = {run.run_id: run for run in assert_whole(doomed.store.root)}
    assert (doomed.victim in kept) == (len(doomed.snapshots) > 0)
    assert left_behind(doomed.store.root) == []
    if doomed.snapshots:
        metrics = kept[doomed.victim].metrics
        assert metrics["status"] == "stopped"
        assert metrics["step"] in doomed.snapshots
        assert metrics["accuracy"] is not None


def test_the_next_sweep_trains_what_failed(doomed: Fallen) -> None:
    assert_next_sweep_does_the_rest(doomed.store.root, doomed.specs)


# The command line is killed, or interrupted


class Killed(NamedTuple):
    """What the command line left when it ended."""

    root: Path
    specs: tuple[ll.RunSpec, ...]
    code: int
    stderr: str
    left: list[psutil.Process]  # processes still there some seconds later


def ended_by(sweep: Any, signal_number: int, *, whole_group: bool, steps: int) -> Killed:
    """Send the signal, wait for the end, and see who is still there."""
    family = sweep.family()
    assert sweep.workers(), "there are no workers to leave behind"
    (os.killpg if whole_group else os.kill)(sweep.process.pid, signal_number)
    code = sweep.process.wait(timeout=30)
    _, left = psutil.wait_procs(family, timeout=10)
    specs = specs_of(ll.SweepSpec(r=(1, 2, 4), seeds=(0, 1), steps=steps, batch_size=4))
    return Killed(sweep.root, specs, code, sweep.log.read_text(), left)


def flags(steps: int) -> list[str]:
    """Six runs, two to a pass: more passes than there are workers on two cores."""
    return ["--r", "1,2,4", "--seeds", "0,1", "--grouped", "2", "--steps", str(steps), "--batch", "4"]


def whole_runs(root: Path) -> list[Path]:
    return [path.parent for path in root.glob("[!.]*/metrics.json")]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, command: Callable[..., Any]) -> Killed:
    """The parent got SIGKILL when one run was whole and another had begun; its workers got no signal."""
    sweep = command(tmp_path_factory.mktemp("killed") / "runs", *flags(120))
    begun = sweep.wait_for(
        lambda: whole_runs(sweep.root) and any(steps_logged(draft) in range(5, 100) for draft in drafts(sweep.root))
    )
    assert begun, sweep.log.read_text()
    return ended_by(sweep, signal.SIGKILL, whole_group=False, steps=120)


def test_workers_end_by_themselves_when_the_parent_is_killed(killed: Killed) -> None:
    assert killed.code == -signal.SIGKILL
    assert killed.left == []


def test_no_folder_looks_whole_that_is_not_when_the_parent_is_killed(killed: Killed) -> None:
    runs = assert_whole(killed.root)
    assert "finished" in {run.metrics["status"] for run in runs}
    assert len([run for run in runs if run.is_complete]) < len(killed.specs)


def test_the_next_sweep_finishes_only_what_the_killed_one_left(killed: Killed) -> None:
    assert_next_sweep_does_the_rest(killed.root, killed.specs)


@pytest.fixture(scope="module", params=[True, False], ids=["from the terminal", "to the parent alone"])
def interrupted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, command: Callable[..., Any]) -> Killed:
    """SIGINT in the middle of runs that would take minutes; a terminal sends it to the workers too."""
    sweep = command(tmp_path_factory.mktemp("interrupted") / "runs", *flags(5000))
    assert sweep.wait_for(lambda: any_has_begun(sweep.root, range(20, 5000))), sweep.log.read_text()
    return ended_by(sweep, signal.SIGINT, whole_group=request.param, steps=5000)


def test_an_interrupted_sweep_exits_130_and_says_so_in_one_sentence(interrupted: Killed) -> None:
    assert interrupted.code == 130
    assert interrupted.stderr.splitlines()[-1] == "lora-lab: stopped; what was learned so far is in the store."
    assert "Traceback" not in interrupted.stderr


def test_an_interrupted_sweep_keeps_what_was_learned(interrupted: Killed, left_behind: Callable[..., Any]) -> None:
    runs = assert_whole(interrupted.root)
    assert len(runs) > 1, "its company is kept too"
    assert {run.metrics["status"] for run in runs} == {"stopped"}
    assert max(run.metrics["step"] for run in runs) >= 20
    assert left_behind(interrupted.root) == []


def test_an_interrupted_sweep_leaves_no_worker(interrupted: Killed) -> None:
    assert interrupted.left == []
