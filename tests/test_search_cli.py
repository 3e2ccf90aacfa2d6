"""`search` on the command line: a real small search, and the same again from the store."""

import json
from pathlib import Path
from typing import Any

import pytest

from lora_lab.cli import main
from lora_lab.sweeps import RunStore

SPACE = "r=1:8:log;lr=1e-3:1e-2:log;targets=q,v|q,k,v,o"
SEARCH = ["search", "--bench", "digits", "--space", SPACE, "--trials", "4", "--halving", "2", "--rungs", "2", "--steps", "4"]
SEARCH += ["--batch", "4", "--confirm", "2x2", "--seed", "3", "--runner", "inline"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("search")


def document(capsys: pytest.CaptureFixture[str], folder: Path) -> dict[str, Any]:
    assert main([*SEARCH, "--runs", str(folder), "--json"]) == 0
    captured = capsys.readouterr()
    assert "4 trials of 2 steps, 2 trials of 4 steps, and up to 4 runs of 4 steps with further seeds." in captured.err
    found: dict[str, Any] = json.loads(captured.out)
    return found


@pytest.mark.slow
def test_a_search_is_trained_once_and_then_read_from_the_store(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, folder)
    assert len(found["runs"]) == len(RunStore(folder).runs()) == 4 + 2 + 2 * 2
    assert (found["bench"], found["metric"], found["skipped"], found["failed"]) == ("digits", "accuracy", [], {})
    assert [(rung["steps"], len(rung["trials"])) for rung in found["rungs"]] == [(2, 4), (4, 2)]
    by_id = {run["run_id"]: run for run in found["runs"]}
    for rung in found["rungs"]:
        for one in rung["trials"]:
            spec = by_id[one["run_id"]]["spec"]
            assert (spec["steps"], spec["seed"], spec["batch_size"]) == (rung["steps"], 3, 4)
            assert (spec["tuning"]["r"], spec["learning_rate"]) == (one["point"]["r"], one["point"]["learning_rate"])
            assert one["score"] == by_id[one["run_id"]]["metrics"]["accuracy"]
    for row in found["confirmed"]:
        assert row["scores"] == [by_id[run_id]["metrics"]["accuracy"] for run_id in row["run_ids"]]
        assert row["test_scores"] == [by_id[run_id]["metrics"]["test_accuracy"] for run_id in row["run_ids"]]
    means = [row["mean"] for row in found["confirmed"]]
    assert means == sorted(means, reverse=True)
    assert found["best"]["trial"] == found["confirmed"][0]["trial"]
    assert f"Trial {found['best']['trial']} (" in found["sentence"]

    again = document(capsys, folder)
    assert sorted(again["skipped"]) == sorted(by_id)
    assert {key: again[key] for key in ("rungs", "confirmed", "best")} == {
        key: found[key] for key in ("rungs", "confirmed", "best")
    }


@pytest.mark.slow
def test_people_read_the_same(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, folder)
    assert main([*SEARCH, "--runs", str(folder)]) == 0
    text = capsys.readouterr().out
    assert found["sentence"] in text
    assert "10 runs, 10 of them in the store already" in text
    for rung in found["rungs"]:
        for one in rung["trials"]:
            assert one["run_id"] in text


def test_a_plan_is_of_the_most_it_may_come_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SEARCH, "--runs", str(tmp_path / "runs"), "--plan", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)["plan"]
    assert (plan["runs"], plan["steps"]) == (10, 4 * 2 + 2 * 4 + 2 * 2 * 4)
    assert not (tmp_path / "runs").exists()


def test_the_search_of_the_readme_is_one(
    readme_commands: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (words,) = [command for command in readme_commands if command[0] == "search"]
    assert main([*words, "--runs", str(tmp_path / "runs"), "--plan"]) == 0
    assert "27 trials of 22 steps, 9 trials of 66 steps, 3 trials of 200 steps" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--space", "rank=1:8"], "--space must be of parts such as r=1:64:log"),
        (["--space", "r=0:8:log"], "low and high parameter of Range must be two numbers, the lower first, both above 0."),
        (["--space", "r=65:99"], "r parameter of MethodSpec must be an int in 1..min(d_in, d_out)=64"),
        (["--trials", "one"], "--trials must be an int. Got 'one'."),
        (["--halving", "5"], "trials parameter of SearchSpec must be at least eta=5. Got 4."),
        (["--rungs", "9"], "trials parameter of SearchSpec must be at least 256. Got 4."),
        (["--confirm", "best"], "--confirm must be two numbers such as 3x3, or 0. Got 'best'."),
        (["--confirm", "2x0"], "confirm_seeds parameter of SearchSpec must be an int of at least 1. Got 0."),
        (["--runner", "carrier-pigeon"], "runner parameter of sweep_events must be one of process, inline"),
    ],
)
def test_a_mistake_is_one_sentence_and_trains_nothing(
    flags: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SEARCH, "--runs", str(tmp_path / "runs"), "--json", *flags]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert sentence in said.err
    assert not (tmp_path / "runs").exists()
