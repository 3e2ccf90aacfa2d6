"""Where runs are kept: a folder a run, and an SQLite index over them.

    runs/
      index.sqlite              rebuilt from the folders wherever they disagree
      3f2a90c1d4e5/             a run, whole: renamed into place when everything in it is written
        spec.json  events.jsonl  metrics.json  adapter/
      .draft-3f2a90c1d4e5-4711/ a run being trained by process 4711

A killed process leaves a draft and nothing else; `recover` keeps its last snapshot as a stopped run, or clears it away.
"""

import json
import os
import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from lora_lab.adapters import Adapter, load_adapter, restore, saved_step
from lora_lab.benches import Bench, find_bench
from lora_lab.errors import LabError, StoreError
from lora_lab.events import (
    DoneEvent,
    EvalEvent,
    Event,
    ForgettingEvent,
    SplitName,
    StartEvent,
    StepEvent,
    from_record,
    to_record,
)
from lora_lab.metrics import METRICS, Metric
from lora_lab.specs import RunSpec
from lora_lab.sweeps.progress import RunProgress
from lora_lab.weights import BaseWeights

_COMPLETE = ("finished", "diverged")  # trained to their end: never trained again
_CONTENT = ("spec.json", "events.jsonl", "metrics.json", "adapter")
_READ_WITH_BASE = ("dora", "vera", "ia3", "full", "partial")
_VERSIONS = ("torch", "transformers", "peft")


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
        return self.metrics["status"] in _COMPLETE

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
        bench = find_bench(self.spec.bench, self.spec.data)
        needs_base = self.spec.tuning.method in _READ_WITH_BASE
        return load_adapter(self.adapter_dir, base=_base_of(bench) if needs_base else None)

    def events(self) -> list[Event]:
        """Everything that training said."""
        return _read_events(self.folder)

    def progress(self) -> RunProgress:
        """The same, gathered: what curves are drawn from."""
        return RunProgress.of(self.spec, self.events())

    def to_json(self) -> dict[str, Any]:
        """What the command line prints of a run."""
        record = {"run_id": self.run_id, "spec": self.spec.to_json(), "metrics": self.metrics}
        return {**record, "adapter_dir": str(self.adapter_dir)}


@lru_cache(maxsize=4)
def _base_of(bench: Bench) -> BaseWeights:
    return BaseWeights(bench.base_folder(), bench.geometry().matrices)


class Draft:
    """A run that is being trained, in a folder that no reader looks into."""

    def __init__(self, root: Path, spec: RunSpec) -> None:
        self.root, self.spec = root, spec
        self.folder = root / f".draft-{spec.run_id}-{os.getpid()}"
        shutil.rmtree(self.folder, ignore_errors=True)
        try:
            self.folder.mkdir(parents=True)
        except OSError as err:
            raise _unwritable(root, err.strerror) from None
        (self.folder / "spec.json").write_text(json.dumps(spec.to_json(), indent=1) + "\n")
        self._events = (self.folder / "events.jsonl").open("a", encoding="utf-8")

    def record(self, event: Event) -> None:
        """Append the event to the run's log."""
        self._events.write(json.dumps(to_record(event), allow_nan=False) + "\n")
        self._events.flush()

    def commit(self) -> None:
        """Turn the draft into a run, in one rename; a run that is there by now and further on stays."""
        self._events.close()
        _publish(self.folder, self.root / self.spec.run_id)

    def discard(self) -> None:
        """Leave nothing behind."""
        self._events.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class RunStore:
    """The runs of one folder. Cheap to make; any number of processes may hold one."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise _unwritable(self.root, err.strerror) from None

    def begin(self, spec: RunSpec) -> Draft:
        """A draft for the run."""
        return Draft(self.root, spec)

    def runs(self) -> list[Run]:
        """Every run, oldest first."""
        return list(filter(None, (self._run(*row) for row in self._rows())))

    def _rows(self) -> list[tuple[str, str, str]]:
        try:
            with self._index() as index:
                self._sync(index)
                return index.execute("SELECT run_id, spec, metrics FROM runs ORDER BY finished_at, run_id").fetchall()
        except sqlite3.DatabaseError:  # it is only an index: the folders have everything
            (self.root / "index.sqlite").unlink(missing_ok=True)
            return self._rows()

    def get(self, run_id: str) -> Run:
        """The run of that id, or of the only id that begins so.

        Raises:
            StoreError: no such run, or several.
        """
        found = [run for run in self.runs() if run.run_id.startswith(run_id)] if run_id else []
        if len(found) != 1:
            known = "no run begins so" if not found else f"{len(found)} runs begin so"
            raise StoreError(f"The run must be an id in {str(self.root)!r}. Got {run_id!r}: {known}.")
        return found[0]

    def find(self, run_ids: Iterable[str]) -> list[Run]:
        """The runs of these ids, in their order; ids that the store does not have are left out."""
        by_id = {run.run_id: run for run in self.runs()}
        return [by_id[run_id] for run_id in run_ids if run_id in by_id]

    def complete_ids(self) -> set[str]:
        """The ids of the runs that were trained to their end."""
        return {run.run_id for run in self.runs() if run.is_complete}

    def is_complete(self, run_id: str) -> bool:
        """Whether that run was trained to its end."""
        return run_id in self.complete_ids()

    def recover(self) -> list[Run]:
        """Deal with the drafts of processes that are gone: the last snapshot becomes a stopped run, the rest is cleared.

        Returns:
            The runs that were kept.
        """
        kept = []
        for draft in self.root.glob(".draft-*"):
            _, run_id, pid = draft.name.split("-")
            if _is_alive(int(pid)):
                continue
            if _mend(draft) and _publish(draft, self.root / run_id):
                kept.append(run_id)
            shutil.rmtree(draft, ignore_errors=True)
        for replaced in self.root.glob(".old-*"):
            if not _is_alive(int(replaced.name.rsplit("-", 1)[1])):
                shutil.rmtree(replaced, ignore_errors=True)
        return self.find(kept)

    @contextmanager
    def _index(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.root / "index.sqlite", timeout=30)) as connection, connection:
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS runs"
                    " (run_id TEXT PRIMARY KEY, finished_at REAL NOT NULL, spec TEXT NOT NULL, metrics TEXT NOT NULL)"
                )
                yield connection
        except sqlite3.OperationalError as err:
            raise _unwritable(self.root, str(err)) from None

    def _sync(self, index: sqlite3.Connection) -> None:
        """The folders are the truth: new ones are read in, replaced ones read again, missing ones dropped."""
        on_disk = dict(filter(None, map(_finished_at, self.root.glob("[!.]*/metrics.json"))))
        known = dict(index.execute("SELECT run_id, finished_at FROM runs").fetchall())
        index.executemany("DELETE FROM runs WHERE run_id = ?", [(run_id,) for run_id in known.keys() - on_disk.keys()])
        for run_id, finished_at in on_disk.items():
            if known.get(run_id) != finished_at:
                with suppress(FileNotFoundError):  # being replaced at this moment: the next look finds it
                    spec, metrics = ((self.root / run_id / name).read_text() for name in ("spec.json", "metrics.json"))
                    index.execute("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?)", (run_id, finished_at, spec, metrics))

    def _run(self, run_id: str, spec: str, metrics: str) -> Run | None:
        """The run; None for a folder that is not one of ours to read."""
        try:
            return Run(run_id, RunSpec.from_json(json.loads(spec)), json.loads(metrics), self.root / run_id)
        except (LabError, ValueError, KeyError, TypeError):
            return None


def _finished_at(metrics: Path) -> tuple[str, float] | None:
    """(run id, time) of a run's metrics; None where it is being replaced at this moment."""
    try:
        return metrics.parent.name, metrics.stat().st_mtime
    except FileNotFoundError:
        return None


def metrics_of(events: Iterable[Event]) -> dict[str, Any]:
    """The numbers of a run that is over, from its events; what was not measured is None.

    Scores stand under the metric's own name (`metric` says which): `accuracy`, `base_accuracy` of the frozen base, and of the
    test split `test_accuracy` and `base_test_accuracy`; losses likewise. `echo_` is no model's: see StartEvent.
    """
    events = list(events)
    start = next(e for e in events if isinstance(e, StartEvent))
    done = next(e for e in events if isinstance(e, DoneEvent))
    evals = [e for e in events if isinstance(e, EvalEvent)]
    forgot = next((e for e in events if isinstance(e, ForgettingEvent)), None)
    steps_s = [e.step_s for e in events if isinstance(e, StepEvent) and e.step_s is not None]
    return {
        "status": done.status,
        "message": done.message,
        "step": done.step,
        "metric": start.metric,
        **_scores(evals, start.metric, done.step),
        **({f"echo_{start.metric}": start.echo_score} if start.echo_score is not None else {}),
        **({f"echo_test_{start.metric}": start.echo_test_score} if start.echo_test_score is not None else {}),
        "forgetting": {"kept": forgot.kept, "before": forgot.before, "after": forgot.after} if forgot else None,
        "trainable_params": start.trainable_params,
        "head_params": start.head_params,
        "total_params": start.total_params,
        "base_note": start.base_note,
        "wall_s": done.wall_s,
        "step_s": median(steps_s) if steps_s else None,
        "peak_memory_bytes": done.peak_memory_bytes,
        "peak_reserved_bytes": done.peak_reserved_bytes,
        "longest_tokens": done.longest_tokens,
        "device": start.device,
        "precision": start.precision,
        "versions": {name: version(name) for name in _VERSIONS},
    }


def _scores(evals: Sequence[EvalEvent], metric: str, last_step: int) -> dict[str, float | None]:
    """Score and loss of the base and of the run at its end, on either split."""
    found: dict[str, float | None] = {}
    for split, prefix in (("validation", ""), ("test", "test_")):
        of_split = [e for e in evals if e.split == split]
        base = next((e for e in of_split if e.step == 0), None)
        last = next((e for e in reversed(of_split) if e.step == last_step), None)
        found |= {f"base_{prefix}loss": base.loss if base else None, f"{prefix}loss": last.loss if last else None}
        if metric != "loss":
            found |= {f"base_{prefix}{metric}": base.score if base else None, f"{prefix}{metric}": last.score if last else None}
    return found


def _unwritable(root: Path, why: str | None) -> StoreError:
    return StoreError(f"The runs folder must be one that can be written. Got {str(root)!r}: {why}.")


def _publish(draft: Path, final: Path) -> bool:
    """Write the metrics, flush everything to the disk, rename. A lesser run that is there already is replaced.

    Returns:
        Whether the draft became the run: one that is complete, or further on than a stopped draft, stays.
    """
    metrics = metrics_of(_read_events(draft))
    if _is_further(final, metrics):
        shutil.rmtree(draft, ignore_errors=True)
        return False
    metrics["adapter_file_bytes"] = (draft / "adapter" / "adapter_model.safetensors").stat().st_size
    (draft / "metrics.json").write_text(json.dumps(metrics, indent=1, allow_nan=False) + "\n")
    for path in draft.iterdir():
        if path.name not in _CONTENT:  # what a killed save had half written
            shutil.rmtree(path, ignore_errors=True)
    for path in draft.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    old = draft.with_name(draft.name.replace(".draft-", ".old-"))
    if final.exists():
        os.rename(final, old)
    os.rename(draft, final)
    shutil.rmtree(old, ignore_errors=True)
    return True


def _is_further(final: Path, metrics: dict[str, Any]) -> bool:
    try:
        there = json.loads((final / "metrics.json").read_text())
        return there["status"] in _COMPLETE or (metrics["status"] not in _COMPLETE and there["step"] > metrics["step"])
    except (OSError, ValueError, KeyError):
        return False


def _mend(draft: Path) -> bool:
    """Make a stopped run of what a killed process left: its last snapshot, and the log up to that.

    Returns:
        Whether there is anything to keep: a snapshot of at least one step.
    """
    restore(draft / "adapter")
    step = saved_step(draft / "adapter")
    try:
        events = _read_events(draft)
    except OSError:
        return False
    if not step or not (draft / "spec.json").is_file():
        return False
    if not any(isinstance(event, DoneEvent) for event in events):
        events = [event for event in events if isinstance(event, StartEvent) or event.step <= step]
        message = "The training process ended before the run did; the last snapshot was kept."
        elapsed_s = max(event.elapsed_s for event in events if isinstance(event, StepEvent | EvalEvent))
        events.append(DoneEvent("stopped", step, message, elapsed_s, None))
        lines = [json.dumps(to_record(event), allow_nan=False) + "\n" for event in events]
        (draft / "events.jsonl").write_text("".join(lines), encoding="utf-8")
    return True


def _read_events(folder: Path) -> list[Event]:
    """The log, up to a last line that a killed process may have cut."""
    events = []
    for line in (folder / "events.jsonl").read_text(encoding="utf-8").splitlines():
        try:
            events.append(from_record(json.loads(line)))
        except (ValueError, KeyError, TypeError):
            break
    return events


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
