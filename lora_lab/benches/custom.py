"""The user's own: any base that transformers can classify or write with, and data of the user's choice."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, ClassVar

from transformers import PreTrainedModel

from lora_lab.assets import HUB_ID, MINILM, Notify, fetch, handed_over, hub_snapshot, on_disk
from lora_lab.benches import smollm
from lora_lab.benches.bench import Bench, Defaults, Retention, Splits
from lora_lab.benches.examples import TextData
from lora_lab.benches.own_data import Columns, is_file, place_of, read_columns, read_data
from lora_lab.benches.retention import fixed_text
from lora_lab.benches.task import Classification, Regression
from lora_lab.benches.text import MAX_TOKENS, MAX_WRITTEN_TOKENS, classifier, completions, language_model, tokenised
from lora_lab.benches.writing import Writing
from lora_lab.errors import DataError
from lora_lab.specs import DataSpec

_WANTED = ("config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer*", "vocab*", "merges.txt", "*.model")
_LAB_BASES: dict[str, Callable[[Notify], Path]] = {
    MINILM.hub_id: lambda notify: fetch(MINILM, notify=notify),
    smollm.HUB_ID: lambda notify: smollm.smollm_folder(notify=notify),
}
_MOST_VALIDATION, _MOST_TEST = 200, 400  # rows that a language model is scored on: each takes a second on a CPU


class CustomBench(Bench):
    """A base of the user's choice with their data; of a folder's model whatever its kind."""

    max_tokens: ClassVar[int | None] = MAX_TOKENS

    def base_folder(self, *, notify: Notify = lambda _: None) -> Path:
        folder = handed_over(self.name) or on_disk(self.name)
        if folder is not None and folder.is_dir():
            if not (folder / "config.json").is_file():
                raise DataError(f"The base must be a folder with a config.json. Got {self.name!r}.")
            return folder
        if not HUB_ID.fullmatch(self.name):
            raise DataError(f"The bench must be a name of the lab's, a folder or a Hub id. Got {self.name!r}.")
        return _LAB_BASES[self.name](notify) if self.name in _LAB_BASES else _snapshot(self.name)

    def said_base_name(self) -> str:
        return self.name

    def supplies(self) -> Mapping[str, Path]:
        files = {self.data.path: Path(self.data.path)} if self.data and is_file(self.data.path) else {}
        return {self.name: self.base_folder(), **files}

    def prepare(self, *, notify: Notify = lambda _: None) -> None:
        self.text_data()  # data that cannot be used are refused before a base is fetched for them
        super().prepare(notify=notify)

    def text_data(self) -> TextData:
        if self.data is None:
            raise DataError(f"A base of your own needs a data file (--data FILE.csv). Got {self.name!r} alone.")
        return text_data(self.data)

    def note(self) -> str:
        folder = self.base_folder()
        return smollm.NOTE if smollm.is_dequantized(folder) else ""


class CustomClassifier(CustomBench):
    """A head with one output a label, or one alone for a number, is trained in full beside the adapter."""

    def build(self, *, meta: bool = False) -> PreTrainedModel:
        data = self.text_data()
        outputs = len(data.label_names) if data.kind == "classification" else 1
        model = classifier(self.base_folder(), num_labels=outputs, meta=meta)
        if model.config.pad_token_id is None:
            model.config.pad_token_id = model.config.eos_token_id
        return model

    def splits(self) -> Splits:
        data = self.text_data()
        task = Classification(data.metric) if data.kind == "classification" else Regression(data.metric)
        parts: Sequence[Any] = (data.train, data.validation, data.test)
        return Splits(*(tokenised(self.base_folder(), part, task) for part in parts))

    def label_names(self) -> tuple[str, ...]:
        return self.text_data().label_names


class CustomWriter(CustomBench):
    """A language model that learns to complete prompts, or plain text; nothing but the method is trained."""

    max_tokens: ClassVar[int | None] = MAX_WRITTEN_TOKENS

    def build(self, *, meta: bool = False) -> PreTrainedModel:
        return language_model(self.base_folder(), meta=meta)

    def splits(self) -> Splits:
        data, folder = self.text_data(), self.base_folder()
        task = Writing(data.metric or "loss", folder=folder)
        parts: Sequence[Any] = (data.train, data.validation, data.test)
        return Splits(*(completions(folder, part, task) for part in parts))

    def retention(self) -> Retention:
        return Retention("loss", fixed_text(self.base_folder()))


def text_data(data: DataSpec) -> TextData:
    """`read_data`, read again only where a file has changed; of completions no more held-out rows than are scored.

    Raises:
        LabError: as `read_data`.
    """
    return _text_data(data, _stamp(data.path))


def columns_of(data: DataSpec) -> Columns:
    """`read_columns`, read again only where a file has changed.

    Raises:
        LabError: as `read_columns`.
    """
    return _columns(data, _stamp(data.path))


def _stamp(given: str) -> tuple[int, int] | None:
    path = on_disk(place_of(given))
    stat = path.stat() if is_file(given) and path is not None and path.is_file() else None
    return (stat.st_mtime_ns, stat.st_size) if stat else None


@lru_cache(maxsize=4)
def _text_data(data: DataSpec, stamp: tuple[int, int] | None) -> TextData:
    read = read_data(data)
    if read.kind != "completion":
        return read
    return replace(read, validation=read.validation[:_MOST_VALIDATION], test=read.test[:_MOST_TEST])


@lru_cache(maxsize=4)
def _columns(data: DataSpec, stamp: tuple[int, int] | None) -> Columns:
    return read_columns(data)


@cache
def _snapshot(hub_id: str) -> Path:
    """Asked once a process: a page asks for the base at every click."""
    return hub_snapshot(hub_id, _WANTED)


def custom_bench(base: str, data: DataSpec | None) -> CustomBench:
    """A bench from a folder or Hub id and data; a folder is one bench however its path is spelled.

    Raises:
        LabError: the data cannot be read.
    """
    folder = on_disk(base)
    base = str(folder.resolve()) if folder is not None and folder.is_dir() else base
    writes = data is not None and text_data(data).kind == "completion"
    named = {"name": base, "title": Path(base).name, "data": data}
    given = Path(data.path).name if data else "your file"
    if writes:
        about = f"{Path(base).name} learns to write what {given} has."
        defaults = Defaults(steps=100, batch_size=8, learning_rate=2e-3)
        return CustomWriter(**named, about=about, defaults=defaults, task_type="CAUSAL_LM")  # type: ignore[arg-type]
    about = f"{Path(base).name} learns the labels of {given}."
    defaults = Defaults(steps=200, batch_size=16, learning_rate=1e-3)
    return CustomClassifier(**named, about=about, defaults=defaults, trains_head=True, task_type="SEQ_CLS")  # type: ignore[arg-type]
