"""Models that answer: a bench's base and runs on it, in memory; adapters that can share the base do."""

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from torch import nn

from lora_lab.adapters import saved_step
from lora_lab.benches import Bench
from lora_lab.errors import AdapterError
from lora_lab.inference.open_run import open_run
from lora_lab.inference.shelf import AdapterShelf
from lora_lab.methods import quantize
from lora_lab.specs import Quant, RunSpec
from lora_lab.training.devices import pinned_threads, threads_for

BASE = "base"  # who answers where no run does
TrainedRun = tuple[RunSpec, Path]  # and the folder of what it saved
_Key = tuple[object, ...]
_Held = TypeVar("_Held")
_MOST_SHELVES, _MOST_ON_A_SHELF, _MOST_OPENED = 2, 8, 3


@dataclass(frozen=True, eq=False)
class Answerer:
    """One that answers: the base, or a run by its id."""

    who: str
    _model: nn.Module
    _lock: threading.Lock
    _threads: int
    _shelf: AdapterShelf | None = None
    _name: str | None = None

    @contextmanager
    def ready(self) -> Iterator[nn.Module]:
        """The model with this one's adapter in use; meanwhile no other may compute."""
        with self._lock, pinned_threads(self._threads):
            if self._shelf is not None:
                self._shelf.use(self._name)
            yield self._model


@dataclass(frozen=True)
class _Shelf:
    model: nn.Module
    shelf: AdapterShelf


class LiveModels:
    """The models that were asked last, on the CPU: at most two bases with the adapters on them, and three that share no base.

    Any number of threads may ask; one computes at a time.
    """

    def __init__(self) -> None:
        self._computing, self._loading = threading.Lock(), threading.Lock()
        self._shelves: OrderedDict[_Key, _Shelf] = OrderedDict()
        self._opened: OrderedDict[_Key, nn.Module] = OrderedDict()

    def answerers(self, bench: Bench, runs: Sequence[TrainedRun]) -> Iterator[Answerer]:
        """The base, then the runs in their order, each as soon as it is in memory.

        The base is quantized as the runs' is where all of them have it alike, else it is not. Runs that PEFT can switch on one
        base share it; virtual tokens, what was trained in place, and a second PEFT method have a copy of their own.

        Raises:
            AdapterError: a run was trained on other weights than the bench's base has, or what it saved cannot be read.
            LabError: the base cannot be had.
        """
        quant = base_quant([spec for spec, _ in runs])
        with self._loading:
            shared = self._shelf_of(bench, quant)
        threads = threads_for(bench.defaults.threads)
        yield Answerer(BASE, shared.model, self._computing, threads, shared.shelf)
        for spec, folder in runs:
            _refuse_other_base(bench, spec)
            with self._loading:
                name = self._shelved(shared, spec, folder) if spec.quant == quant else None
                model, shelf = (self._open(spec, folder), None) if name is None else (shared.model, shared.shelf)
            yield Answerer(spec.run_id, model, self._computing, threads, shelf, name)

    def _shelf_of(self, bench: Bench, quant: Quant) -> _Shelf:
        key = (bench.name, bench.data, bench.base_sha256(), quant)
        found = self._shelves.pop(key, None)
        if found is None or len(found.shelf.names) >= _MOST_ON_A_SHELF:
            model = quantize(bench.build(), quant)
            found = _Shelf(model, AdapterShelf(model))
        _keep(self._shelves, key, found, most=_MOST_SHELVES)
        return found

    def _shelved(self, shared: _Shelf, spec: RunSpec, folder: Path) -> str | None:
        """The run's name on the shelf; None where it cannot stand there."""
        name = f"{folder} at step {saved_step(folder)}"
        if spec.tuning.virtual_tokens or not (folder / "adapter_config.json").is_file():
            return None
        if name not in shared.shelf.names:
            try:
                with self._computing:
                    shared.shelf.add(name, folder)
            except AdapterError:  # of another PEFT method, say: it is opened alone
                return None
        return name

    def _open(self, spec: RunSpec, folder: Path) -> nn.Module:
        key = (spec, folder, saved_step(folder))
        model = self._opened.pop(key, None)
        if model is None:
            model = open_run(spec, folder)
        _keep(self._opened, key, model, most=_MOST_OPENED)
        return model


def base_quant(specs: Sequence[RunSpec]) -> Quant:
    """How the base is kept beside the runs: as theirs is where all of them have it alike."""
    kept = {spec.quant for spec in specs}
    return kept.pop() if len(kept) == 1 else "none"


def _keep(cache: OrderedDict[_Key, _Held], key: _Key, value: _Held, *, most: int) -> None:
    cache[key] = value
    while len(cache) > most:
        cache.popitem(last=False)


def _refuse_other_base(bench: Bench, spec: RunSpec) -> None:
    if spec.base_sha256 != bench.base_sha256():
        raise AdapterError(f"The run {spec.run_id} was trained on a base with other weights than {bench.title} has here.")
