"""The user's own data: a CSV or JSONL file, a dataset of the Hub, or a name of `HUB_DATASETS`, as a task of text."""

import csv
import hashlib
import json
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lora_lab.assets import HUB_ID, handed_over, on_disk, sha256_of
from lora_lab.benches.examples import Completion, Labelled, TextData
from lora_lab.benches.hub_data import HUB_DATASETS, Example, Row, cut, hub_rows, hub_share, load_named
from lora_lab.errors import DataError
from lora_lab.specs import COLUMNS, DataSpec, Task

LEAST_ROWS = 10
_FILE_ENDINGS = (".csv", ".jsonl")
_HUB_DATA = re.compile(rf"{HUB_ID.pattern}(:[\w.-]+)?")
_SPLIT_NAMES = {"validation": ("validation", "valid", "val", "dev"), "test": ("test", "testing", "eval")}
_METRICS: dict[Task, str] = {"classification": "accuracy", "regression": "pearson", "completion": "bleu", "text": ""}


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one place, and what the place is called in a sentence."""

    rows: Sequence[Row]
    called: str

    @property
    def columns(self) -> list[str]:
        return list(map(str, self.rows[0]))

    def cells(self, column: str) -> list[str]:
        """The column as text.

        Raises:
            DataError: a row leaves it empty.
        """
        return [self._cell(number, row.get(column), column) for number, row in enumerate(self.rows, 1)]

    def _cell(self, number: int, value: object, column: str) -> str:
        if value is None or not str(value).strip():
            raise DataError(f"The {column} column must be filled in every row. Row {number} of {self.called} leaves it empty.")
        return str(value)


def is_file(path: str) -> bool:
    """Whether a data path means a file, be it there or not, and no dataset of the Hub.

    >>> is_file("data/mine.csv"), is_file("glue:sst2"), is_file("stanfordnlp/imdb")
    (True, False, False)
    """
    if path in HUB_DATASETS:
        return False
    return Path(path).suffix.lower() in _FILE_ENDINGS or on_disk(path) is not None or not _HUB_DATA.fullmatch(path)


def place_of(path: str) -> Path:
    """Where the file of a data path is: under that path, or where this process was handed it over."""
    return handed_over(path) or Path(path)


def read_data(data: DataSpec) -> TextData:
    """The data as a task: labels sorted by name, completions, or plain text as completions of nothing.

    Of a file a tenth is held out for validation and a tenth for testing, always the same rows. A dataset of the Hub keeps its
    own splits; where it has but one of the two, that is the test.

    Raises:
        DataError: what is read cannot be used; the sentence says why.
        AssetError: a dataset of the Hub that can be had neither there nor from the cache.
    """
    if data.path in HUB_DATASETS:
        return _named(data)
    if is_file(data.path):
        rows = file_rows(data.path)
        task = _told(rows, data)
        examples, names = _read([rows], task, data)
        return _text_data(task, _three(examples[0], "The data file"), names)
    return _from_hub(data)


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns that data have, the task that is read of them, and the parameters of DataSpec that name what it takes.

    A dataset of `HUB_DATASETS` knows its own columns: none is there to be chosen, and none has to be named.
    """

    there: tuple[str, ...]
    task: Task
    named_by: tuple[str, ...]


def read_columns(data: DataSpec) -> Columns:
    """What there is to choose of a file or dataset, whether or not what is chosen can be read.

    Raises:
        DataError: there are no rows to look at.
        AssetError: a dataset of the Hub that can be had neither there nor from the cache.
    """
    if data.path in HUB_DATASETS:
        return Columns((), HUB_DATASETS[data.path].kind, ())
    rows = file_rows(data.path) if is_file(data.path) else Rows(_train_rows(data.path), repr(data.path))
    task = _told(rows, data)
    return Columns(tuple(rows.columns), task, columns_named(task))


def columns_named(task: Task) -> tuple[str, ...]:
    """The parameters of DataSpec that name the columns of a task; a second text is read where it is named.

    >>> columns_named("completion"), columns_named("regression")
    (('prompt_column', 'completion_column'), ('text_column', 'label_column', 'pair_column'))
    """
    return {"completion": COLUMNS[3:], "text": COLUMNS[:1]}.get(task, COLUMNS[:3])


def resolved(data: DataSpec) -> DataSpec:
    """The spec with its task told, and pinned: the hash of a file and its full path, or of the rows that the Hub gives.

    Columns that the task has no use for are named as by default: they make no other run.

    Raises:
        DataError: the data cannot be used.
        AssetError: they cannot be had.
    """
    read = read_data(data)
    task = task_of(read)
    named, default = () if data.path in HUB_DATASETS else columns_named(task), DataSpec(path=data.path)
    data = replace(data, **{column: getattr(default, column) for column in COLUMNS if column not in named})
    if is_file(data.path):
        sha256 = sha256_of(place_of(data.path))
        return replace(data, path=str(Path(data.path).resolve()), task=task, sha256=sha256)
    return replace(data, task=task, sha256=_sha256_of_rows(read))


def task_of(read: TextData) -> Task:
    """What the rows are read as: plain text is completions of nothing, scored by nothing but the loss."""
    first = read.train[0]
    return "text" if isinstance(first, Completion) and not (first.prompt or read.metric) else read.kind


def _sha256_of_rows(read: TextData) -> str:
    digest = hashlib.sha256(repr((read.kind, read.label_names)).encode())
    for split in (read.train, read.validation, read.test):
        digest.update(f"{len(split)}\n".encode())
        for row in split:
            digest.update(repr(row).encode())
    return digest.hexdigest()


def _named(data: DataSpec) -> TextData:
    kind = HUB_DATASETS[data.path].kind
    if data.task not in ("", kind):
        raise DataError(f"The task of {data.path} must be {kind}. Got {data.task!r}.")
    return load_named(data.path)


def _from_hub(data: DataSpec) -> TextData:
    given = hub_rows(data.path)
    _need_train(given, data.path)
    splits = {"train": given["train"]} | _held_out(given)
    parts = [Rows(rows, f"{data.path!r} ({name})") for name, rows in splits.items()]
    task = _told(parts[0], data)
    examples, names = _read(parts, task, data)
    read = dict(zip(splits, examples, strict=True))
    return _text_data(task, _three(read["train"], f"The train split of {data.path!r}", read), names)


def _need_train(given: Mapping[str, list[Row]], path: str) -> None:
    if "train" not in given:
        raise DataError(f"A dataset of the Hub must have a split named train, with labels. {path!r} has {', '.join(given)}.")


def _train_rows(path: str) -> list[Row]:
    given = hub_rows(path)
    _need_train(given, path)
    return given["train"]


def _held_out(given: Mapping[str, list[Row]]) -> dict[str, list[Row]]:
    """What a dataset holds out itself, by our names for it."""
    found = {ours: [given[name] for name in names if name in given] for ours, names in _SPLIT_NAMES.items()}
    return {ours: rows[0] for ours, rows in found.items() if rows}


def _three(train: tuple[Any, ...], called: str, given: Mapping[str, tuple[Any, ...]] | None = None) -> dict[str, Any]:
    """The three splits, what is not given cut from train."""
    given = given or {}
    if "validation" in given and "test" in given:
        return {"train": train, "validation": given["validation"], "test": given["test"]}
    if len(train) < LEAST_ROWS:
        raise DataError(f"{called} must have at least {LEAST_ROWS} rows, to hold some out. Got {len(train)}.")
    test = given.get("test") or given.get("validation")
    if test:
        train, validation = cut(train, hub_share(len(train)))
        return {"train": train, "validation": validation, "test": test}
    tenth = max(1, round(len(train) / 10))
    train, held_out = cut(train, 2 * tenth)
    return {"train": train, "validation": held_out[:tenth], "test": held_out[tenth:]}


def _text_data(task: Task, splits: Mapping[str, Any], names: tuple[str, ...]) -> TextData:
    kind = "completion" if task in ("completion", "text") else task
    return TextData(kind, _METRICS[task], **splits, label_names=names)  # type: ignore[arg-type]


def _told(rows: Rows, data: DataSpec) -> Task:
    """The task that the spec names, or the one that the columns tell; a column that the user names is one they mean to use."""
    if data.task:
        return data.task
    there = set(rows.columns)
    answers = {data.prompt_column, data.completion_column}
    if answers <= there or answers != {"prompt", "completion"}:
        return "completion"
    wants_labels = data.label_column != "label" or bool(data.pair_column)
    # beside other columns a label was meant, under another name
    return "text" if there == {data.text_column} and not wants_labels else "classification"


def _read(parts: Sequence[Rows], task: Task, data: DataSpec) -> tuple[list[tuple[Example, ...]], tuple[str, ...]]:
    """(the rows of each part as examples, the label names of a classification)."""
    for part in parts:
        _need_columns(part, task, data)
    if task == "classification":
        names = label_names(parts, data)
        return [labelled(part, data, names) for part in parts], names
    readers: dict[Task, Callable[[Rows, DataSpec], tuple[Example, ...]]] = {
        "regression": _scored,
        "completion": _completions,
        "text": _plain,
    }
    return [readers[task](part, data) for part in parts], ()


def _need_columns(rows: Rows, task: Task, data: DataSpec) -> None:
    for parameter in columns_named(task):
        if parameter != "pair_column" or data.pair_column:
            require_column(parameter, getattr(data, parameter), rows.columns)


def require_column(parameter: str, column: str, there: Collection[str]) -> None:
    """Refuse a column that is not there.

    Raises:
        DataError: it is not.
    """
    if column not in there:
        raise DataError(f"The {parameter} must be one of {', '.join(there)}. Got {column!r}.")


def label_names(parts: Sequence[Rows], data: DataSpec) -> tuple[str, ...]:
    """The labels of a classification, sorted by name.

    Raises:
        DataError: a text or a label is empty, or there are fewer than two labels.
    """
    for part in parts:
        part.cells(data.text_column)  # of two columns with empty cells the text's is told first
    names = sorted({label for part in parts for label in part.cells(data.label_column)})
    if len(names) < 2:
        raise DataError(f"The label_column must hold at least two different labels. Got only {names[0]!r}.")
    return tuple(names)


def labelled(rows: Rows, data: DataSpec, names: Sequence[str]) -> tuple[Labelled, ...]:
    """Texts, or pairs of them, with the index of their label."""
    index = {name: i for i, name in enumerate(names)}
    return _with(rows, data, [index[label] for label in rows.cells(data.label_column)])


def _scored(rows: Rows, data: DataSpec) -> tuple[Labelled, ...]:
    scores = [_score(rows, number, cell, data) for number, cell in enumerate(rows.cells(data.label_column), 1)]
    return _with(rows, data, scores)


def _with(rows: Rows, data: DataSpec, labels: Sequence[int | float]) -> tuple[Labelled, ...]:
    texts = rows.cells(data.text_column)
    pairs: Sequence[str | None] = rows.cells(data.pair_column) if data.pair_column else [None] * len(texts)
    return tuple(map(Labelled, texts, labels, pairs))


def _score(rows: Rows, number: int, cell: str, data: DataSpec) -> float:
    try:
        score = float(cell)
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        message = f"The {data.label_column} column of a regression must hold numbers. Row {number} of {rows.called} has {cell!r}."
        raise DataError(message)
    return score


def _completions(rows: Rows, data: DataSpec) -> tuple[Completion, ...]:
    return tuple(map(Completion, rows.cells(data.prompt_column), rows.cells(data.completion_column)))


def _plain(rows: Rows, data: DataSpec) -> tuple[Completion, ...]:
    return tuple(Completion("", text) for text in rows.cells(data.text_column))


def file_rows(given: str) -> Rows:
    """The rows of a CSV or JSONL file.

    Raises:
        DataError: no such file, neither CSV nor JSONL, not in UTF-8, a line that is no object, or no rows.
    """
    path = on_disk(place_of(given))
    if path is None or not path.is_file():
        also = f"the id of a dataset on the Hub, or one of {', '.join(HUB_DATASETS)}"
        raise DataError(f"The data file must be a CSV or JSONL file that exists, {also}. Got {given!r}.")
    readers = {".csv": _read_csv, ".jsonl": _read_jsonl}
    if path.suffix.lower() not in readers:
        raise DataError(f"The data file must end in .csv or .jsonl. Got {path.name!r}.")
    try:
        rows = readers[path.suffix.lower()](path)
    except (UnicodeDecodeError, csv.Error) as err:
        raise DataError(f"The data file must be text in UTF-8. {path.name!r} is not: {err}.") from None
    if not rows:
        raise DataError(f"The data file must have at least one row. Got {str(path)!r}, which has none.")
    return Rows(rows, repr(path.name))


def _read_csv(path: Path) -> list[Row]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def _read_jsonl(path: Path) -> list[Row]:
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
