"""`results` on the command line: the store's runs as a table, as files, and pivoted."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import lora_lab as ll
from lora_lab.cli import main
from lora_lab.specs import RunSpec
from lora_lab.sweeps.results import COLUMNS


def write_run(root: Path, roles: tuple[str, ...], r: int, seed: int, accuracy: float | None, bench: str = "digits") -> None:
    """As much of a run as a table reads."""
    tuning = ll.LoraSpec(r=r, target_modules=roles)
    spec = RunSpec(bench=bench, base_sha256="0" * 64, tuning=tuning, seed=seed)
    trained = 128 * r * len(roles)
    counts = {"trainable_params": trained, "head_params": 0, "loss": 0.5, "metric": "accuracy", "step": 3}
    (root / spec.run_id).mkdir(parents=True)
    (root / spec.run_id / "spec.json").write_text(json.dumps(spec.to_json()))
    (root / spec.run_id / "metrics.json").write_text(json.dumps({"status": "finished", "accuracy": accuracy, **counts}))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("results") / "runs"
    for targets in (("q_proj",), ("q_proj", "v_proj")):
        for r in (1, 2):
            for seed in (0, 1):
                write_run(root, targets, r, seed, accuracy=0.5 + 0.1 * len(targets) + 0.02 * seed)
    write_run(root, ("q_proj",), 1, 0, accuracy=None, bench="digits:noised")
    return root


def called(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, str]:
    assert main(["results", *arguments]) == 0
    said = capsys.readouterr()
    return said.out, said.err


def document(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(called(capsys, *arguments, "--json")[0])
    return found


def test_json_has_a_row_a_run_and_null_for_what_is_missing(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, "--runs", str(runs))
    assert set(found) == {"runs"}
    assert len(found["runs"]) == 9
    assert all(list(row) == list(COLUMNS) for row in found["runs"])
    assert [row["score"] for row in found["runs"] if row["bench"] == "digits:noised"] == [None]


def test_one_bench_may_be_asked_for(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(document(capsys, "--runs", str(runs), "--bench", "digits")["runs"]) == 8


def test_people_read_a_line_a_run(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = called(capsys, "--runs", str(runs))
    ids = {path.name for path in runs.iterdir() if path.is_dir()}
    assert {line.split()[0] for line in out.splitlines()} >= ids


def test_csv_goes_to_standard_output_or_to_a_file(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = called(capsys, "--runs", str(runs), "--format", "csv")
    lines = list(csv.DictReader(io.StringIO(out)))
    assert len(lines) == 9
    assert list(lines[0]) == list(COLUMNS)
    file = tmp_path / "runs.csv"
    said = called(capsys, "--runs", str(runs), "--format", "csv", "--out", str(file))
    assert said == ("", f"{file}\n")
    assert file.read_text() == out


def test_parquet_goes_to_a_file(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "runs.parquet"
    found = document(capsys, "--runs", str(runs), "--format", "parquet", "--out", str(file))
    assert list(pd.read_parquet(file)["run_id"]) == [row["run_id"] for row in found["runs"]]


def test_a_pivot_by_rank_has_a_cell_a_rank(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pivot = document(capsys, "--runs", str(runs), "--pivot", "r")["pivot"]
    assert (pivot["by"], pivot["value"], pivot["rows"], pivot["columns"]) == (
        "r",
        "score",
        ["bench", "metric", "target_roles"],
        ["r"],
    )
    assert {(one["target_roles"], one["r"]) for one in pivot["cells"]} == {("q", 1), ("q", 2), ("q,v", 1), ("q,v", 2)}
    for one in pivot["cells"]:
        assert one["count"] == 2
        assert one["mean"] == pytest.approx(0.61 if one["target_roles"] == "q" else 0.71)
        assert one["sd"] == pytest.approx(0.02 / 2**0.5)


def test_a_pivot_by_targets_is_of_one_budget(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pivot = document(capsys, "--runs", str(runs), "--pivot", "targets")["pivot"]
    assert {(one["target_roles"], one["r"]) for one in pivot["cells"]} == {("q", 2), ("q,v", 1)}
    assert {one["adapter_params"] for one in pivot["cells"]} == {256}


def test_people_read_mean_and_spread_in_a_cell(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = called(capsys, "--runs", str(runs), "--pivot", "r")
    heads, q, q_v, _ = out.splitlines()
    assert heads.split() == ["bench", "metric", "target_roles", "r", "1", "r", "2"]
    assert "61.0 ± 1.4 (2)" in q
    assert "71.0 ± 1.4 (2)" in q_v
    out, _ = called(capsys, "--runs", str(runs), "--pivot", "targets", "--value", "loss")
    assert out.splitlines()[1].endswith("0.500 ± 0.000 (2)  0.500 ± 0.000 (2)")
    assert "q r 2" in out.splitlines()[0]
    assert "q,v r 1" in out.splitlines()[0]


def test_a_pivots_cells_go_to_csv(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = called(capsys, "--runs", str(runs), "--pivot", "r", "--format", "csv")
    lines = list(csv.DictReader(io.StringIO(out)))
    assert [(line["target_roles"], line["r"], line["count"]) for line in lines[:2]] == [("q", "1", "2"), ("q", "2", "2")]


def test_nothing_to_pivot_is_said(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--runs", str(runs), "--bench", "digits:noised", "--pivot", "r"]
    assert called(capsys, *arguments)[0] == "no finished run has what this table is of\n"
    assert document(capsys, *arguments)["pivot"]["cells"] == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--format", "parquet"], "--out must be the file to write with --format parquet"),
        (["--bench", "digit"], "The bench must be one of digits, digits:noised. Got 'digit'."),
        (["--pivot", "r", "--value", "speed"], "value parameter of pivot must be one of step, score,"),
        (["--format", "csv", "--out", "spec.json/below"], "The file must be one that can be written."),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_2(
    runs: Path, arguments: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(next(path for path in runs.iterdir() if path.is_dir()))
    assert main(["results", "--runs", str(runs), *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert sentence in said.err
    assert len(said.err.strip().splitlines()) == 1


def test_a_folder_that_is_not_there_is_not_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["results", "--runs", str(tmp_path / "typo")]) == 2
    assert "The runs folder must be one that exists." in capsys.readouterr().err
    assert not (tmp_path / "typo").exists()
