"""The user's own: any sequence-classification base, from a folder or the Hub, with a CSV or JSONL file of text and label."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from lora_lab.assets import HUB_ID, Notify, hub_snapshot
from lora_lab.benches.bench import Bench, Defaults, Split
from lora_lab.benches.examples import TextData
from lora_lab.benches.own_data import LEAST_ROWS, file_rows, label_names, labelled, read_data, require_column
from lora_lab.benches.text import classifier, tokenised
from lora_lab.errors import DataError
from lora_lab.specs import DataSpec

_WANTED = ("config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer*", "vocab*", "merges.txt", "*.model")


@dataclass(frozen=True, slots=True)
class Examples:
    """Texts with the index of their label; labels sorted by name."""

    texts: tuple[str, ...]
    labels: tuple[int, ...]
    label_names: tuple[str, ...]


def read_examples(data: DataSpec) -> Examples:
    """The rows of a data file of texts and labels, in their order there.

    Raises:
        DataError: no such file, neither CSV nor JSONL, no rows, a missing column, an empty cell, or fewer than two labels.
    """
    rows = file_rows(data.path)
    for parameter, column in (("text_column", data.text_column), ("label_column", data.label_column)):
        require_column(parameter, column, rows.columns)
    names = label_names([rows], data)
    if len(rows.rows) < LEAST_ROWS:
        raise DataError(f"The data file must have at least {LEAST_ROWS} rows, to hold some out. Got {len(rows.rows)}.")
    return _examples(labelled(rows, data, names), names)


def _examples(rows: Iterable[Any], names: tuple[str, ...]) -> Examples:
    pairs = [(row.text, row.label) for row in rows]
    return Examples(tuple(text for text, _ in pairs), tuple(label for _, label in pairs), names)


class CustomBench(Bench):
    """A base of the user's choice; a head with one output a label is trained in full beside the adapter."""

    def base_folder(self, *, notify: Notify = lambda _: None) -> Path:
        folder = Path(self.name)
        if folder.is_dir():
            if not (folder / "config.json").is_file():
                raise DataError(f"The base must be a folder with a config.json. Got {self.name!r}.")
            return folder
        if not HUB_ID.fullmatch(self.name):
            raise DataError(f"The bench must be a name of the lab's, a folder or a Hub id. Got {self.name!r}.")
        return _snapshot(self.name)

    def prepare(self, *, notify: Notify = lambda _: None) -> None:
        self._text_data()  # a data file that cannot be used is refused before a base is fetched for it
        super().prepare(notify=notify)

    def build(self, *, meta: bool = False) -> PreTrainedModel:
        labels = self._text_data().label_names
        model = classifier(self.base_folder(), num_labels=len(labels), meta=meta)
        if model.config.pad_token_id is None:
            model.config.pad_token_id = model.config.eos_token_id
        return model

    def _text_data(self) -> TextData:
        if self.data is None:
            raise DataError(f"A base of your own needs a data file (--data FILE.csv). Got {self.name!r} alone.")
        read = read_data(self.data)
        if read.kind != "classification":
            raise DataError(f"The data of a base of your own must be texts with labels. Got {self.data.path!r}, of another kind.")
        return read

    def splits(self) -> tuple[Split, Split]:
        data = self._text_data()
        return self._split(data, data.train), self._split(data, (*data.validation, *data.test))

    def _split(self, data: TextData, rows: Iterable[Any]) -> Split:
        examples = _examples(rows, data.label_names)
        return tokenised(self.base_folder(), examples.texts, examples.labels)


@cache
def _snapshot(hub_id: str) -> Path:
    """Asked once a process: a page asks for the base at every click."""
    return hub_snapshot(hub_id, _WANTED)


def custom_bench(base: str, data: DataSpec | None) -> CustomBench:
    """A bench from a folder or Hub id and a data file; a folder is one bench however its path is spelled."""
    folder = Path(base).expanduser()
    base = str(folder.resolve()) if folder.is_dir() else base
    return CustomBench(
        name=base,
        title=Path(base).name,
        about=f"{Path(base).name} learns the labels of {Path(data.path).name if data else 'your file'}.",
        defaults=Defaults(steps=200, batch_size=16, learning_rate=1e-3),
        trains_head=True,
        task_type="SEQ_CLS",
        data=data,
    )
