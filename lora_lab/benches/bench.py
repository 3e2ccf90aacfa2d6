"""What every bench offers."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedModel

from lora_lab.assets import Notify, sha256_of
from lora_lab.benches.examples import TextData
from lora_lab.benches.task import Classification, Task
from lora_lab.errors import DataError
from lora_lab.events import Kept
from lora_lab.geometry import Geometry
from lora_lab.live_geometry import read_geometry
from lora_lab.specs import DataSpec


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a bench trains with where nothing else is said."""

    steps: int
    batch_size: int
    learning_rate: float
    threads: int | None = None  # CPU threads a run; None for every core. Small bases are faster on one


@dataclass(frozen=True)
class Split:
    """Examples as columns of tensors, one row an example, named as the model's forward names them; and what is asked of them.

    `examples` are the rows as people read them, where they are text.
    """

    columns: Mapping[str, Tensor]
    task: Task = field(default_factory=Classification)
    examples: tuple[Any, ...] = ()

    def __len__(self) -> int:
        return len(self.columns["labels"])

    def batch(self, rows: Int[Tensor, " n"]) -> dict[str, Tensor]:
        """These rows, text cut to the longest among them."""
        batch = {name: column[rows] for name, column in self.columns.items()}
        if "attention_mask" in batch:
            longest = int(batch["attention_mask"].sum(1).max())
            batch = {name: x if x.ndim == 1 else x[:, :longest] for name, x in batch.items()}
        return batch

    def take(self, rows: Int[Tensor, " n"]) -> "Split":
        """These rows as a split of their own."""
        columns = {name: column[rows] for name, column in self.columns.items()}
        return replace(self, columns=columns, examples=tuple(self.examples[row] for row in rows.tolist()) if self.examples else ())

    def by_length(self) -> Int[Tensor, " n"]:
        """Every row once, shortest text first, so that batches carry little padding."""
        if "attention_mask" not in self.columns:
            return torch.arange(len(self))
        return self.columns["attention_mask"].sum(1).argsort(stable=True)


class Splits(NamedTuple):
    """What is trained on, what a run is watched and a learning rate is chosen by, and what it is judged by at its end."""

    train: Split
    validation: Split
    test: Split


def halved(held_out: Split) -> tuple[Split, Split]:
    """(validation, test): the first half of what is held out, and the rest."""
    rows = torch.arange(len(held_out))
    half = len(held_out) // 2
    return held_out.take(rows[:half]), held_out.take(rows[half:])


@dataclass(frozen=True)
class Retention:
    """What tells whether a base still can what it could: the split to measure it on, and how.

    `accuracy`: the score on its old task. `loss`: in nats on a fixed text. `cosine`: of its mean-pooled last hidden states to
    those that the base gave.
    """

    kept: Kept
    split: Split


@dataclass(frozen=True)
class Bench(ABC):
    """A base with a task. Where the base has no head for it (`trains_head`), one is trained in full beside the adapter.

    Subclasses say where the base's folder is, how to build the model, and what the splits are.
    """

    name: str
    title: str
    about: str
    defaults: Defaults
    trains_head: bool = False
    task_type: str | None = None
    data: DataSpec | None = field(default=None)

    base_name: ClassVar[str] = ""  # what adapter_config.json calls the base; the folder where this is empty
    max_tokens: ClassVar[int | None] = None  # that a row of text may have; None where the data are no text

    @abstractmethod
    def base_folder(self, *, notify: Notify = lambda _: None) -> Path:
        """The folder with the base's config.json and weights, fetched if need be."""

    @abstractmethod
    def build(self, *, meta: bool = False) -> PreTrainedModel:
        """A fresh model on the CPU with the base's weights, in eval mode; on the meta device, without them, if asked."""

    @abstractmethod
    def splits(self) -> Splits:
        """The three splits; always the same rows in the same order."""

    def text_data(self) -> TextData | None:
        """The rows of the splits before any tokenizer has seen them; None where they are no text.

        Raises:
            LabError: they cannot be had or used.
        """
        return None

    def retention(self) -> Retention | None:
        """What the base could before; None where nobody says."""
        return None

    def label_names(self) -> tuple[str, ...]:
        """What people call the labels, in their order; empty where there are none."""
        return ()

    def note(self) -> str:
        """What there is to know of the base's weights, one sentence; empty where they are the published ones."""
        return ""

    def said_base_name(self) -> str:
        """What adapter_config.json calls the base: a Hub id, or the folder where it has none."""
        return self.base_name or str(self.base_folder().resolve())

    def geometry(self) -> Geometry:
        """The base's matrices, without its weights."""
        return read_geometry(self.build(meta=True))

    def head_modules(self, geometry: Geometry) -> tuple[str, ...]:
        """The modules trained in full beside the adapter.

        Raises:
            DataError: a head has to be trained, and none is found.
        """
        heads = geometry.head_modules() if self.trains_head else ()
        if self.trains_head and not heads:
            raise DataError(f"The base must have a classification head whose module is known here. {self.name!r} has none.")
        return heads

    def base_sha256(self) -> str:
        """The SHA-256 of the base's weights; of the shards' hashes, in order, where they are sharded."""
        shards = sorted(self.base_folder().glob("*.safetensors"))
        if not shards:
            raise DataError(f"The base must be a folder with weights in safetensors. Got {str(self.base_folder())!r}.")
        if len(shards) == 1:
            return sha256_of(shards[0])
        return _sha256_of_text("".join(map(sha256_of, shards)))

    def supplies(self) -> Mapping[str, Path]:
        """The folders and files beyond this package that training reads, by the names that it asks `handed_over` for.

        Raises:
            LabError: they cannot be had.
        """
        return {self.base_name: self.base_folder()}

    def prepare(self, *, notify: Notify = lambda _: None) -> None:
        """Fetch whatever training will need, telling `notify` what takes time.

        Raises:
            AssetError: it cannot be had.
        """
        self.base_folder(notify=notify)


def _sha256_of_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def shuffled(n: int, *, seed: int = 0) -> Int[Tensor, " n"]:
    """A fixed permutation of 0..n-1."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))
