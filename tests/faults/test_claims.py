"""Processes that want the same runs at once, and processes killed with a run in hand: no run is trained twice, none is lost."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lora_lab.events import StartEvent
from lora_lab.sweeps import RunStore

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals"),
]

RUNS, ROUNDS = 100, 12


def said(repository: Path, *arguments: object, within_s: float = 300) -> list[dict[str, Any]]:
    """What a process of store_processes.py and its children say."""
    script = repository / "tests" / "faults" / "store_processes.py"
    path = os.pathsep.join(filter(None, [str(repository), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, str(script), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=within_s,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def folders(root: Path) -> set[str]:
    return {path.name for path in root.iterdir() if path.is_dir()}


# Two at once


@pytest.fixture(scope="module")
def rounds(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> list[tuple[list[str], ...]]:
    """What each of two processes got, round by round, of the same hundred runs."""
    got = said(repository, "race", tmp_path_factory.mktemp("race"), RUNS, ROUNDS)
    return [tuple(line["got"] for line in got if line["round"] == turn) for turn in range(ROUNDS)]


def test_of_two_processes_that_begin_a_run_at_once_one_gets_it(rounds: list[tuple[list[str], ...]]) -> None:
    for one, two in rounds:
        assert len(set(one) | set(two)) == len(one) + len(two) == RUNS


def test_both_processes_were_in_the_race(rounds: list[tuple[list[str], ...]]) -> None:
    """Otherwise nothing was shown."""
    assert sum(bool(one) and bool(two) for one, two in rounds) > ROUNDS / 2


def test_two_sweeps_at_once_train_every_run_once_and_lose_none(tmp_path: Path, repository: Path) -> None:
    """While a third process reads."""
    lines, runs = said(repository, "sweep", tmp_path, 150), 150
    trained = [line["trained"] for line in lines if "trained" in line]
    assert {line["racer"] for line in lines if "trained" in line} == {0, 1}, "one had all of it"
    assert [line["looks"] > 10 for line in lines if "looks" in line] == [True]
    complete = RunStore(tmp_path).complete_ids()
    assert sorted(trained) == sorted(complete)
    assert len(complete) == runs
    assert folders(tmp_path) == complete
    (tmp_path / "index.sqlite").unlink()
    assert RunStore(tmp_path).complete_ids() == complete


def test_two_real_sweeps_of_one_grid_share_the_work_and_both_have_all_of_it(tmp_path: Path, repository: Path) -> None:
    lines = said(repository, "real", tmp_path)
    trained = [line["trained"] for line in lines if "trained" in line]
    assert {line["sweep"] for line in lines if "trained" in line} == {0, 1}, "one had all of it"
    complete = RunStore(tmp_path).complete_ids()
    assert len(complete) == 6
    assert sorted(trained) == sorted(complete)
    one, two = (line for line in lines if "has" in line)
    assert one == two
    assert (set(one["has"]), set(one["statuses"]), one["failed"]) == (complete, {"finished"}, {})


def test_processes_that_make_the_index_at_once_all_read_the_same(tmp_path: Path, repository: Path) -> None:
    lines = said(repository, "index", tmp_path, 20, 10)
    assert len([line for line in lines if line.get("looks")]) == 4 * 10
    assert len(RunStore(tmp_path).complete_ids()) == 20


# Killed


def test_a_killed_process_has_no_claims_and_its_last_snapshots_are_kept(tmp_path: Path, repository: Path) -> None:
    lives: list[list[dict[str, Any]]] = [[]]
    for line in said(repository, "kill", tmp_path, 12, 20):
        lives[-1].append(line)
        if "killed" in line:
            assert line["killed"] == -9
            lives.append([])
    *_, last, _ = lives
    assert any(life[-1]["draft"] for life in lives if life), "nobody was killed with a run in hand"
    store = RunStore(tmp_path)
    begun = {line["begun"] for life in lives for line in life if "begun" in line}
    assert begun
    assert not any(store.is_claimed(run_id) for run_id in begun)
    store.recover()
    runs = {run.run_id: run for run in store.runs()}
    assert folders(tmp_path) == runs.keys()
    assert not list(tmp_path.glob(".claim-*"))
    in_hand = {line["learned"] for line in last if "learned" in line} - {line["ending"] for line in last if "ending" in line}
    assert in_hand <= runs.keys()
    for run in runs.values():
        assert run.metrics["status"] == "stopped"
        assert isinstance(run.events()[0], StartEvent)
        assert float(run.adapter()["m"].dense()[0, 0]) == 2.0  # as it was saved last


CASES = [
    ("begin_and_finish", "nothing"),
    ("begin_and_stop", "a stopped run"),
    ("begin_and_finish", "a stopped run and a draft"),
    ("begin_and_discard", "a stopped run"),
    ("recover", "a stopped run and a draft"),
]


@pytest.mark.parametrize(("work", "before"), CASES, ids=[f"{work} over {before}" for work, before in CASES])
def test_whatever_moment_a_process_is_killed_at_the_next_finds_whole_runs_and_no_claim(
    tmp_path: Path, repository: Path, work: str, before: str
) -> None:
    """It is killed at its first operation on a file, another at its second, and so on to the last."""
    moments = said(repository, "killed_everywhere", tmp_path, work, before)
    assert len(moments) > 10
    assert [moment["came_through"] for moment in moments] == [False] * (len(moments) - 1) + [True]
    for moment in moments:
        assert moment["claimed"] is False
        assert moment["left"] == []
        assert moment["again"] == 0
        assert moment["begun"] == all(run["status"] == "stopped" for run in moment["runs"])
        for run in moment["runs"]:
            assert run["weight"] == run["step"], "weights of one step under the number of another"
    kept = [max((run["step"] for run in moment["runs"]), default=0) for moment in moments]
    assert min(kept) >= {"nothing": 0, "a stopped run": 1}.get(before, 2), "what was learned before is lost"
    assert kept == sorted(kept) or work == "begin_and_discard", "less was kept by who lived longer"
