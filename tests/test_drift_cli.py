"""`drift` on the command line, and the runs that it needs."""

import json
from pathlib import Path
from typing import Any

import pytest

import lora_lab as ll
from lora_lab.cli import main
from lora_lab.sweeps import RunStore


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    train = ["train", "--bench", "digits", "--r", "3", "--steps", "12", "--batch", "4", "--snapshots", "3"]
    assert main([*train, "--runs", str(folder), "--json"]) == 0
    return folder


def drifted(capsys: pytest.CaptureFixture[str], runs: Path, *flags: str) -> dict[str, Any]:
    (run,) = RunStore(runs).runs()
    assert main(["drift", run.run_id[:8], "--runs", str(runs), "--json", *flags]) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_the_document_is_what_the_run_says(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run,) = RunStore(runs).runs()
    document = drifted(capsys, runs, "--side", "out", "--k", "2")
    assert document["run_id"] == run.run_id
    found = run.drift(k=2, side="out")
    for module, one in zip(document["modules"], found, strict=True):
        assert (module["name"], module["side"], module["k"]) == (one.name, "out", 2)
        assert [(p["step"], p["phi"], p["chance"]) for p in module["points"]] == [(p.step, p.phi, p.chance) for p in one.points]


def test_one_matrix_is_shown_alone(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (module,) = drifted(capsys, runs, "--module", "vit.layers.2.attention.v_proj")["modules"]
    assert [point["step"] for point in module["points"]] == [4, 8, 12]
    assert module["k"] == 3  # the rank is 3


def test_people_read_a_row_a_matrix(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run,) = RunStore(runs).runs()
    assert main(["drift", run.run_id, "--runs", str(runs)]) == 0
    head, *rows, sentence = capsys.readouterr().out.splitlines()
    assert head.split()[-5:] == ["k", "4", "8", "12", "chance"]
    assert len(rows) == len(run.adapter())
    assert sentence == ll.plots.drift_caption(run.drift())
    for row, one in zip(rows, run.drift(), strict=True):
        assert row.split() == [one.name, "3", *(f"{point.phi:.3f}" for point in one.points), f"{3 / 64:.3f}"]


def test_a_sweep_keeps_snapshots_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = ["sweep", "--bench", "digits", "--r", "1,2", "--steps", "4", "--batch", "2", "--runner", "inline", "--snapshots", "2"]
    assert main([*sweep, "--runs", str(tmp_path), "--json"]) == 0
    assert [[step for step, _ in run.snapshots()] for run in RunStore(tmp_path).runs()] == [[2, 4], [2, 4]]


def test_a_mistake_is_one_sentence(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run,) = RunStore(runs).runs()
    plain = ll.train("digits", ll.LoraSpec(r=1), steps=1, runs=tmp_path)
    here, of_run = ["--runs", str(runs)], ["drift", run.run_id]
    for words, sentence in (
        ([*of_run, "--module", "k_proj", *here], "The module parameter of drift must be one of vit.layers.0"),
        ([*of_run, "--k", "0", *here], "The k parameter of drift_of must be an int of at least 1. Got 0."),
        ([*of_run, "--k", "few", *here], "--k must be an int. Got 'few'."),
        (["drift", plain.run_id, "--runs", str(tmp_path)], "which kept none."),
        (["train", "--bench", "digits", "--method", "dora", "--snapshots", "2"], "must be 0 for DoRA, whose ΔW has no small"),
    ):
        assert main(words) == 2
        said = capsys.readouterr()
        assert (said.out, said.err.count("\n")) == ("", 1)
        assert sentence in said.err
