"""`delete` on the command line."""

import json
from pathlib import Path

import pytest

import lora_lab as ll
from lora_lab.cli import main
from lora_lab.sweeps import RunStore


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for seed in (0, 1):
        ll.train("digits", ll.LoraSpec(r=1), steps=1, seed=seed, runs=tmp_path / "runs")
    return tmp_path / "runs"


def test_runs_are_deleted_by_id_or_its_beginning(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = RunStore(runs).runs()
    assert main(["delete", first.run_id[:7], "--runs", str(runs), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"deleted": [first.run_id]}
    assert [run.run_id for run in RunStore(runs).runs()] == [second.run_id]
    assert not first.folder.exists()


def test_a_run_that_is_not_there_is_a_sentence_and_nothing_is_deleted(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = RunStore(runs).runs()[0]
    assert main(["delete", first.run_id, "zzzz", "--runs", str(runs)]) == 2
    assert "no run begins so" in capsys.readouterr().err
    assert len(RunStore(runs).runs()) == 2


def test_no_folder_is_made_for_a_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["delete", "abc", "--runs", str(tmp_path / "none")]) == 2
    assert "must be one that exists" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
