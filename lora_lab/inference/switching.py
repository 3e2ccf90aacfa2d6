"""What switching costs: another adapter on the base in memory, against another model from the disk."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from lora_lab.adapters import save
from lora_lab.analysis.timings import Shape, Switch, Switching, spread
from lora_lab.benches import Bench
from lora_lab.budget.files import disk_for_tasks_bytes
from lora_lab.errors import SpecError, out_of_range
from lora_lab.inference.interleaved import finish, interleaved
from lora_lab.inference.shelf import AdapterShelf
from lora_lab.inference.subject import Batch, Subject, default_shapes, find_subject, inputs_for
from lora_lab.inference.variants import random_lora
from lora_lab.live_geometry import read_geometry
from lora_lab.training import pick_device
from lora_lab.training.devices import pinned_threads

REPEATS = 10
TASKS = 100  # of the paper's footnote


def measure_switching(
    source: Subject | Bench | str, *, r: int = 8, repeats: int = REPEATS, seed: int = 0, device: str | None = None
) -> Switching:
    """Seconds until another task's first answer is there, by each way to change the task, in turn; and the bytes read for it.

    The tasks are random LoRAs of r on q and v. An answer is a forward pass of one example: weights that come from a file are
    mapped into memory and read when they are first used, so the answer belongs to the time that the change takes. The files
    were read before, so that they come from the operating system's cache and not from the disk.

    Args:
        source: a bench or its name, or a model's folder or Hub id.
        r: of the adapters.
        repeats: rounds.
        seed: of adapters, input and orders.
        device: the best there is where None.

    Raises:
        SpecError: the base lies in no file, or cannot take LoRA on q and v.
        LabError: the base cannot be had.
    """
    subject, place = find_subject(source), pick_device(device)
    if subject.folder is None:
        raise SpecError(out_of_range("source", "measure_switching", "a base that lies in a folder", subject.name))
    with pinned_threads(subject.threads), tempfile.TemporaryDirectory() as scratch:
        folders = [_saved(subject, Path(scratch) / str(i), r=r, seed=seed + i) for i in range(3)]
        tasks = _Tasks(subject, folders, place, seed)
        times_s = interleaved(tasks.ways(), repeats=repeats, seed=seed)
        adapter_bytes, model_bytes = weights_bytes(folders[2]), weights_bytes(subject.folder)
    read = {"resident": 0, "adapter file": adapter_bytes, "model file": model_bytes}
    models, adapters = disk_for_tasks_bytes(model_bytes, adapter_bytes, TASKS)
    return Switching(
        source=subject.name,
        adapter=f"LoRA of r = {r} on q and v{', with the head' if subject.heads(tasks.geometry) else ''}",
        adapter_bytes=adapter_bytes,
        model_bytes=model_bytes,
        answer=spread(times_s["answer"]),
        ways=tuple(Switch(name, spread(times_s[name]), size) for name, size in read.items()),
        tasks=TASKS,
        as_models_bytes=models,
        as_adapters_bytes=adapters,
    )


def weights_bytes(folder: Path) -> int:
    """The size of a folder's weights, all of their files."""
    files = [*folder.glob("*.safetensors")] or [*folder.glob("*.bin")]
    return sum(file.stat().st_size for file in files)


class _Tasks:
    """A base with two adapters in memory and a third on disk, and the ways from one task to another."""

    def __init__(self, subject: Subject, folders: list[Path], device: torch.device, seed: int) -> None:
        self._subject, self._device, self._third = subject, device, folders[2]
        self._model = subject.build().eval().to(device)
        self.geometry = read_geometry(self._model)
        first = default_shapes(self.geometry)[0]
        self._inputs: Batch = {k: x.to(device) for k, x in inputs_for(self._model, Shape(1, first.tokens), seed=seed).items()}
        self._shelf = AdapterShelf(self._model)
        for name, folder in zip("ab", folders, strict=False):
            self._shelf.add(name, folder)

    def ways(self) -> dict[str, Callable[[], None]]:
        """Each begins with the change and ends with the answer."""
        return {
            "answer": lambda: self._answer(self._model),
            "resident": self._resident,
            "adapter file": self._adapter_file,
            "model file": lambda: self._answer(self._subject.build().eval().to(self._device)),
        }

    def _answer(self, model: nn.Module) -> None:
        with torch.inference_mode():
            model(**self._inputs)
        finish(self._device)

    def _resident(self) -> None:
        self._shelf.use("b" if self._shelf.active == "a" else "a")
        self._answer(self._model)

    def _adapter_file(self) -> None:
        """The one that was read the last time makes room for the one that is read now."""
        if "c" in self._shelf.names:
            self._shelf.remove("c")
        self._shelf.add("c", self._third)
        self._shelf.use("c")
        self._answer(self._model)


def _saved(subject: Subject, folder: Path, *, r: int, seed: int) -> Path:
    model = random_lora(subject, subject.build(), r=r, seed=seed)
    save(model, folder, base_name=subject.name, step=0)
    return folder
