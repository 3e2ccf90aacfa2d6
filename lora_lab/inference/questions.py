"""What a bench's test split asks, one example at a time, as a person would ask it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from torch import Tensor

from lora_lab.benches import Bench, Split
from lora_lab.benches.examples import Completion, Labelled
from lora_lab.benches.task import Regression
from lora_lab.benches.text import completions, tokenised
from lora_lab.benches.writing import Writing, prompt_ids
from lora_lab.errors import DataError, out_of_range

AnswerKind = Literal["text", "labels", "number"]
_OPENING_WORDS = 12  # of plain text, which has no prompt of its own


@dataclass(frozen=True, slots=True)
class Question:
    """One example of the test split: what is asked, and what is right.

    Attributes:
        row: which of the split's `rows` it is, from 0.
        text: what a model reads; empty where it is an image. The pair of a text follows it on a line of its own.
        pixels: of an image, rows of grey values from 0 to 1.
        example: what should be written, where something should.
        label: the index of the right label, or the right number.
    """

    row: int
    rows: int
    text: str = ""
    pixels: tuple[tuple[float, ...], ...] = ()
    example: Completion | None = None
    label: int | float | None = None

    @property
    def next_row(self) -> int:
        """The row after it; the first after the last."""
        return (self.row + 1) % self.rows


@lru_cache(maxsize=4)
def test_split(bench: Bench) -> Split:
    """The bench's test split, read once: a page asks for it at every click."""
    return bench.splits().test


def answer_kind(bench: Bench) -> AnswerKind:
    """Whether the bench's answers are written, are a share for every label, or a number."""
    task = test_split(bench).task
    if isinstance(task, Writing):
        return "text"
    return "number" if isinstance(task, Regression) else "labels"


def question_of(bench: Bench, row: int) -> Question:
    """The example of the bench's test split.

    Raises:
        DataError: the split has no such row.
        LabError: its data or its base cannot be had.
    """
    split = test_split(bench)
    if not 0 <= row < len(split):
        raise DataError(out_of_range("example", "the test split", f"a whole number in 0..{len(split) - 1}", row))
    if not split.examples:
        pixels = (split.columns["pixel_values"][row, 0] + 1) / 2
        return Question(row, len(split), pixels=tuple(map(tuple, pixels.tolist())), label=int(split.columns["labels"][row]))
    example: Completion | Labelled = split.examples[row]
    if isinstance(example, Labelled):
        return Question(row, len(split), "\n".join(filter(None, (example.text, example.pair))), label=example.label)
    example = _opened(example)
    return Question(row, len(split), example.prompt, example=example)


def _opened(example: Completion) -> Completion:
    """Plain text with its first words for a prompt; anything else as it is."""
    if example.prompt:
        return example
    words = example.completion.split(" ")
    opening, rest = (" ".join(part) for part in (words[:_OPENING_WORDS], words[_OPENING_WORDS:]))
    return replace(example, prompt=opening, completion=f" {rest}" if rest else "")


def written_prompt(bench: Bench, text: str, question: Question | None = None) -> list[int]:
    """The tokens that a model goes on from, cut as the bench cuts its own where the text is the question's.

    Raises:
        DataError: there is no text.
    """
    task = test_split(bench).task
    if not isinstance(task, Writing):
        raise DataError(f"A prompt goes to a bench that writes. Got {bench.title}.")
    example = question.example if question is not None and question.text == text else None
    asked = example or Completion(text, "")
    ids = prompt_ids(completions(task.folder, [asked], task), 0) if text.strip() else []
    if not ids:
        raise DataError("The prompt must have at least one word. Got an empty one.")
    return ids


def inputs_of(bench: Bench, question: Question, text: str) -> Mapping[str, Tensor]:
    """A batch of one for a classifier: the question's image, or the text that was typed.

    Where the bench's texts come in pairs, the first line is the text and what follows is its pair.

    Raises:
        DataError: there is no text.
    """
    split = test_split(bench)
    one = _image(split, question.row) if question.pixels else _typed(bench, split, text)
    return {name: column for name, column in one.columns.items() if name != "labels"}


def _image(split: Split, row: int) -> Split:
    return replace(split, columns={name: column[row : row + 1] for name, column in split.columns.items()})


def _typed(bench: Bench, split: Split, text: str) -> Split:
    if not text.strip():
        raise DataError("The text must have at least one word. Got an empty one.")
    has_pairs = any(example.pair is not None for example in split.examples)
    first, _, rest = text.partition("\n") if has_pairs else (text, "", "")
    return tokenised(bench.base_folder(), [Labelled(first, 0, rest if has_pairs else None)], split.task)
