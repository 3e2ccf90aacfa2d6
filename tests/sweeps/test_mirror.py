"""The mirror in trackio's own files, read back by trackio: what training said is there, once, and nothing else was touched."""

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import lora_lab as ll
from lora_lab.cli import main
from lora_lab.errors import SpecError, StoreError
from lora_lab.events import DoneEvent, EvalEvent, Event, StartEvent, StepEvent
from lora_lab.sweeps.mirror import open_mirror, project_of


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """trackio's storage in a folder of its own, with no way to the network."""
    from trackio import sqlite_storage

    monkeypatch.setattr(sqlite_storage, "TRACKIO_DIR", tmp_path / "trackio")

    def refuse(*arguments: object) -> None:
        raise AssertionError("a mirror uses no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "bind", refuse)
    return sqlite_storage.SQLiteStorage


def a_spec(seed: int = 0, bench: str = "digits:inverted") -> ll.RunSpec:
    return ll.RunSpec(bench=bench, base_sha256="0" * 64, seed=seed, steps=6, tuning=ll.LoraSpec(r=4))


def said(spec: ll.RunSpec, *, last: int = 6, status: str = "finished") -> list[Event]:
    """What a run of so many steps says, scored every third."""
    events: list[Event] = [StartEvent(spec.run_id, spec.steps, 8, 0, 100, "cpu", "fp32"), EvalEvent(0, 0.1, 2.0, 0.0)]
    for step in range(1, last + 1):
        events.append(StepEvent(step, 1 / step, step * 1e-3, 0.5, step * 0.1, grad_norm_a=None, grad_norm_b=0.25))
        if step % 3 == 0:
            events.append(EvalEvent(step, 0.1 * step, 1 / step, step * 0.1))
    if status == "finished":
        events.append(EvalEvent(last, 0.75, 0.5, 1.0, split="test"))
    return [*events, DoneEvent(status, last, "", 9.5, None)]


def show(mirror: Any, spec: ll.RunSpec, events: list[Event]) -> None:
    for event in events:
        mirror(spec, event)


def curve(storage: Any, project: str, run_id: str, name: str) -> list[tuple[int, float]]:
    """(step, value) as trackio reads them."""
    return [(row["step"], row[name]) for row in storage.get_logs(project, run_id=run_id) if name in row]


def test_a_run_is_a_run_there_with_its_curves(storage: Any) -> None:
    spec = a_spec()
    show(open_mirror("trackio"), spec, said(spec))
    assert storage.get_projects() == ["digits-inverted"]
    (there,) = storage.get_run_records("digits-inverted")
    assert (there["id"], there["name"]) == (spec.run_id, f"lora r 4 seed 0 {spec.run_id}")
    read = [curve(storage, "digits-inverted", spec.run_id, f"train/{name}") for name in ("loss", "learning_rate")]
    assert read == [[(s, 1 / s) for s in range(1, 7)], [(s, s * 1e-3) for s in range(1, 7)]]
    assert curve(storage, "digits-inverted", spec.run_id, "validation/accuracy") == [
        (0, 0.1),
        (3, pytest.approx(0.3)),
        (6, pytest.approx(0.6)),
    ]
    assert curve(storage, "digits-inverted", spec.run_id, "validation/loss")[0] == (0, 2.0)
    assert curve(storage, "digits-inverted", spec.run_id, "test/accuracy") == [(6, 0.75)]


def test_the_runs_numbers_are_there_in_the_end(storage: Any) -> None:
    spec = a_spec()
    show(open_mirror("trackio:mine"), spec, said(spec))
    last = storage.get_logs("mine", run_id=spec.run_id)[-1]
    assert last["final/accuracy"] == pytest.approx(0.6)
    assert (last["final/test_accuracy"], last["final/wall_s"], last["final/trainable_params"]) == (0.75, 9.5, 8)


def test_a_number_that_was_not_measured_is_not_there(storage: Any) -> None:
    spec = a_spec()
    show(open_mirror("trackio:mine"), spec, said(spec))
    rows = storage.get_logs("mine", run_id=spec.run_id)
    assert not any("train/grad_norm_a" in row or "final/peak_memory_bytes" in row for row in rows)
    assert curve(storage, "mine", spec.run_id, "train/grad_norm_b") == [(s, 0.25) for s in range(1, 7)]


def test_the_spec_is_the_runs_configuration(storage: Any) -> None:
    spec = a_spec()
    show(open_mirror("trackio:mine"), spec, said(spec))
    config = storage.get_run_config("mine", run_id=spec.run_id)
    assert (config["bench"], config["method"], config["r"], config["learning_rate"]) == ("digits:inverted", "lora", 4, 5e-3)


def test_runs_that_train_at_once_are_told_apart(storage: Any) -> None:
    one, two = a_spec(0), a_spec(1)
    mirror = open_mirror("trackio:mine")
    for a, b in zip(said(one), said(two), strict=True):
        mirror(one, a)
        mirror(two, b)
    assert len(storage.get_run_records("mine")) == 2
    for spec in (one, two):
        assert len(curve(storage, "mine", spec.run_id, "train/loss")) == 6


def test_a_run_that_is_shown_twice_is_there_once(storage: Any) -> None:
    """Two sweeps that share a run both tell of it; and one that was stopped is trained again from its beginning."""
    spec = a_spec()
    show(open_mirror("trackio:mine"), spec, said(spec, last=4, status="stopped"))
    for _ in range(2):
        show(open_mirror("trackio:mine"), spec, said(spec))
    assert len(storage.get_run_records("mine")) == 1
    assert [step for step, _ in curve(storage, "mine", spec.run_id, "train/loss")] == [1, 2, 3, 4, 5, 6]
    assert [value for _, value in curve(storage, "mine", spec.run_id, "final/step")] == [4, 6]


def test_what_was_said_can_be_seen_while_the_run_goes_on(storage: Any) -> None:
    spec, mirror = a_spec(), open_mirror("trackio:mine")
    show(mirror, spec, said(spec)[:6])  # to the evaluation at step 3
    assert [step for step, _ in curve(storage, "mine", spec.run_id, "train/loss")] == [1, 2, 3]


def test_a_run_that_never_started_is_not_there(storage: Any) -> None:
    mirror = open_mirror("trackio:mine")
    mirror(a_spec(), DoneEvent("failed", 0, "The base must have SHA-256 …", 0.0, None))
    assert storage.get_projects() == []


def test_no_thread_is_left(storage: Any) -> None:
    before = threading.active_count()
    show(open_mirror("trackio:mine"), a_spec(), said(a_spec()))
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("bench", "project"),
    [("digits", "digits"), ("digits:inverted", "digits-inverted"), ("owner/name", "name"), ("/home/somebody/my base/", "my-base")],
)
def test_a_project_is_named_after_the_bench(bench: str, project: str) -> None:
    assert project_of(a_spec(bench=bench)) == project


def test_an_unknown_mirror_is_refused() -> None:
    with pytest.raises(SpecError, match=r"mirror parameter of sweep must be trackio or trackio:PROJECT\. Got 'wandb'\."):
        open_mirror("wandb")


def test_a_name_that_trackio_keeps_for_itself_is_refused(storage: Any) -> None:
    with pytest.raises(SpecError, match=r"project of a mirror must be a name that trackio takes\. Got 'registry-x'"):
        open_mirror("trackio:registry-x")


def test_without_trackio_one_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trackio.sqlite_storage", None)
    with pytest.raises(SpecError, match=r"not installed: pip install trackio\.$"):
        open_mirror("trackio")


def test_a_mirror_that_cannot_be_written_is_one_sentence(storage: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trackio import sqlite_storage

    (tmp_path / "file").write_text("")
    monkeypatch.setattr(sqlite_storage, "TRACKIO_DIR", tmp_path / "file" / "below")
    with pytest.raises(StoreError, match="mirror must be one that can be written"):
        show(open_mirror("trackio:mine"), a_spec(), said(a_spec()))


@pytest.mark.slow
def test_a_real_sweep_is_mirrored_and_still_prints_one_document(tmp_path: Path, repository: Path) -> None:
    sweep = "sweep --bench digits --r 1,2 --steps 6 --batch 4 --runner inline --json --mirror trackio:mine".split()
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio"), "PYTHONPATH": str(repository)}
    done = subprocess.run(
        [sys.executable, "-m", "lora_lab", *sweep, "--runs", str(tmp_path / "runs")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    runs = json.loads(done.stdout)["runs"]
    read = (
        "import json, sys; from trackio.sqlite_storage import SQLiteStorage as s;"
        "print(json.dumps({r['id']: s.get_logs('mine', run_id=r['id'])[-1] for r in s.get_run_records('mine')}, default=str))"
    )
    told = subprocess.run([sys.executable, "-c", read], env=environment, capture_output=True, text=True, check=True)
    there = json.loads(told.stdout.splitlines()[-1])
    assert there.keys() == {run["run_id"] for run in runs}
    for run in runs:
        assert there[run["run_id"]]["final/accuracy"] == run["metrics"]["accuracy"]


def test_a_mistaken_mirror_trains_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "--bench", "digits", "--mirror", "board", "--runs", str(tmp_path / "runs")]) == 2
    assert "mirror parameter of sweep must be trackio" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
