"""Text classification: tokenised splits, and a base read from a folder with a fresh head on it."""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
)

from lora_lab.benches.bench import Split
from lora_lab.benches.quiet import quiet_transformers
from lora_lab.errors import DataError

MAX_TOKENS = 128


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


def tokenised(folder: Path, texts: Sequence[str], labels: Sequence[int]) -> Split:
    """Texts as token ids, at most 128 of them, padded to the longest."""
    with quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    encoded = tokenizer(list(texts), truncation=True, max_length=MAX_TOKENS, padding=True, return_tensors="pt")
    columns = {name: encoded[name] for name in ("input_ids", "attention_mask")}
    return Split({**columns, "labels": torch.tensor(labels)})
