"""Text for models: tokenised splits, and bases read from a folder, as classifiers with a fresh head or as language models."""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)

from lora_lab.benches.bench import Split
from lora_lab.benches.examples import Completion, Labelled
from lora_lab.benches.quiet import quiet_transformers
from lora_lab.benches.task import Task
from lora_lab.benches.writing import IGNORED, Writing, tokenizer_of
from lora_lab.errors import DataError

MAX_TOKENS = 128
MAX_WRITTEN_TOKENS = 512  # of a prompt with its completion


def classifier(folder: Path, *, num_labels: int, meta: bool = False) -> PreTrainedModel:
    """A sequence classifier on the base in the folder, its head untrained.

    Raises:
        DataError: transformers cannot make a sequence classifier of what is there.
    """
    try:
        with quiet_transformers():
            if meta:
                config = AutoConfig.from_pretrained(folder, num_labels=num_labels)
                with torch.device("meta"):
                    model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config)
                return model
            # The head is drawn here and drawn again, from the run's seed, when the adapter is attached.
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                model = AutoModelForSequenceClassification.from_pretrained(
                    folder, num_labels=num_labels, dtype=torch.float32, ignore_mismatched_sizes=True
                )
            return model
    except (ValueError, OSError, KeyError) as err:
        reason = str(err).splitlines()[0]
        raise DataError(f"The base in {str(folder)!r} must be one that transformers can classify with. It says: {reason}") from err


def tokenised(folder: Path, rows: Sequence[Labelled], task: Task) -> Split:
    """Texts, or pairs of them, as token ids, at most 128 of them, padded to the longest."""
    encoded = tokenizer_of(folder)(*_texts(rows), truncation=True, max_length=MAX_TOKENS, padding=True, return_tensors="pt")
    columns = {name: encoded[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in encoded}
    return Split({**columns, "labels": torch.tensor([row.label for row in rows])}, task, tuple(rows))


def _texts(rows: Sequence[Labelled]) -> list[list[str]]:
    """What a tokenizer is given: the texts, and their seconds where there are any."""
    pairs = [[row.pair or "" for row in rows]] if any(row.pair is not None for row in rows) else []
    return [[row.text for row in rows], *pairs]


def row_lengths(folder: Path, rows: Sequence[Labelled | Completion]) -> list[int]:
    """The tokens of each row as `tokenised` and `completions` lay it out, before anything is cut.

    Raises:
        DataError: the folder has no tokenizer.
    """
    tokenizer = tokenizer_of(folder)
    labelled = [row for row in rows if isinstance(row, Labelled)]
    if labelled:
        return list(map(len, tokenizer(*_texts(labelled), verbose=False)["input_ids"]))
    written = [row for row in rows if isinstance(row, Completion)]
    prompts, answers = [row.prompt for row in written], [row.completion for row in written]
    sides = [tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"] for texts in (prompts, answers)]
    return [len(prompt) + len(answer) + 1 for prompt, answer in zip(*sides, strict=True)]  # and the end of text


def language_model(folder: Path, *, meta: bool = False) -> PreTrainedModel:
    """The causal language model in the folder, in float32.

    Raises:
        DataError: transformers cannot make a causal language model of what is there.
    """
    try:
        with quiet_transformers():
            if meta:
                with torch.device("meta"):
                    model: PreTrainedModel = AutoModelForCausalLM.from_config(
                        AutoConfig.from_pretrained(folder), dtype=torch.float32
                    )
                return model
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
            return model
    except (ValueError, OSError, KeyError) as err:
        reason = str(err).splitlines()[0]
        raise DataError(f"The base in {str(folder)!r} must be one that transformers can write with. It says: {reason}") from err


def completions(folder: Path, examples: Sequence[Completion], task: Writing, *, max_tokens: int = MAX_WRITTEN_TOKENS) -> Split:
    """Prompts with their completions as token ids, an end of text after each, padded on the right; the loss is on the latter.

    What is longer than `max_tokens` loses the beginning of its prompt. Plain text, without a prompt, is cut into rows of so many
    tokens instead.
    """
    tokenizer = tokenizer_of(folder)
    rows: list[tuple[list[int], list[int], Completion]] = []
    for example in examples:
        prompt = tokenizer(example.prompt, add_special_tokens=False)["input_ids"] if example.prompt else []
        answer = [*tokenizer(example.completion, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        pieces = [answer[i : i + max_tokens] for i in range(0, len(answer), max_tokens)] if not prompt else [answer[:max_tokens]]
        rows += [(prompt[-(max_tokens - len(piece)) :] if max_tokens > len(piece) else [], piece, example) for piece in pieces]
    return _padded(rows, tokenizer.pad_token_id, task)


def _padded(rows: Sequence[tuple[list[int], list[int], Completion]], pad: int, task: Writing) -> Split:
    longest = max((len(prompt) + len(answer) for prompt, answer, _ in rows), default=1)
    shape = (len(rows), longest)
    ids, labels = torch.full(shape, pad), torch.full(shape, IGNORED)
    mask = torch.zeros(shape, dtype=torch.long)
    for row, (prompt, answer, _) in enumerate(rows):
        end = len(prompt) + len(answer)
        ids[row, :end], mask[row, :end] = torch.tensor([*prompt, *answer]), 1
        labels[row, len(prompt) : end] = torch.tensor(answer)
    columns = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    return Split(columns, task, tuple(example for *_, example in rows))
