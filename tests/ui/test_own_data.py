"""The handlers of one's own data, and of the card that shows what is in it."""

import csv
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from lora_lab.benches import find_bench
from lora_lab.benches.examples import Labelled, TextData
from lora_lab.specs import COLUMNS
from lora_lab.sweeps import RunStore
from lora_lab.ui import data_card, lab, own_data
from lora_lab.ui.data_card import rows_table
from lora_lab.ui.lab import Lab
from lora_lab.ui.selection import Selection
from lora_lab.ui.train import TrainView

OWN = Selection(bench="yours", r=(2,), seeds=(0,))
GRID = [["lora"], [2], "16", [0], None, 200, ["default"], "", "AdamW", 0, 8, 0]


@pytest.fixture
def view(tmp_path: Path) -> TrainView:
    return TrainView(Lab(RunStore(tmp_path / "runs")))


def write(path: Path, *columns: str, n: int = 20) -> str:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows([f"word{i % 7} is {'good' if (i + j) % 2 else 'bad'}" for j, _ in enumerate(columns)] for i in range(n))
    return str(path)


def visible(selection: Selection) -> set[str]:
    return {column for column, field in zip(COLUMNS, own_data.shown(selection)[1:], strict=True) if field.visible}


@pytest.mark.parametrize(
    ("columns", "task", "needed"),
    [
        (("prompt", "completion"), "", {"prompt_column", "completion_column"}),
        (("text", "label"), "", {"text_column", "label_column", "pair_column"}),
        (("text",), "", {"text_column"}),
        (("text", "label"), "text", {"text_column"}),
        (("text", "label"), "completion", {"prompt_column", "completion_column"}),
        (("a", "b"), "regression", {"text_column", "label_column", "pair_column"}),
    ],
)
def test_a_task_shows_the_columns_that_it_needs_and_no_others(
    columns: tuple[str, ...], task: str, needed: set[str], tmp_path: Path
) -> None:
    selection = replace(OWN, data=write(tmp_path / "a.csv", *columns), task=task)
    assert visible(selection) == needed
    fields = dict(zip(COLUMNS, own_data.shown(selection)[1:], strict=True))
    assert fields["text_column"].choices == [(column, column) for column in columns]
    assert fields["pair_column"].choices[0] == ("none", "")


def test_without_data_and_by_name_there_are_no_columns_to_name() -> None:
    assert visible(OWN) == set()
    named = replace(OWN, data="glue:sst2")
    assert visible(named) == set()
    assert not own_data.shown(named)[0].visible  # nor a task: it has one
    assert own_data.shown(OWN)[0].visible


def test_data_that_cannot_be_read_leave_the_tasks_columns_to_be_named(tmp_path: Path) -> None:
    assert visible(replace(OWN, data=str(tmp_path / "missing.csv"), task="completion")) == {"prompt_column", "completion_column"}


def test_controls_give_the_selection_and_take_it_back(tmp_path: Path) -> None:
    said = [" my/base ", "glue:mrpc", None, "completion", "t", "l", "", "p", None]
    selection = own_data.chosen(OWN, said)
    assert (selection.base, selection.data, selection.task) == ("my/base", "glue:mrpc", "completion")
    assert (selection.text_column, selection.pair_column, selection.prompt_column) == ("t", "", "p")
    assert selection.completion_column == "completion"  # an emptied field is what it was
    assert own_data.values(selection) == ["my/base", "glue:mrpc", None, "completion", "t", "l", "", "p", "completion"]
    assert len(said) == own_data.CONTROLS
    assert own_data.chosen(OWN, [None, None, "/a/file.csv", "", *[None] * 5]).data == "/a/file.csv"


def test_an_uploaded_file_stands_in_its_own_control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    uploaded, elsewhere = str(tmp_path / "ab" / "mine.csv"), "/data/mine.csv"
    assert own_data.values(replace(OWN, data=uploaded))[1:3] == [None, uploaded]
    assert own_data.values(replace(OWN, data=elsewhere))[1:3] == [elsewhere, None]


def test_a_writers_steps_stand_where_none_were_chosen(view: TrainView, tiny_writer: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "a.csv", "prompt", "completion")
    own = own_data.values(replace(OWN, base=str(tiny_writer), data=data))
    told = view.choose(OWN, "yours", *own, *GRID)  # 200 is what stood there before the data were known
    selection = told[0]
    assert selection.steps is None
    assert view.show_data(selection)[6].value == 100
    assert "1 run of 100 steps" in told[7]
    again = view.choose(selection, "yours", *own, *GRID[:5], 7, *GRID[6:])[0]
    assert again.steps == 7
    assert view.show_data(again)[6] == gr.skip()


@pytest.mark.parametrize("field", [{"task": "poetry"}, {"bench": "yours", "task": "poetry"}])
def test_an_address_with_another_task_falls_back(view: TrainView, field: dict[str, str]) -> None:
    restored = view.restore(SimpleNamespace(query_params=field))
    assert restored[0].task == ""


# The card


def test_pictures_have_no_card(view: TrainView) -> None:
    assert not view.show_data(Selection())[7].visible


def test_the_card_shows_the_record(view: TrainView, tiny_base: Path, tmp_path: Path) -> None:
    selection = replace(OWN, base=str(tiny_base), data=write(tmp_path / "a.csv", "text", "label"))
    box, rows, plot, says = view.show_data(selection)[7:]
    seen = view.lab.preview(find_bench(selection.bench_name, selection.data_spec))
    assert seen is not None
    assert box.visible
    assert list(plot.data[0].y) == list(seen.bin_counts)
    assert "16 rows to train on" in rows
    assert all(f"<td>{text}</td>" in rows for example in seen.examples for text in example)
    assert f"{seen.mean_tokens:.1f} tokens on average" in says


def test_what_cannot_be_had_has_no_card_and_a_base_without_tokenizer_a_sentence(
    view: TrainView, tiny_base: Path, tmp_path: Path
) -> None:
    data = write(tmp_path / "a.csv", "text", "label")
    assert not view.show_data(replace(OWN, base=str(tiny_base), data="missing.csv"))[7].visible
    assert not view.show_data(OWN)[7].visible
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_bytes((tiny_base / "config.json").read_bytes())
    box, rows, *_ = view.show_data(replace(OWN, base=str(bare), data=data))[7:]
    assert box.visible
    assert "must be a folder with a tokenizer" in rows


def test_tokens_are_counted_once_and_again_when_the_file_changes(
    view: TrainView, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    real = lab.preview_of
    monkeypatch.setattr(lab, "preview_of", lambda bench: (looked.append(bench.name), real(bench))[1])
    selection = replace(OWN, base=str(tiny_base), data=write(tmp_path / "a.csv", "text", "label"))
    for _ in range(3):
        view.show_data(selection)
    assert len(looked) == 1
    write(tmp_path / "a.csv", "text", "label", n=30)
    assert "24 rows to train on" in view.show_data(selection)[8]
    assert len(looked) == 2


def test_texts_of_strangers_are_escaped(view: TrainView) -> None:
    from lora_lab.benches.preview import preview

    rows = (Labelled("<script>alert(1)</script>", 0),)
    data = TextData("classification", "accuracy", rows, rows, rows, ("<b>", "b"))
    table = rows_table(preview(data, lambda rows: [1] * len(rows), max_tokens=9), "<i>")
    assert not any(tag in table for tag in ("<script>", "<b>", "<i>"))


def test_what_there_is_to_know_of_a_base_stands_under_its_name(view: TrainView, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lora_lab.benches.digits.DigitsBench.note", lambda self: "Not <the> published ones.")
    assert "Not &lt;the&gt; published ones." in view.show_costs(Selection())[2]
    assert data_card.shown(view.lab, Selection())[1] == ""


def test_each_own_field_is_in_the_address(tmp_path: Path) -> None:
    fields: dict[str, Any] = {"task": "text", "pair_column": "b", "prompt_column": "p", "completion_column": "c"}
    selection = replace(OWN, data="glue:sst2", **fields)
    assert all(f"{name}={value}" in selection.query() for name, value in fields.items())
    assert "data=glue:sst2" in selection.query()
