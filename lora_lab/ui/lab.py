"""What the views of one app share: the store, the jobs under way, and whether strangers may use it."""

import os
import secrets
import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from lora_lab.adapters import Adapter, changed_ns, load_adapter
from lora_lab.assets import HUB_ID, on_disk
from lora_lab.benches import BENCH_NAMES, Bench
from lora_lab.benches.base_weights import open_base
from lora_lab.benches.examples import TextData
from lora_lab.benches.preview import Preview, preview_of
from lora_lab.errors import AdapterError, DataError
from lora_lab.geometry import Geometry
from lora_lab.specs import DataSpec, RunSpec
from lora_lab.sweeps import Job, Run, RunStore
from lora_lab.sweeps.groups import Grouped
from lora_lab.sweeps.jobs import More
from lora_lab.ui.exports import Exports
from lora_lab.weights import BaseWeights

T = TypeVar("T")

_KEPT_JOBS = 50
_KEPT_ADAPTERS = 6
_KEPT_PREVIEWS = 6
_KEPT_RESULTS = 64
_UNKNOWN: Any = object()


@dataclass
class Lab:
    """One app. Visitors are told apart by the job in their address: in public they see that job's runs and no others."""

    store: RunStore
    public: bool = False
    device: str | None = None
    jobs: dict[str, Job] = field(default_factory=dict)
    exports: Exports = field(default_factory=Exports)
    _turn: threading.Semaphore = field(default_factory=threading.Semaphore)  # one sweep trains at a time, others wait
    _adapters: dict[tuple[str, str, int], Adapter] = field(default_factory=dict)
    _geometries: dict[tuple[str, DataSpec | None], Geometry] = field(default_factory=dict)
    _known: dict[tuple[Hashable, ...], Any] = field(default_factory=dict)
    _previews: dict[tuple[str, DataSpec | None], tuple[TextData, Preview]] = field(default_factory=dict)

    @classmethod
    def from_environment(cls, runs: str | Path | None = None) -> "Lab":
        """`LORA_LAB_RUNS` (./runs), `LORA_LAB_DEVICE`, and public where `SPACE_ID` or `LORA_LAB_PUBLIC` is set."""
        public = bool(os.environ.get("SPACE_ID")) or os.environ.get("LORA_LAB_PUBLIC") == "1"
        store = RunStore(runs or os.environ.get("LORA_LAB_RUNS", "runs"))
        store.recover()
        return cls(store, public, os.environ.get("LORA_LAB_DEVICE") or None)

    def current_job(self) -> str:
        """The job under way, for a page that was opened anew; in public every visitor has only their own."""
        running = [name for name, job in self.jobs.items() if not job.ended]
        return running[-1] if running and not self.public else ""

    def new_job(self, specs: Sequence[RunSpec], *, more: More | None = None, grouped: Grouped = "auto") -> tuple[str, Job]:
        """A job for these runs and what `more` wants after them, under a name that nobody guesses."""
        for old in [name for name, job in self.jobs.items() if job.ended][: -_KEPT_JOBS + 1]:
            self.jobs.pop(old, None)
        name = secrets.token_urlsafe(6)
        job = Job(specs, self.store, device=self.device, turn=self._turn, more=more, grouped=grouped)
        self.jobs[name] = job
        return name, job

    def geometry(self, bench: Bench) -> Geometry:
        """The bench's matrices, read once."""
        key = (bench.name, bench.data)
        if key not in self._geometries:
            self._geometries[key] = bench.geometry()
        return self._geometries[key]

    def preview(self, bench: Bench) -> Preview | None:
        """What the bench's data look like, looked at again only where they were read again; None where they are no text.

        Raises:
            LabError: they cannot be had or used.
        """
        data, key = bench.text_data(), (bench.name, bench.data)
        if data is None:
            return None
        seen = self._previews.get(key)
        if seen is None or seen[0] is not data:
            for old in list(self._previews)[: -_KEPT_PREVIEWS + 1]:
                self._previews.pop(old, None)
            seen = self._previews[key] = data, preview_of(bench)
        return seen[1]

    def adapter(self, run: Run) -> Adapter:
        """The run's ΔW, read once: of what was trained in place it takes a spectrum a matrix."""
        key = (run.run_id, run.metrics["status"], run.metrics["step"])
        found = self._adapters.get(key)
        if found is None:
            found = run.adapter()
            for old in list(self._adapters)[: -_KEPT_ADAPTERS + 1]:
                self._adapters.pop(old, None)
            self._adapters[key] = found
        return found

    def opened(self, source: str, under: str = "") -> Adapter:
        """The adapter in a folder, a file or on the Hub, read again where its files have changed.

        Args:
            source: where it is; on a public page a Hub id alone, as a path may be another visitor's.
            under: its base, for methods that are read with it.

        Raises:
            LabError: it cannot be had or read.
        """
        if self.public and (on_disk(source) or not HUB_ID.fullmatch(source)):
            raise AdapterError(f"An adapter on this public page must be a Hub id, owner/name. Got {source!r}.")
        base = self.base(under) if under else None
        return self.once(("opened", source, under, changed_ns(source)), lambda: load_adapter(source, base=base))

    def base(self, source: str) -> BaseWeights:
        """The base under an opened adapter; on a public page one of the lab's, as others may be of any size.

        Raises:
            LabError: it cannot be had or read.
        """
        if self.public and source not in BENCH_NAMES:
            raise DataError(f"The base on this public page must be that of {', '.join(BENCH_NAMES)}. Got {source!r}.")
        return open_base(source)

    def once(self, key: tuple[Hashable, ...], compute: Callable[[], T]) -> T:
        """What `compute` gives, kept for those who ask again by the same key."""
        found = self._known.get(key, _UNKNOWN)  # held here: another visitor's thread may drop it from there meanwhile
        if found is _UNKNOWN:
            found = compute()
            for old in list(self._known)[: -_KEPT_RESULTS + 1]:
                self._known.pop(old, None)
            self._known[key] = found
        return found

    def visible_runs(self, job_name: str) -> list[Run]:
        """The runs that this visitor may look at, newest first."""
        runs = self.store.runs()[::-1]
        if not self.public:
            return runs
        job = self.jobs.get(job_name)
        return [run for run in runs if job and run.run_id in job.runs]
