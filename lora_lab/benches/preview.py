"""What a task of text looks like before anything is trained on it: its first rows, its labels, and how long they are."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lora_lab.benches.bench import Bench
from lora_lab.benches.examples import Completion, Labelled, TextData
from lora_lab.benches.own_data import task_of
from lora_lab.benches.text import row_lengths
from lora_lab.errors import DataError
from lora_lab.specs import Task

BINS = 20
MOST_COUNTED = 5_000  # training rows whose tokens are counted: a dataset may have half a million
CountTokens = Callable[[Sequence[Labelled | Completion]], list[int]]


@dataclass(frozen=True, slots=True)
class Preview:
    """A task of text at a glance. Lengths are of whole rows, a prompt with its completion, a text with its pair.

    Attributes:
        metric: what a run on it is scored by, a name of `METRICS`; empty where the loss is all there is.
        examples: the first training rows, as (what the model reads, what it should answer).
        label_counts: training rows a label, in the order of the labels; empty where there are no labels.
        counted_rows: the training rows that the lengths are of: the first so many.
        edges_tokens: the bounds of the bins, one more than there are bins; a bin holds its lower bound and not its upper.
        bin_counts: counted rows a bin.
        cut_rows: counted rows longer than `max_tokens`: a text loses its end there, a completion the beginning of its prompt;
            plain text goes on in another row.
    """

    task: Task
    metric: str
    train_rows: int
    validation_rows: int
    test_rows: int
    examples: tuple[tuple[str, str], ...]
    label_counts: tuple[tuple[str, int], ...]
    counted_rows: int
    edges_tokens: tuple[int, ...]
    bin_counts: tuple[int, ...]
    longest_tokens: int
    mean_tokens: float
    max_tokens: int
    cut_rows: int


def preview_of(bench: Bench, *, rows: int = 5) -> Preview:
    """Look at what a bench trains on, as its base's tokenizer counts it.

    Raises:
        LabError: its data are no text, or cannot be had or used.
    """
    data = bench.text_data()
    if data is None or bench.max_tokens is None:
        raise DataError(f"A preview must be of a task of text. The data of the bench {bench.name} are pictures.")
    folder = bench.base_folder()
    return preview(data, lambda counted: row_lengths(folder, counted), max_tokens=bench.max_tokens, rows=rows)


def preview(data: TextData, count_tokens: CountTokens, *, max_tokens: int, rows: int = 5) -> Preview:
    """Look at a task of text.

    Args:
        data: the task; its train split has at least one row.
        count_tokens: the number of tokens of each row, as the base's tokenizer counts them.
        max_tokens: what a row is cut to when it is trained on.
        rows: how many rows to show.
    """
    lengths = count_tokens(data.train[:MOST_COUNTED])
    edges = bin_edges(max(lengths))
    return Preview(
        task=task_of(data),
        metric=data.metric,
        train_rows=len(data.train),
        validation_rows=len(data.validation),
        test_rows=len(data.test),
        examples=tuple(_read_and_answer(row, data.label_names) for row in data.train[:rows]),
        label_counts=_label_counts(data),
        counted_rows=len(lengths),
        edges_tokens=edges,
        bin_counts=_histogram(lengths, edges),
        longest_tokens=max(lengths),
        mean_tokens=sum(lengths) / len(lengths),
        max_tokens=max_tokens,
        cut_rows=sum(length > max_tokens for length in lengths),
    )


def bin_edges(longest_tokens: int) -> tuple[int, ...]:
    """Bounds of at most `BINS` bins of one whole width, from 0 to past the longest.

    >>> bin_edges(3)
    (0, 1, 2, 3, 4)
    >>> bin_edges(100)[-3:]
    (90, 96, 102)
    """
    width = longest_tokens // BINS + 1
    return tuple(range(0, longest_tokens + width + 1, width))


def _histogram(lengths: Sequence[int], edges: Sequence[int]) -> tuple[int, ...]:
    found = Counter(length // edges[1] for length in lengths)
    return tuple(found[i] for i in range(len(edges) - 1))


def _read_and_answer(row: Labelled | Completion, names: Sequence[str]) -> tuple[str, str]:
    if isinstance(row, Completion):
        return row.prompt, row.completion
    read = row.text if row.pair is None else f"{row.text}\n{row.pair}"
    return read, names[int(row.label)] if names else str(row.label)


def _label_counts(data: TextData) -> tuple[tuple[str, int], ...]:
    found = Counter(row.label for row in data.train if isinstance(row, Labelled))
    return tuple((name, found[i]) for i, name in enumerate(data.label_names))
