"""The user's own base and data: what is read, what is trained, and one sentence for whatever cannot be used."""

import csv
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import BertConfig, BertForSequenceClassification, BertModel, PreTrainedModel, PreTrainedTokenizerFast

import lora_lab as ll
from lora_lab.adapters import load_adapter
from lora_lab.benches import find_bench
from lora_lab.benches.examples import TextData
from lora_lab.benches.own_data import read_data
from lora_lab.errors import AssetError, DataError, LabError
from lora_lab.events import DoneEvent, StartEvent
from lora_lab.training import plan_run, train_events

LABELS = ("bad", "good", "mixed")
ROWS = [{"text": f"a {LABELS[i % 3]} film, number {i}", "label": LABELS[i % 3]} for i in range(30)]
Row = dict[str, Any]


def write_csv(path: Path, rows: list[Row], *, encoding: str = "utf-8") -> Path:
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_jsonl(path: Path, rows: list[Row], *, encoding: str = "utf-8") -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding=encoding)
    return path


WRITERS = {"csv": write_csv, "jsonl": write_jsonl}


def save_base(folder: Path, kind: type[PreTrainedModel], *, num_labels: int) -> Path:
    """A BERT of two layers, 16 wide, with a tokenizer of a few words: a folder such as a user has."""
    words = ["[PAD]", "[UNK]", "a", "film", ",", "number", *LABELS]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=128,
        num_labels=num_labels,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        kind(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of three labels."""
    return save_base(tmp_path_factory.mktemp("base"), BertForSequenceClassification, num_labels=3)


@pytest.fixture
def data(tmp_path: Path) -> ll.DataSpec:
    """Thirty sentences of three labels."""
    return ll.DataSpec(path=str(write_csv(tmp_path / "films.csv", ROWS)))


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lora_lab.assets.hub_reachable", lambda: False)


def read(path: Path, **columns: str) -> TextData:
    return read_data(ll.DataSpec(path=str(path), **columns))


def pairs(data: TextData) -> set[tuple[str, str]]:
    """(text, label's name) of every row, whatever split it is in."""
    return {(row.text, data.label_names[row.label]) for split in (data.train, data.validation, data.test) for row in split}


def assert_one_sentence(error: LabError, *parts: str) -> None:
    """The message is one line that ends as a sentence and says these parts."""
    message = str(error)
    assert "\n" not in message
    assert message.endswith(".")
    for part in parts:
        assert part in message


# Reading data


def test_csv_and_jsonl_are_read_alike(tmp_path: Path) -> None:
    found = read(write_csv(tmp_path / "films.csv", ROWS))
    assert found == read(write_jsonl(tmp_path / "films.jsonl", ROWS))
    assert found.label_names == LABELS
    assert pairs(found) == {(row["text"], row["label"]) for row in ROWS}


def test_a_number_is_a_label_as_good_as_a_word(tmp_path: Path) -> None:
    rows = [{"text": f"text {i}", "label": i % 2} for i in range(10)]
    found = read(write_csv(tmp_path / "n.csv", rows))
    assert found == read(write_jsonl(tmp_path / "n.jsonl", rows))
    assert found.label_names == ("0", "1")


@pytest.mark.parametrize("ending", WRITERS)
def test_the_user_names_the_columns(tmp_path: Path, ending: str) -> None:
    rows = [{"id": i, "review": row["text"], "stars": row["label"]} for i, row in enumerate(ROWS)]
    path = WRITERS[ending](tmp_path / f"films.{ending}", rows)
    plain = write_csv(tmp_path / "plain.csv", ROWS)
    assert read(path, text_column="review", label_column="stars") == read(plain)


@pytest.mark.parametrize("ending", WRITERS)
@pytest.mark.parametrize("inside", ["a, comma", 'a "quote"', "zwei Wörter 映画", "a\nline", "a\u2028separator", "a\x85control"])
def test_whatever_a_text_holds_is_kept(tmp_path: Path, ending: str, inside: str) -> None:
    rows = [{"text": f"{inside} {i}", "label": i % 2} for i in range(10)]
    found = read(WRITERS[ending](tmp_path / f"films.{ending}", rows))
    assert {text for text, _ in pairs(found)} == {row["text"] for row in rows}


@pytest.mark.parametrize("ending", WRITERS)
def test_a_byte_order_mark_is_no_part_of_the_data(tmp_path: Path, ending: str) -> None:
    marked = WRITERS[ending](tmp_path / f"marked.{ending}", ROWS, encoding="utf-8-sig")
    assert read(marked) == read(write_csv(tmp_path / "plain.csv", ROWS))


def test_empty_lines_of_jsonl_count_for_nothing(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "films.jsonl", ROWS)
    spaced = tmp_path / "spaced.jsonl"
    spaced.write_text(path.read_text().replace("\n", "\n\n"))
    assert read(spaced) == read(path)


BAD_FILES: dict[str, tuple[str, str | bytes, tuple[str, ...]]] = {
    "another ending": ("films.xlsx", "text,label\n", (".csv or .jsonl", "films.xlsx")),
    "nothing in the csv": ("films.csv", "", ("at least one row",)),
    "nothing in the jsonl": ("films.jsonl", "", ("at least one row",)),
    "a header only": ("films.csv", "text,label\n", ("at least one row",)),
    "no text column": ("films.csv", "review,label\n" + "fine,good\n" * 10, ("text_column", "review, label", "'text'")),
    "no label column": ("films.csv", "text,stars,id\n" + "fine,5,1\n" * 10, ("label_column", "text, stars, id", "'label'")),
    "no text key": ("films.jsonl", '{"body": "fine", "label": 1}\n' * 10, ("text_column", "body, label", "'text'")),
    "an empty text": ("films.csv", "text,label\n" + "fine,good\n" * 10 + " ,bad\n", ("text column", "Row 11")),
    "an empty label": ("films.csv", "text,label\nfine,\n" + "fine,good\n" * 10, ("label column", "Row 1 ")),
    "a row cut short": ("films.csv", "text,label\n" + "fine,good\n" * 10 + "fine\n", ("label column", "Row 11")),
    "a null": ("films.jsonl", '{"text": "a", "label": 1}\n' * 10 + '{"text": null, "label": 0}\n', ("text column", "Row 11")),
    "a key left out": ("films.jsonl", '{"text": "a", "label": 1}\n' * 10 + '{"text": "b"}\n', ("label column", "Row 11")),
    "one label": ("films.csv", "text,label\n" + "fine,good\n" * 12, ("two different labels", "'good'")),
    "too few rows": ("films.csv", "text,label\nfine,good\ndull,bad\n", ("at least 10 rows", "Got 2")),
    "a broken line": ("films.jsonl", '{"text": "a", "label": 1}\n{"text": \n', ("JSON object", "Line 2", "films.jsonl")),
    "a list": ("films.jsonl", '["a", 1]\n', ("JSON object", "Line 1")),
    "csv not in utf-8": ("films.csv", "text,label\nschön,gut\n".encode("latin-1"), ("UTF-8", "films.csv")),
    "jsonl not in utf-8": ("films.jsonl", '{"text": "schön"}\n'.encode("latin-1"), ("UTF-8", "films.jsonl")),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_data_file_is_refused_in_one_sentence(tmp_path: Path, case: str) -> None:
    name, content, parts = BAD_FILES[case]
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as caught:
        read(path)
    assert_one_sentence(caught.value, *parts)


@pytest.mark.parametrize("place", ["missing.csv", "."])
def test_a_data_file_that_is_not_there_is_named(tmp_path: Path, place: str) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path / place)
    assert_one_sentence(caught.value, "exists", str(tmp_path / place))


def test_a_bad_file_is_refused_before_anything_is_written(base: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="exists"):
        ll.train(str(base), data=ll.DataSpec(path=str(tmp_path / "missing.csv")), runs=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


# The bench


def test_a_fifth_is_held_out_and_every_row_is_used_once(base: Path, data: ll.DataSpec) -> None:
    bench = find_bench(str(base), data)
    splits = bench.splits()
    assert [len(split) for split in splits] == [24, 3, 3]
    rows = [row for part in splits for row in part.columns["labels"].tolist()]
    assert Counter(rows) == Counter(i % 3 for i in range(30))
    again = bench.splits().test
    assert all(torch.equal(column, again.columns[name]) for name, column in splits.test.columns.items())


@pytest.mark.parametrize(
    ("kind", "num_labels"),
    [(BertForSequenceClassification, 3), (BertForSequenceClassification, 2), (BertModel, 2)],
    ids=["a head that fits", "a head of two labels", "no head"],
)
def test_the_head_has_one_output_a_label(kind: type[PreTrainedModel], num_labels: int, tmp_path: Path, data: ll.DataSpec) -> None:
    bench = find_bench(str(save_base(tmp_path / "base", kind, num_labels=num_labels)), data)
    (head,) = [m for m in bench.geometry().matrices if m.role == "head"]
    assert (head.name, head.d_out, head.d_in) == ("classifier", 3, 16)
    assert bench.build().classifier.weight.shape == (3, 16)


def test_two_steps_on_ones_own_base_save_an_adapter(base: Path, data: ll.DataSpec, tmp_path: Path) -> None:
    spec = plan_run(find_bench(str(base), data), ll.LoraSpec(r=2), steps=2, batch_size=4)
    events = list(train_events(spec, tmp_path))
    (start, done) = events[0], events[-1]
    assert isinstance(start, StartEvent)
    assert start.head_params == 3 * 16 + 3
    assert start.trainable_params == start.head_params + 2 * 2 * 2 * (16 + 16)  # 2 layers, q and v, r = 2
    assert isinstance(done, DoneEvent)
    assert (done.status, done.step) == ("finished", 2)
    adapter = load_adapter(tmp_path / "adapter")
    assert {delta.shape for delta in adapter.values()} == {(16, 16)}
    assert len(adapter) == 4
    assert adapter.config["base_model_name_or_path"] == str(base)


def test_the_plan_pins_base_and_data(base: Path, data: ll.DataSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = find_bench(str(base), data)
    spec = plan_run(bench, ll.LoraSpec(r=2))
    assert spec.base_sha256 == bench.base_sha256()
    assert spec.data is not None
    assert len(spec.data.sha256) == 64
    monkeypatch.chdir(Path(data.path).parent)
    assert plan_run(find_bench(str(base), replace(data, path="films.csv")), ll.LoraSpec(r=2)) == spec


def test_other_bytes_of_data_are_another_run(base: Path, data: ll.DataSpec) -> None:
    bench = find_bench(str(base), data)
    before = plan_run(bench, ll.LoraSpec(r=2))
    write_csv(Path(data.path), [*ROWS, ROWS[0]])
    assert plan_run(bench, ll.LoraSpec(r=2)).run_id != before.run_id


def test_data_that_changed_since_the_plan_are_refused(base: Path, data: ll.DataSpec, tmp_path: Path) -> None:
    spec = plan_run(find_bench(str(base), data), ll.LoraSpec(r=2), steps=1)
    write_csv(Path(data.path), [*ROWS, ROWS[0]])
    with pytest.raises(DataError):
        list(train_events(spec, tmp_path))


# What is no bench


def no_config(folder: Path) -> str:
    (folder / "empty").mkdir()
    return str(folder / "empty")


def no_weights(folder: Path) -> str:
    BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=8).save_pretrained(folder / "config only")
    return str(folder / "config only")


def unknown_model(folder: Path) -> str:
    (folder / "unknown").mkdir()
    (folder / "unknown" / "config.json").write_text('{"model_type": "no such architecture"}')
    return str(folder / "unknown")


@pytest.mark.usefixtures("no_hub")
@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (no_config, ("config.json",)),
        (no_weights, ("safetensors",)),
        (unknown_model, ("transformers",)),
        (lambda folder: str(folder / "nowhere"), ("folder", "Hub id")),
        (lambda folder: "./nowhere", ("folder", "./nowhere")),
        (lambda folder: "../nowhere", ("folder", "../nowhere")),
        (lambda folder: "somebody/some-model", ("somebody/some-model", "no folder here", "does not answer")),
    ],
    ids=["no config", "no weights", "unknown model", "no folder", "no ./folder", "no ../folder", "a Hub id without a Hub"],
)
def test_a_bad_base_is_refused_in_one_sentence(
    make: Callable[[Path], str], parts: tuple[str, ...], tmp_path: Path, data: ll.DataSpec
) -> None:
    with pytest.raises((DataError, AssetError)) as caught:
        plan_run(find_bench(make(tmp_path), data), ll.LoraSpec())
    assert_one_sentence(caught.value, *parts)


def test_an_unknown_bench_is_told_the_names_there_are() -> None:
    with pytest.raises(DataError) as caught:
        find_bench("digit")
    assert_one_sentence(caught.value, "'digit'", "digits:inverted", "reviews")


@pytest.mark.parametrize("name", ["digits", "reviews"])
def test_a_bench_of_the_lab_takes_no_data(name: str, data: ll.DataSpec) -> None:
    with pytest.raises(DataError) as caught:
        find_bench(name, data)
    assert_one_sentence(caught.value, f"bench {name} has its own data", "films.csv")


def test_a_base_of_ones_own_needs_data(base: Path) -> None:
    with pytest.raises(DataError) as caught:
        plan_run(find_bench(str(base)), ll.LoraSpec())
    assert_one_sentence(caught.value, "needs a data file")


def test_a_folder_is_one_base_however_it_is_spelled(base: Path, data: ll.DataSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(base.parent)
    spelled = (str(base), f"./{base.name}", f"../{base.parent.name}/{base.name}")
    assert len({plan_run(find_bench(name, data), ll.LoraSpec(r=2)).run_id for name in spelled}) == 1
