"""Rows of a text task, before any tokenizer has seen them."""

from dataclasses import dataclass
from typing import Literal

TextKind = Literal["classification", "regression", "completion"]
Cell = str | int | float | None


@dataclass(frozen=True, slots=True)
class Table:
    """A table as a database takes it: a type of SQLite (TEXT, INTEGER, REAL) a column, a tuple of cells a row."""

    name: str
    columns: tuple[str, ...]
    types: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True, slots=True)
class Labelled:
    """A text, or a pair of them, with the index of its label, or a number to be predicted."""

    text: str
    label: int | float
    pair: str | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """A prompt and what should follow it; plain text has an empty prompt.

    Attributes:
        prompt: what the model reads, to the last character before its answer.
        completion: what it is trained to write; the loss is on this alone.
        references: every answer that is right, for BLEU; the completion alone where empty.
        table: what a query is run on, where the completion is one.
    """

    prompt: str
    completion: str
    references: tuple[str, ...] = ()
    table: Table | None = None


@dataclass(frozen=True, slots=True)
class TextData:
    """A task of text whole: its kind, how it is scored, and its three splits.

    Attributes:
        kind: what its rows are: Labelled for classification and regression, else Completion.
        metric: a name of `METRICS`; empty where the loss is all there is.
        label_names: of a classification, in the order of the labels.
    """

    kind: TextKind
    metric: str
    train: tuple[Labelled, ...] | tuple[Completion, ...]
    validation: tuple[Labelled, ...] | tuple[Completion, ...]
    test: tuple[Labelled, ...] | tuple[Completion, ...]
    label_names: tuple[str, ...] = ()
