"""`methods` on the command line: a real tiny bench, and the same again from the store."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from lora_lab.cli import main
from lora_lab.sweeps import RunStore

COMMAND = "methods --bench digits --method lora,bitfit --budgets 2 --lr-factors 1 --seeds 0,1 --steps 6 --runner inline".split()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench")


def called(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(arguments)
    return code, capsys.readouterr().out


def test_a_bench_is_trained_once_and_then_read_from_the_store(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [*COMMAND, "--runs", str(folder / "runs"), "--json"]
    code, out = called(capsys, *command, "--csv", str(folder / "t.csv"), "--peft-json", str(folder / "peft"))
    document: dict[str, Any] = json.loads(out)
    assert code == 0
    assert len(document["runs"]) == 4
    assert document["skipped"] == []
    assert (document["bench"], document["metric"]) == ("digits", "accuracy")
    assert {row["method"]: row["r"] for row in document["rows"]} == {"lora": 2, "bitfit": None}
    kept = {run.run_id: run for run in RunStore(folder / "runs").runs()}
    for row in document["rows"]:
        scores = [kept[run_id].metrics["test_accuracy"] for run_id in row["run_ids"]]
        assert row["scores"] == scores
        assert row["mean"] == pytest.approx(sum(scores) / 2)
        assert row["forgetting"]["kept"] == "accuracy"
    best = max(document["rows"], key=lambda row: row["mean"])
    assert document["order"][0]["method"] == best["method"]
    assert document["sentence"]
    assert {line["method"] for line in csv.DictReader((folder / "t.csv").read_text().splitlines())} == {"lora", "bitfit"}
    assert len(list((folder / "peft").glob("*.json"))) == 4

    code, out = called(capsys, *command)
    again = json.loads(out)
    assert code == 0
    assert sorted(again["skipped"]) == sorted(document["runs"])
    assert (again["rows"], again["order"], again["sentence"]) == (document["rows"], document["order"], document["sentence"])


def test_people_read_the_same_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out = called(capsys, *COMMAND, "--runs", str(folder / "runs"), "--json")
    document = json.loads(out)
    code, text = called(capsys, *COMMAND, "--runs", str(folder / "runs"))
    assert code == 0
    first = text.splitlines()[1].split()
    assert first[0] == document["order"][0]["place"]
    assert document["sentence"] in text
    assert "4 runs, 4 of them in the store already" in text


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--method", "lorra"], "The methods parameter of MethodBenchSpec must be made of"),
        (["--method", "prefix"], "past keys and values"),
        (["--budgets", "two"], "--budgets must be an int"),
        (["--seeds", ""], "The seeds parameter of MethodBenchSpec"),
    ],
)
def test_a_mistake_exits_2_with_one_sentence(
    flags: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["methods", "--bench", "digits", "--runs", str(tmp_path / "runs"), *flags]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err
    assert captured.err.count("\n") == 1


def test_the_command_of_the_readme_is_one(readme_commands: list[list[str]]) -> None:
    from lora_lab.cli import _parser

    (words,) = [command for command in readme_commands if command[0] == "methods"]
    arguments = _parser().parse_args(words)
    assert (arguments.bench, arguments.seeds, arguments.csv, arguments.peft_json) == (
        "digits:inverted",
        "0,1,2",
        "methods.csv",
        "peft",
    )
