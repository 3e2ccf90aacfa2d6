"""The user's own data as tasks: what the columns tell, what is held out, and one sentence for whatever cannot be used."""

import csv
import hashlib
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lora_lab.benches import own_data
from lora_lab.benches.examples import Completion, Labelled, TextData
from lora_lab.benches.own_data import read_data, resolved
from lora_lab.errors import AssetError, DataError
from lora_lab.specs import DataSpec, RunSpec

Row = dict[str, Any]
LABELLED = [{"text": f"text {i}", "label": ("no", "yes", "maybe")[i % 3], "other": f"other {i}"} for i in range(30)]
PROMPTED = [{"prompt": f"say {i}:", "completion": f" it is {i}"} for i in range(20)]
SCORED = [{"text": f"text {i}", "label": i / 4} for i in range(10)]


def write_csv(path: Path, rows: list[Row]) -> str:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def write_jsonl(path: Path, rows: list[Row]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def read(path: str, **fields: Any) -> TextData:
    return read_data(DataSpec(path=path, **fields))


def everything(data: TextData) -> list[Any]:
    return [*data.train, *data.validation, *data.test]


def assert_one_sentence(error: Exception, *parts: str) -> None:
    message = str(error)
    assert "\n" not in message
    assert message.endswith(".")
    for part in parts:
        assert part in message


# What the columns tell


def test_texts_with_labels_are_a_classification(tmp_path: Path) -> None:
    data = read(write_csv(tmp_path / "a.csv", LABELLED))
    assert (data.kind, data.metric, data.label_names) == ("classification", "accuracy", ("maybe", "no", "yes"))
    expected = [Labelled(row["text"], ("maybe", "no", "yes").index(row["label"])) for row in LABELLED]
    assert Counter(everything(data)) == Counter(expected)


def test_prompts_with_completions_are_completions(tmp_path: Path) -> None:
    data = read(write_csv(tmp_path / "a.csv", PROMPTED))
    assert (data.kind, data.metric, data.label_names) == ("completion", "bleu", ())
    assert Counter(everything(data)) == Counter(Completion(row["prompt"], row["completion"]) for row in PROMPTED)


def test_texts_alone_are_plain_text(tmp_path: Path) -> None:
    rows = [{"text": f"story {i}", "author": "me"} for i in range(10)]
    with pytest.raises(DataError, match="label_column must be one of text, author"):  # a label may be meant
        read(write_jsonl(tmp_path / "a.jsonl", rows))
    assert read(str(tmp_path / "a.jsonl"), task="text") == read(
        write_jsonl(tmp_path / "b.jsonl", [{"text": row["text"]} for row in rows])
    )
    data = read(str(tmp_path / "b.jsonl"))
    assert (data.kind, data.metric) == ("completion", "")
    assert Counter(everything(data)) == Counter(Completion("", f"story {i}") for i in range(10))


def test_prompts_win_over_labels_and_a_task_that_is_named_over_both(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", [{**a, **b} for a, b in zip(LABELLED, PROMPTED, strict=False)])
    assert isinstance(read(path).train[0], Completion)
    assert read(path, task="classification").kind == "classification"
    assert read(path, task="text").metric == ""


def test_a_named_column_of_labels_is_meant(tmp_path: Path) -> None:
    """Texts without the labels that were asked for are no plain text."""
    with pytest.raises(DataError) as caught:
        read(write_csv(tmp_path / "a.csv", [{"text": "a"}] * 10), label_column="stars")
    assert_one_sentence(caught.value, "label_column must be one of text", "'stars'")


def test_named_columns_of_prompts_are_meant(tmp_path: Path) -> None:
    rows = [{"text": "t", "label": i, "q": f"q{i}", "a": f"a{i}"} for i in range(10)]
    path = write_csv(tmp_path / "a.csv", rows)
    data = read(path, prompt_column="q", completion_column="a")
    assert Counter(everything(data)) == Counter(Completion(f"q{i}", f"a{i}") for i in range(10))
    with pytest.raises(DataError) as caught:
        read(path, prompt_column="q")
    assert_one_sentence(caught.value, "completion_column must be one of text, label, q, a", "'completion'")


def test_a_second_text_is_read_where_it_is_named(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", LABELLED)
    data = read(path, pair_column="other")
    assert {row.pair.replace("other", "text") == row.text for row in everything(data)} == {True}
    with pytest.raises(DataError) as caught:
        read(path, pair_column="second")
    assert_one_sentence(caught.value, "pair_column must be one of text, label, other", "'second'")


@pytest.mark.parametrize("write", [write_csv, write_jsonl])
def test_a_regression_has_numbers(tmp_path: Path, write: Any) -> None:
    data = read(write(tmp_path / ("a.csv" if write is write_csv else "a.jsonl"), SCORED), task="regression")
    assert (data.kind, data.metric, data.label_names) == ("regression", "pearson", ())
    assert Counter(everything(data)) == Counter(Labelled(f"text {i}", i / 4) for i in range(10))


@pytest.mark.parametrize("cell", ["good", "nan", "inf"])
def test_a_regression_refuses_what_is_no_number(tmp_path: Path, cell: str) -> None:
    path = write_csv(tmp_path / "a.csv", [*SCORED, {"text": "t", "label": cell}])
    with pytest.raises(DataError) as caught:
        read(path, task="regression")
    assert_one_sentence(caught.value, "label column of a regression", "Row 11 of 'a.csv'", repr(cell))


# What is held out


@pytest.mark.parametrize(("n", "sizes"), [(10, (8, 1, 1)), (14, (12, 1, 1)), (30, (24, 3, 3)), (100, (80, 10, 10))])
def test_a_fifth_is_held_out_half_of_it_to_test_on(tmp_path: Path, n: int, sizes: tuple[int, int, int]) -> None:
    path = write_csv(tmp_path / "a.csv", [{"text": f"text {i}", "label": i % 2} for i in range(n)])
    data = read(path)
    assert (len(data.train), len(data.validation), len(data.test)) == sizes
    assert len({row.text for row in everything(data)}) == n
    assert read(path) == data


def test_rows_are_shuffled(tmp_path: Path) -> None:
    data = read(write_csv(tmp_path / "a.csv", PROMPTED))
    assert everything(data) != [Completion(row["prompt"], row["completion"]) for row in PROMPTED]


BAD: dict[str, tuple[list[Row], dict[str, Any], tuple[str, ...]]] = {
    "too few completions": (PROMPTED[:9], {}, ("data file", "at least 10 rows", "Got 9")),
    "too few labels": ([{"text": f"t{i}", "label": i} for i in range(9)], {}, ("at least 10 rows", "Got 9")),
    "one label": ([{"text": "t", "label": "a"}] * 12, {}, ("at least two different labels", "'a'")),
    "an empty prompt": ([*PROMPTED, {"prompt": " ", "completion": "x"}], {}, ("prompt column", "Row 21 of 'a.csv'")),
    "an empty completion": ([{"prompt": "x", "completion": ""}, *PROMPTED], {}, ("completion column", "Row 1 of 'a.csv'")),
    "an empty text": ([{"text": "", "n": 1}] * 12, {"task": "text"}, ("text column", "Row 1 of 'a.csv'")),
    "nothing to read": ([{"body": "x"}] * 12, {}, ("text_column", "body", "'text'")),
    "no text for text": (PROMPTED, {"task": "text"}, ("text_column must be one of prompt, completion", "'text'")),
    "no prompt": (LABELLED, {"task": "completion"}, ("prompt_column must be one of text, label, other", "'prompt'")),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_data_are_refused_in_one_sentence(tmp_path: Path, case: str) -> None:
    rows, fields, parts = BAD[case]
    with pytest.raises(DataError) as caught:
        read(write_csv(tmp_path / "a.csv", rows), **fields)
    assert_one_sentence(caught.value, *parts)


@pytest.mark.parametrize("path", ["missing.csv", "data/missing.jsonl", "glue:none", "nothing"])
def test_what_is_no_data_is_told_what_would_be(path: str) -> None:
    with pytest.raises(DataError) as caught:
        read(path)
    assert_one_sentence(caught.value, "CSV or JSONL file that exists", "dataset on the Hub", "glue:sst2", repr(path))


# From the Hub


def give(monkeypatch: pytest.MonkeyPatch, **splits: list[Row]) -> None:
    monkeypatch.setattr(own_data, "hub_rows", lambda given: splits)


HELD = [{"text": f"held {i}", "label": "no"} for i in range(3)]
TEST = [{"text": f"test {i}", "label": "yes"} for i in range(2)]


def texts(rows: tuple[Any, ...]) -> list[str]:
    return [row.text for row in rows]


@pytest.mark.parametrize("name", ["validation", "valid", "dev"])
def test_a_dataset_keeps_its_own_splits(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    give(monkeypatch, train=LABELLED, test=TEST, **{name: HELD})
    data = read("somebody/something")
    assert texts(data.train) == [row["text"] for row in LABELLED]
    assert texts(data.validation) == ["held 0", "held 1", "held 2"]
    assert texts(data.test) == ["test 0", "test 1"]
    assert data.label_names == ("maybe", "no", "yes")


@pytest.mark.parametrize("name", ["validation", "test"])
def test_the_one_split_that_is_held_out_is_the_test(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    give(monkeypatch, train=LABELLED, **{name: HELD})
    data = read("somebody/something:part")
    assert texts(data.test) == ["held 0", "held 1", "held 2"]
    assert (len(data.train), len(data.validation)) == (27, 3)
    assert sorted(texts((*data.train, *data.validation))) == sorted(row["text"] for row in LABELLED)


def test_a_dataset_with_one_split_is_cut_as_a_file_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    give(monkeypatch, train=PROMPTED)
    assert read("somebody/something") == read(write_csv(tmp_path / "a.csv", PROMPTED))


@pytest.mark.parametrize(
    ("splits", "parts"),
    [
        ({"all": LABELLED}, ("split named train", "'somebody/something' has all")),
        ({"train": LABELLED[:9]}, ("train split of 'somebody/something'", "at least 10 rows", "Got 9")),
        ({"train": LABELLED, "test": [{"text": "x", "label": ""}]}, ("label column", "Row 1 of 'somebody/something' (test)")),
        ({"train": LABELLED, "test": [{"text": "x"}]}, ("label_column must be one of text.", "'label'")),
    ],
)
def test_a_dataset_that_cannot_be_used_is_refused(
    monkeypatch: pytest.MonkeyPatch, splits: dict[str, list[Row]], parts: tuple[str, ...]
) -> None:
    give(monkeypatch, **splits)
    with pytest.raises(DataError) as caught:
        read("somebody/something")
    assert_one_sentence(caught.value, *parts)


def test_a_dataset_needs_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lora_lab.assets.hub_reachable", lambda: False)
    for path in ("somebody/something-else", "glue:cola"):
        with pytest.raises(AssetError, match="does not answer"):
            read(path)


def test_a_dataset_by_name_has_the_task_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    data = TextData("completion", "bleu", (Completion("a", "b"),), (), ())
    monkeypatch.setattr(own_data, "load_named", lambda name: data)
    assert read("e2e_nlg") is data
    assert read("e2e_nlg", task="completion") is data
    with pytest.raises(DataError) as caught:
        read("e2e_nlg", task="text")
    assert_one_sentence(caught.value, "task of e2e_nlg must be completion", "'text'")


# Pinned


@pytest.mark.parametrize(
    ("rows", "task"), [(LABELLED, "classification"), (PROMPTED, "completion"), ([{"text": f"t {i}"} for i in range(10)], "text")]
)
def test_a_file_is_pinned_with_its_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[Row], task: str) -> None:
    path = write_csv(tmp_path / "a.csv", rows)
    monkeypatch.chdir(tmp_path)
    given = DataSpec(path="a.csv", pair_column="")
    sha256 = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    assert resolved(given) == replace(given, path=path, task=task, sha256=sha256)
    assert resolved(resolved(given)) == resolved(given)


def test_a_dataset_is_pinned_by_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    given = DataSpec(path="somebody/something")
    give(monkeypatch, train=LABELLED, test=TEST)
    pinned = resolved(given)
    assert (pinned.path, pinned.task, len(pinned.sha256)) == ("somebody/something", "classification", 64)
    assert resolved(given) == pinned
    changed = [{"text": "test 0", "label": "no"}, *TEST[1:]]
    give(monkeypatch, train=LABELLED, test=changed)
    assert resolved(given).sha256 != pinned.sha256
    give(monkeypatch, train=LABELLED, test=[{**row, "id": 7} for row in TEST])
    assert resolved(given) == pinned  # a column that is not read


def test_bad_data_are_not_pinned(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least 10 rows"):
        resolved(DataSpec(path=write_csv(tmp_path / "a.csv", PROMPTED[:3])))


def test_a_record_of_before_there_were_tasks_is_read() -> None:
    old = {"path": "x.csv", "text_column": "t", "label_column": "l", "sha256": "ab"}
    record = RunSpec(bench="b", base_sha256="cd", data=DataSpec(**old)).to_json()
    assert RunSpec.from_json({**record, "data": old}).data == DataSpec(**old)
    assert RunSpec.from_json(record).to_json() == record
