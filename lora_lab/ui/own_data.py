"""The user's own base and data: what stands under "yours…" on the Train page."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import gradio as gr

from lora_lab.assets import MINILM
from lora_lab.benches import smollm
from lora_lab.benches.custom import columns_of
from lora_lab.benches.hub_data import HUB_DATASETS
from lora_lab.benches.own_data import Columns, columns_named
from lora_lab.errors import LabError
from lora_lab.specs import COLUMNS, DataSpec, Task
from lora_lab.ui.selection import Selection

BASES = (MINILM.hub_id, smollm.HUB_ID)  # that are to be had without the Hub too
TASKS = {
    "as the columns tell": "",
    "classification": "classification",
    "regression": "regression",
    "completion": "completion",
    "plain text": "text",
}
CONTROLS = 4 + len(COLUMNS)
_LABELS = {
    "text_column": "Text column",
    "label_column": "Label column",
    "pair_column": "Second text",
    "prompt_column": "Prompt column",
    "completion_column": "Completion column",
}


class OwnData:
    """A base, its data, what they are read as, and the columns that this takes.

    Attributes:
        box: what holds the controls.
        controls: what a handler reads, `CONTROLS` of them, in the order in which `chosen` takes and `values` gives them.
        told: what `shown` writes to.
    """

    def __init__(self) -> None:
        open_to_any: dict[str, Any] = {"allow_custom_value": True, "filterable": True, "min_width": 120}
        with gr.Column(visible=False, elem_classes="lab-own", elem_id="own") as self.box:
            self.base = gr.Dropdown(list(BASES), value=None, label="Base: a folder or a Hub id", elem_id="own-base", **open_to_any)
            self.named = gr.Dropdown(
                list(HUB_DATASETS), value=None, label="Data: a dataset's name or Hub id", elem_id="own-named", **open_to_any
            )
            self.file = gr.File(label="or a file, CSV or JSONL", file_types=[".csv", ".jsonl"], type="filepath", height=132)
            tasks = list(TASKS.items())
            self.task = gr.Radio(tasks, value="", label="Read as", elem_classes="lab-chips", elem_id="own-task")
            with gr.Row(elem_id="own-columns"):
                self.columns = [
                    gr.Dropdown([], value=_default(column), label=_LABELS[column], visible=False, **open_to_any)
                    for column in COLUMNS
                ]
        self.controls = [self.base, self.named, self.file, self.task, *self.columns]
        self.told = [self.task, *self.columns]

    def events(self) -> list[Callable[..., Any]]:
        """What to listen to: a file given puts a name away, and a name a file."""
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        uploaded = self.file.upload(lambda: None, None, self.named, **quiet)
        named = self.named.input(lambda name, file: None if name else file, [self.named, self.file], self.file, **quiet)
        changed = [control.input for control in (self.base, self.task, *self.columns)]
        return [uploaded.then, self.file.clear, named.then, *changed]


def values(selection: Selection) -> list[Any]:
    """The selection in the controls; data that an address names are named, not uploaded once more."""
    uploaded = gr.utils.is_in_or_equal(selection.data, gr.utils.get_upload_folder()) if selection.data else False
    name, file = (None, selection.data) if uploaded else (selection.data or None, None)
    return [selection.base or None, name, file, selection.task, *(getattr(selection, column) for column in COLUMNS)]


def chosen(selection: Selection, said: Sequence[Any]) -> Selection:
    """The selection with what the controls say."""
    base, name, file, task, *columns = said
    named: dict[str, Any] = {column: text or _default(column) for column, text in zip(COLUMNS, columns, strict=True)}
    return replace(selection, base=(base or "").strip(), data=file or (name or "").strip(), task=task or "", **named)


def shown(selection: Selection) -> list[Any]:
    """The columns that the task takes, to be picked among those there are; a dataset that has a name here needs none."""
    columns = _columns(selection)
    there = [(name, name) for name in columns.there]
    fields = [
        gr.Dropdown(
            choices=[("none", ""), *there] if column == "pair_column" else there,
            visible=column in columns.named_by,
        )
        for column in COLUMNS
    ]
    return [gr.Radio(visible=selection.data not in HUB_DATASETS), *fields]


def _columns(selection: Selection) -> Columns:
    """As the data tell; where they cannot be read, what the task would take."""
    task: Task = cast(Task, selection.task)
    if not (selection.is_own and selection.data):
        return Columns((), task, ())
    try:
        return columns_of(cast(DataSpec, selection.data_spec))
    except LabError:
        return Columns((), task, columns_named(task))


def _default(column: str) -> str:
    return str(getattr(Selection, column))
