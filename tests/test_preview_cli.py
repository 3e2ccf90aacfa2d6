"""Data of one's own on the command line: looked at, then trained on for two steps, with the metrics of their task."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lora_lab.benches.examples import Completion, Labelled, TextData
from lora_lab.cli import main

Row = dict[str, Any]


def write_jsonl(path: Path, rows: list[Row]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def write_csv(path: Path, rows: list[Row]) -> str:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


PROMPTED = [{"ask": f"say word{i % 9} ", "answer": f"it is word{i % 9}"} for i in range(40)]
PLAIN = [{"body": f"it is word{i % 9} and good"} for i in range(40)]
LABELLED = [{"text": f"word{i % 7} is {'good' if i % 4 else 'bad'}", "label": "yes" if i % 4 else "no"} for i in range(40)]
PAIRED = [{"a": f"word{i % 7} is good", "b": "good" if i % 2 else "bad", "same": i % 2} for i in range(40)]
SCORED = [{"text": f"word{i % 7} " + "good " * (i % 3), "label": i % 3 / 2} for i in range(40)]


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main([*arguments, "--json"]) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_a_preview_is_the_record_as_json(tiny_writer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_jsonl(tmp_path / "mine.jsonl", PROMPTED)
    columns = ["--prompt-column", "ask", "--completion-column", "answer"]
    seen = printed(capsys, "preview", "--bench", str(tiny_writer), "--data", data, *columns, "--rows", "2")
    assert (seen["bench"], seen["base_note"], seen["task"], seen["metric"]) == (str(tiny_writer), "", "completion", "bleu")
    assert (seen["train_rows"], seen["validation_rows"], seen["test_rows"], seen["counted_rows"]) == (32, 4, 4, 32)
    assert len(seen["examples"]) == 2
    assert all([prompt, answer] in [[row["ask"], row["answer"]] for row in PROMPTED] for prompt, answer in seen["examples"])
    assert seen["bin_counts"] == [0, 0, 0, 0, 0, 0, 32]  # two words, then three, and the end of text
    assert (seen["mean_tokens"], seen["longest_tokens"], seen["max_tokens"], seen["cut_rows"]) == (6.0, 6, 512, 0)


def test_a_preview_in_words_shows_rows_labels_and_lengths(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_csv(tmp_path / "mine.csv", LABELLED)
    assert main(["preview", "--bench", str(tiny_base), "--data", data, "--rows", "3"]) == 0
    said = capsys.readouterr().out
    assert "Classification of 2 labels: 32 rows to train on, 4 to validate, 4 to test; scored by accuracy." in said
    assert said.count("  -> ") == 3
    seen = printed(capsys, "preview", "--bench", str(tiny_base), "--data", data)
    assert f"Training rows a label: {', '.join(f'{label} {n}' for label, n in seen['label_counts'])}." in said
    assert {label for label, _ in seen["label_counts"]} == {"no", "yes"}
    assert f"3 to 3 {32:>7} {'█' * 40}" in said
    assert "have 3.0 tokens on average, 3 at most; a row is cut at 128, and none is longer." in said


def test_numbers_are_read_as_numbers_where_the_task_says_so(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["preview", "--bench", str(tiny_base), "--data", write_csv(tmp_path / "mine.csv", SCORED)]
    assert printed(capsys, *given)["task"] == "classification"
    seen = printed(capsys, *given, "--task", "regression")
    assert (seen["task"], seen["metric"], seen["label_counts"]) == ("regression", "pearson", [])
    assert {answer for _, answer in seen["examples"]} <= {"0.0", "0.5", "1.0"}


def test_dequantized_weights_are_told_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["preview", "--bench", "e2e", "--rows", "1", "--json"]) == 0
    said = capsys.readouterr()
    seen = json.loads(said.out)
    assert (seen["task"], seen["metric"]) == ("completion", "bleu")
    assert seen["base_note"] in said.err  # empty where the Hub gave the published ones


BAD = [
    (["--bench", "digits"], "A preview must be of a task of text"),
    (["--bench", "reviews", "--data", "mine.csv"], "has its own data"),
    (["--bench", "{base}", "--data", "{data}", "--text-column", "body"], "text_column must be one of text, label. Got 'body'"),
    (["--bench", "{base}", "--data", "{data}", "--rows", "many"], "--rows must be an int. Got 'many'"),
    (["--bench", "{base}", "--data", "{data}", "--rows", "-1"], "--rows must be an int of at least 0"),
    (["--bench", "{base}", "--data", "nothing"], "or one of glue:mnli"),
]


@pytest.mark.parametrize(("arguments", "sentence"), BAD, ids=[sentence for _, sentence in BAD])
def test_a_mistake_is_one_sentence_and_exit_2(
    arguments: list[str], sentence: str, tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_csv(tmp_path / "mine.csv", LABELLED)
    filled = [argument.format(base=tiny_base, data=data) for argument in arguments]
    assert main(["preview", *filled, "--json"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert sentence in said.err
    assert len(said.err.strip().splitlines()) == 1


def test_a_task_that_there_is_not_is_one_sentence(tmp_path: Path) -> None:
    given = ["--bench", str(tmp_path), "--data", "mine.csv", "--task", "poetry"]  # its own process: pytest checks types here
    done = subprocess.run([sys.executable, "-m", "lora_lab", "preview", *given], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.strip() == (
        "lora-lab: The task parameter of DataSpec must be one of classification, regression, completion, text, or empty. "
        "Got 'poetry'."
    )


# Trained on


def trained(capsys: pytest.CaptureFixture[str], base: Path, data: str, runs: Path, *flags: str) -> dict[str, Any]:
    given = ["--bench", str(base), "--data", data, *flags, "--r", "2", "--steps", "2", "--batch", "4", "--runs", str(runs)]
    run = printed(capsys, "train", *given)
    assert run["metrics"]["status"] == "finished"
    assert run["metrics"]["step"] == 2
    assert run["metrics"]["loss"] > 0
    return run


def test_completions_are_scored_by_bleu(tiny_writer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_jsonl(tmp_path / "mine.jsonl", PROMPTED)
    columns = ["--prompt-column", "ask", "--completion-column", "answer"]
    run = trained(capsys, tiny_writer, data, tmp_path / "runs", *columns)
    assert run["spec"]["data"]["task"] == "completion"
    assert (run["metrics"]["metric"], run["metrics"]["head_params"]) == ("bleu", 0)
    assert {"bleu", "base_bleu", "test_bleu", "base_test_bleu", "loss", "test_loss"} <= set(run["metrics"])
    assert 0 <= run["metrics"]["bleu"] <= 100
    assert run["metrics"]["forgetting"]["kept"] == "loss"


def test_plain_text_is_scored_by_its_loss_alone(tiny_writer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_csv(tmp_path / "mine.csv", PLAIN)
    run = trained(capsys, tiny_writer, data, tmp_path / "runs", "--task", "text", "--text-column", "body")
    assert run["spec"]["data"]["task"] == "text"
    assert run["metrics"]["metric"] == "loss"
    assert not {"bleu", "accuracy"} & set(run["metrics"])


def test_a_pair_of_texts_has_a_label(tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_csv(tmp_path / "mine.csv", PAIRED)
    columns = ["--text-column", "a", "--pair-column", "b", "--label-column", "same"]
    run = trained(capsys, tiny_base, data, tmp_path / "runs", *columns)
    assert (run["spec"]["data"]["task"], run["spec"]["data"]["pair_column"]) == ("classification", "b")
    assert run["metrics"]["metric"] == "accuracy"
    assert run["metrics"]["longest_tokens"] == 4
    assert 0 <= run["metrics"]["accuracy"] <= 1


def test_a_regression_is_scored_by_its_correlation(tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_csv(tmp_path / "mine.csv", SCORED)
    run = trained(capsys, tiny_base, data, tmp_path / "runs", "--task", "regression")
    assert run["metrics"]["metric"] == "pearson"
    assert run["metrics"]["head_params"] == 32 + 1
    assert "pearson" in run["metrics"]
    assert -1 <= run["metrics"]["pearson"] <= 1


def test_columns_without_a_use_make_no_other_run(tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_csv(tmp_path / "mine.csv", LABELLED)
    runs = tmp_path / "runs"
    one = trained(capsys, tiny_base, data, runs)
    other = trained(capsys, tiny_base, data, runs, "--task", "classification", "--prompt-column", "question")
    assert other["run_id"] == one["run_id"]
    assert len([path for path in runs.iterdir() if path.is_dir()]) == 1


NAMED: dict[str, TextData] = {
    "glue:cola": TextData(
        "classification",
        "matthews",
        tuple(Labelled(f"word{i % 7} is good", i % 2) for i in range(20)),
        tuple(Labelled("word1 is bad", i % 2) for i in range(4)),
        tuple(Labelled("word2 is bad", i % 2) for i in range(4)),
        ("unacceptable", "acceptable"),
    ),
    "glue:stsb": TextData(
        "regression",
        "pearson",
        tuple(Labelled(f"word{i % 7} is", i % 5 / 2, "good") for i in range(20)),
        tuple(Labelled(f"word{i} is", i % 5 / 2, "bad") for i in range(4)),
        tuple(Labelled(f"word{i} is", i % 5 / 2, "bad") for i in range(4)),
    ),
    "samsum": TextData(
        "completion",
        "rouge_l",
        tuple(Completion(f"say word{i % 9} ", f"it is word{i % 9}") for i in range(20)),
        tuple(Completion("say word1 ", "it is word1") for _ in range(3)),
        tuple(Completion("say word2 ", "it is word2") for _ in range(3)),
    ),
}


@pytest.mark.parametrize("name", NAMED)
def test_a_dataset_by_name_is_trained_on_by_its_own_metric(
    name: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lora_lab.benches.own_data.load_named", NAMED.get)
    base = request.getfixturevalue("tiny_writer" if name == "samsum" else "tiny_base")
    seen = printed(capsys, "preview", "--bench", str(base), "--data", name)
    assert (seen["metric"], seen["train_rows"]) == (NAMED[name].metric, 20)
    run = trained(capsys, base, name, tmp_path / "runs")
    assert run["spec"]["data"]["path"] == name
    assert run["metrics"]["metric"] == NAMED[name].metric
    assert NAMED[name].metric in run["metrics"]
