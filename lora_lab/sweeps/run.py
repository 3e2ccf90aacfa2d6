"""One trained adapter as a store keeps it: spec.json, events.jsonl, metrics.json, adapter/, and snapshots/ where asked for."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_lab.adapters import SNAPSHOTS, Adapter, Snapshot, load_adapter, read_snapshots
from lora_lab.analysis.drifts import drift
from lora_lab.analysis.records import Drift, Side
from lora_lab.benches import find_bench
from lora_lab.benches.base_weights import base_of
from lora_lab.errors import LabError, StoreError
from lora_lab.events import Event, SplitName, from_record, to_record
from lora_lab.metrics import METRICS, Metric
from lora_lab.specs import RunSpec
from lora_lab.sweeps.progress import RunProgress
from lora_lab.training.begin import factors_at_start
from lora_lab.weights import BaseWeights

COMPLETE = ("finished", "diverged")  # trained to their end: never trained again
_READ_WITH_BASE = ("dora", "vera", "ia3", "full", "partial")


@dataclass(frozen=True)
class Run:
    """One trained adapter with its spec and metrics."""

    run_id: str
    spec: RunSpec
    metrics: dict[str, Any]
    folder: Path

    @property
    def adapter_dir(self) -> Path:
        """A PEFT adapter folder."""
        return self.folder / "adapter"

    @property
    def is_complete(self) -> bool:
        """Trained to its end, whatever the end was."""
        return self.metrics["status"] in COMPLETE

    @property
    def metric(self) -> Metric:
        """What the run is scored by."""
        return METRICS[self.metrics.get("metric", "accuracy")]

    def score(self, *, base: bool = False, split: SplitName = "validation") -> float | None:
        """What the run scored at its end, or its frozen base; None where that was not measured."""
        name = self.metrics.get("metric", "accuracy")
        found: float | None = self.metrics.get(f"{'base_' if base else ''}{'test_' if split == 'test' else ''}{name}")
        return found

    def adapter(self) -> Adapter:
        """ΔW of every matrix that changed, against the original W; read beside the base where the method needs it.

        Raises:
            LabError: the files cannot be read, or the base cannot be had.
        """
        needs_base = self.spec.tuning.method in _READ_WITH_BASE
        return load_adapter(self.adapter_dir, base=self.base() if needs_base else None)

    def base(self) -> BaseWeights:
        """The W of the bench's base, as it was before the run and before any quantization.

        Raises:
            LabError: it cannot be had or read.
        """
        return base_of(find_bench(self.spec.bench, self.spec.data))

    def start(self) -> Adapter:
        """The same before its first step, drawn again from the spec.

        Raises:
            LabError: the base or the data cannot be had.
        """
        return factors_at_start(self.spec, find_bench(self.spec.bench, self.spec.data))

    def snapshots(self) -> tuple[Snapshot, ...]:
        """(step, ΔW by matrix) as training kept it on the way, the final adapter last; that alone where nothing was asked for.

        Raises:
            LabError: a file cannot be read, or the base cannot be had.
        """
        last: int = self.metrics["step"]
        on_the_way = [(step, modules) for step, modules in read_snapshots(self.folder / SNAPSHOTS) if step < last]
        return *on_the_way, (last, self.adapter())

    def drift(self, *, module: str | None = None, k: int = 4, side: Side = "in") -> tuple[Drift, ...]:
        """When each ΔW found the k leading directions that it ends with, by the run's snapshots.

        Args:
            module: one matrix alone.
            k: how many leading directions.
            side: `in` for right singular directions, `out` for left ones.

        Raises:
            StoreError: the run kept none on the way.
            LabError: no such matrix, k below 1, or a file cannot be read.
        """
        snapshots = self.snapshots()
        if len(snapshots) < 2:
            raise StoreError(f"The run must be one that kept snapshots of ΔW (--snapshots). Got {self.run_id!r}, which kept none.")
        return drift(snapshots, module=module, k=k, side=side)

    def events(self) -> list[Event]:
        """Everything that training said."""
        return read_events(self.folder)

    def progress(self) -> RunProgress:
        """The same, gathered: what curves are drawn from."""
        return RunProgress.of(self.spec, self.events())

    def to_json(self) -> dict[str, Any]:
        """What the command line prints of a run."""
        record = {"run_id": self.run_id, "spec": self.spec.to_json(), "metrics": self.metrics}
        return {**record, "adapter_dir": str(self.adapter_dir)}


def parse_run(folder: Path, spec: str, metrics: str) -> Run | None:
    """The run of these two texts; None where they are not of a run that can be read."""
    try:
        run = Run(folder.name, RunSpec.from_json(json.loads(spec)), json.loads(metrics), folder)
        return run if run.metrics["status"] else None
    except (LabError, ValueError, KeyError, TypeError):
        return None


def read_run(folder: Path) -> Run | None:
    """The run in the folder; None where there is none, or none that can be read."""
    try:
        return parse_run(folder, (folder / "spec.json").read_text(), (folder / "metrics.json").read_text())
    except OSError:
        return None


def read_events(folder: Path) -> list[Event]:
    """The log, up to a last line that a killed process may have cut.

    Raises:
        OSError: there is none.
    """
    events = []
    for line in (folder / "events.jsonl").read_text(encoding="utf-8").splitlines():
        try:
            events.append(from_record(json.loads(line)))
        except (ValueError, KeyError, TypeError):
            break
    return events


def log_lines(events: Iterable[Event]) -> str:
    """Events as they stand in a log, a line each."""
    return "".join(json.dumps(to_record(event), allow_nan=False) + "\n" for event in events)
