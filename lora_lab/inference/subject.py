"""A base to measure: a bench's, any model in a folder or on the Hub, or what a function builds."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedModel

from lora_lab.analysis.timings import Shape
from lora_lab.assets import HUB_ID, hub_snapshot
from lora_lab.benches import BENCH_NAMES, Bench, find_bench
from lora_lab.benches.quiet import quiet_transformers
from lora_lab.benches.text import classifier
from lora_lab.errors import DataError, SpecError, out_of_range
from lora_lab.geometry import Geometry
from lora_lab.training import threads_for

Batch = dict[str, Tensor]
_WANTED = ("config.json", "*.safetensors", "*.safetensors.index.json")
_LARGE_PARAMS = 100_000_000
_EXAMPLES, _TEXTS = 64, 4  # read to compare logits; a language model has a row of them for every token


@dataclass(frozen=True)
class Subject:
    """How to build a base, and what its task asks of a method.

    Attributes:
        name: what it is called.
        build: a fresh model on the CPU, in eval mode.
        threads: on the CPU.
        task_type: PEFT's word for the task; None where the model tells.
        folder: where its weights lie; None where they are nowhere.
        bench: whose base it is.
    """

    name: str
    build: Callable[[], nn.Module]
    threads: int
    task_type: str | None = None
    folder: Path | None = None
    bench: Bench | None = field(default=None, compare=False)

    def heads(self, geometry: Geometry) -> tuple[str, ...]:
        """Modules that a run trains in full beside its adapter."""
        return self.bench.head_modules(geometry) if self.bench else ()

    def examples(self) -> tuple[list[Batch], str]:
        """Real inputs, in batches of eight, and what they are; token ids drawn at random where there is no bench."""
        if self.bench is None:
            batches = [inputs_for(self.build(), Shape(_TEXTS, 64))]
            return batches, f"{_TEXTS} sequences of 64 random tokens"
        held_out = self.bench.splits().test
        rows = torch.arange(min(_TEXTS if self.task_type == "CAUSAL_LM" else _EXAMPLES, len(held_out)))
        batches = [held_out.batch(some) for some in torch.split(rows, 8)]
        chosen = [{name: column for name, column in batch.items() if name != "labels"} for batch in batches]
        return chosen, f"{len(rows)} held-out examples"


def find_subject(source: Subject | Bench | str | Callable[[], nn.Module]) -> Subject:
    """What a name, a bench or a function stands for.

    Raises:
        LabError: no bench has the name, and no model is there.
    """
    if isinstance(source, Subject):
        return source
    if isinstance(source, str):
        folder = Path(source).expanduser()
        is_model = source not in BENCH_NAMES and (folder.is_dir() or HUB_ID.fullmatch(source))
        return _of_folder(source, folder) if is_model else find_subject(find_bench(source))
    if isinstance(source, Bench):
        threads = threads_for(source.defaults.threads)
        return Subject(source.name, source.build, threads, source.task_type, source.base_folder(), source)
    return Subject("a model", source, torch.get_num_threads())


def default_shapes(geometry: Geometry) -> tuple[Shape, ...]:
    """Batches and lengths that take some seconds on a CPU."""
    if not _reads_tokens(geometry):
        return Shape(1), Shape(8), Shape(64)
    return Shape(1, 32), Shape(1, 128), Shape(4 if geometry.total_params >= _LARGE_PARAMS else 8, 128)


def fitting(shapes: tuple[Shape, ...], geometry: Geometry) -> tuple[Shape, ...]:
    """The shapes as the base can take them, each once: one that reads no tokens has batch sizes alone.

    Raises:
        SpecError: a base that reads tokens is given no length.
    """
    if not _reads_tokens(geometry):
        return tuple(dict.fromkeys(Shape(shape.batch) for shape in shapes))
    without = next((shape for shape in shapes if shape.tokens is None), None)
    if without is not None:
        raise SpecError(out_of_range("shapes", "latency", "batch x tokens such as 8x128: the base reads tokens", without.batch))
    return tuple(dict.fromkeys(shapes))


def inputs_for(model: Any, shape: Shape, *, seed: int = 0) -> Batch:
    """Random inputs of the shape, nothing padded: how long a forward pass takes does not depend on what is in them."""
    generator = torch.Generator().manual_seed(seed)
    if shape.tokens is None:
        config = model.config
        size = (shape.batch, config.num_channels, config.image_size, config.image_size)
        return {"pixel_values": torch.randn(size, generator=generator)}
    text = model.config.get_text_config()
    ids = torch.randint(0, text.vocab_size, (shape.batch, shape.tokens), generator=generator)
    for special in (text.pad_token_id, text.eos_token_id):
        if isinstance(special, int):
            ids[ids == special] = (special + 1) % text.vocab_size
    if model.config.is_encoder_decoder and isinstance(text.eos_token_id, int):
        ids[:, -1] = text.eos_token_id  # where an encoder-decoder that classifies reads its answer
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _reads_tokens(geometry: Geometry) -> bool:
    return geometry.architecture is not None and geometry.architecture.vocab > 0


def _of_folder(source: str, folder: Path) -> Subject:
    """Any model that transformers has a class for; one without a head gets a classifier of two classes."""
    place = folder if folder.is_dir() else hub_snapshot(source, _WANTED)
    if not (place / "config.json").is_file():
        raise DataError(f"The base must be a folder with a config.json. Got {source!r}.")
    return Subject(source, lambda: _load(place), threads_for(None), folder=place)


def _load(folder: Path) -> PreTrainedModel:
    with quiet_transformers():
        names = AutoConfig.from_pretrained(folder).architectures or [""]
        known: Any = getattr(transformers, names[0], None)
        if names[0].endswith("Model") or not hasattr(known, "from_pretrained"):
            return classifier(folder, num_labels=2)
        model: PreTrainedModel = known.from_pretrained(folder, dtype=torch.float32)
    return model
