"""The user's own: any sequence-classification base, from a folder or the Hub, with a CSV or JSONL file of text and label."""

import csv
import json
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from lora_lab.assets import HUB_ID, Notify, hub_snapshot
from lora_lab.benches.bench import Bench, Defaults, Splits, halved, shuffled
from lora_lab.benches.text import classifier, tokenised
from lora_lab.errors import DataError
from lora_lab.specs import DataSpec

HELD_OUT_SHARE = 0.2
_WANTED = ("config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer*", "vocab*", "merges.txt", "*.model")


@dataclass(frozen=True, slots=True)
class Examples:
    """Texts with the index of their label; labels sorted by name."""

    texts: tuple[str, ...]
    labels: tuple[int, ...]
    label_names: tuple[str, ...]


def read_examples(data: DataSpec) -> Examples:
    """The rows of a data file.

    Raises:
        DataError: no such file, neither CSV nor JSONL, no rows, a missing column, an empty cell, or fewer than two labels.
    """
    path = Path(data.path)
    rows = _rows(data.path)
    if not rows:
        raise DataError(f"The data file must have at least one row. Got {str(path)!r}, which has none.")
    for parameter, column in (("text_column", data.text_column), ("label_column", data.label_column)):
        if column not in rows[0]:
            raise DataError(f"The {parameter} must be one of {', '.join(map(str, rows[0]))}. Got {column!r}.")
    texts = [_cell(path, i, row, data.text_column) for i, row in enumerate(rows, 1)]
    raw = [_cell(path, i, row, data.label_column) for i, row in enumerate(rows, 1)]
    names = sorted(Counter(raw))
    if len(names) < 2:
        raise DataError(f"The label_column must hold at least two different labels. Got only {names[0]!r}.")
    if len(rows) < 10:
        raise DataError(f"The data file must have at least 10 rows, to hold some out. Got {len(rows)}.")
    return Examples(tuple(texts), tuple(names.index(label) for label in raw), tuple(names))


def _rows(given: str) -> list[dict[str, Any]]:
    path = Path(given)
    if not path.is_file():
        raise DataError(f"The data file must be a CSV or JSONL file that exists. Got {given!r}.")
    readers = {".csv": _read_csv, ".jsonl": _read_jsonl}
    if path.suffix.lower() not in readers:
        raise DataError(f"The data file must end in .csv or .jsonl. Got {path.name!r}.")
    try:
        return readers[path.suffix.lower()](path)
    except (UnicodeDecodeError, csv.Error) as err:
        raise DataError(f"The data file must be text in UTF-8. {path.name!r} is not: {err}.") from None


def _read_csv(path: Path) -> list[dict[str, Any]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def _read_jsonl(path: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if not isinstance(row, dict):
                raise DataError(f"Each line of the data file must be a JSON object. Line {number} of {path.name!r} is not.")
            rows.append(row)
    return rows


def _cell(path: Path, number: int, row: dict[str, Any], column: str) -> str:
    value = row.get(column)
    if value is None or not str(value).strip():
        raise DataError(f"The {column} column must be filled in every row. Row {number} of {path.name!r} leaves it empty.")
    return str(value)


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
        self._examples()  # a data file that cannot be used is refused before a base is fetched for it
        super().prepare(notify=notify)

    def build(self, *, meta: bool = False) -> PreTrainedModel:
        labels = self._examples().label_names
        model = classifier(self.base_folder(), num_labels=len(labels), meta=meta)
        if model.config.pad_token_id is None:
            model.config.pad_token_id = model.config.eos_token_id
        return model

    def _examples(self) -> Examples:
        if self.data is None:
            raise DataError(f"A base of your own needs a data file (--data FILE.csv). Got {self.name!r} alone.")
        return read_examples(self.data)

    def splits(self) -> Splits:
        examples = self._examples()
        split = tokenised(self.base_folder(), examples.texts, examples.labels)
        order = shuffled(len(split))
        cut = len(split) - max(1, round(HELD_OUT_SHARE * len(split)))
        return Splits(split.take(order[:cut]), *halved(split.take(order[cut:])))


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
