"""A mirror of a sweep in another tool's tracking: trackio's, in its local files. No server is started, no network is used."""

import sqlite3
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from lora_lab.errors import SpecError, StoreError, out_of_range
from lora_lab.events import DoneEvent, EvalEvent, Event, StartEvent, StepEvent
from lora_lab.specs import Number, RunSpec
from lora_lab.sweeps.outcome import metrics_of
from lora_lab.sweeps.results import settings_of

MIRRORS = ("trackio",)
_AT_ONCE = 50  # steps that are written together: each writing locks and opens the project's file
_STEP_VALUES = ("loss", "learning_rate", "grad_norm", "grad_norm_a", "grad_norm_b", "step_s")
Entry = tuple[str, int, dict[str, Number]]  # what it is of, the step, the values


def open_mirror(name: str) -> Callable[[RunSpec, Event], None]:
    """What to call with every event, as `watch` is.

    Args:
        name: `trackio`, or `trackio:PROJECT`; the project is the run's bench by default.

    Raises:
        SpecError: an unknown mirror, one that is not installed, or a project's name that it refuses.
    """
    kind, _, project = name.partition(":")
    if kind not in MIRRORS:
        raise SpecError(out_of_range("mirror", "sweep", "trackio or trackio:PROJECT", name))
    return TrackioMirror(project or None)


class TrackioMirror:
    """Each run as a trackio run of the same id: losses, learning rate, evaluations, and in the end the run's numbers.

    What trackio has already is not written twice, so that sweeps which share runs may share a project.

    Args:
        project: the trackio project; each run's bench if None.
    """

    def __init__(self, project: str | None = None) -> None:
        self._storage, self.project = _trackio(), project
        self._said: dict[str, list[Event]] = defaultdict(list)
        self._waiting: dict[str, list[Entry]] = defaultdict(list)
        if project is not None:
            self._check(project)

    def __call__(self, spec: RunSpec, event: Event) -> None:
        """Take one event of a run.

        Raises:
            StoreError: trackio's files cannot be written.
        """
        said, waiting = self._said[spec.run_id], self._waiting[spec.run_id]
        said.append(event)
        waiting.extend(_entries(said))
        if waiting and (len(waiting) >= _AT_ONCE or not isinstance(event, StepEvent)):
            self._write(spec, waiting)
            waiting.clear()
        if isinstance(event, DoneEvent):
            del self._said[spec.run_id], self._waiting[spec.run_id]

    def _check(self, project: str) -> None:
        try:
            self._storage.validate_project_name(project)
        except ValueError as err:
            raise SpecError(f"The project of a mirror must be a name that trackio takes. Got {project!r}: {err}") from None

    def _write(self, spec: RunSpec, entries: list[Entry]) -> None:
        try:
            self._storage.bulk_log(
                project=self.project or project_of(spec),
                run=_name(spec),
                run_id=spec.run_id,
                metrics_list=[values for _, _, values in entries],
                steps=[step for _, step, _ in entries],
                log_ids=[f"{spec.run_id}:{kind}:{step}" for kind, step, _ in entries],
                config={**settings_of(spec), "_Username": None, "_Created": datetime.now(UTC).isoformat(), "_Group": spec.bench},
            )
        except (OSError, sqlite3.Error) as err:
            raise StoreError(f"The mirror must be one that can be written: trackio says {str(err)!r}.") from None


def project_of(spec: RunSpec) -> str:
    """The run's bench in the letters that trackio names files with."""
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in spec.bench.rstrip("/").rsplit("/", 1)[-1])


def _name(spec: RunSpec) -> str:
    r = f" r {spec.tuning.r}" if spec.tuning.has_r else ""
    return f"{spec.tuning.method}{r} seed {spec.seed} {spec.run_id}"


def _entries(said: list[Event]) -> list[Entry]:
    """What the last event has to tell of a run that said all this; nothing of one that never started."""
    match said[-1], said[0]:
        case (StepEvent() as step, _):
            values = {f"train/{name}": getattr(step, name) for name in _STEP_VALUES}
            return [("step", step.step, _measured(values))]
        case (EvalEvent() as scored, StartEvent() as start):
            values = {f"{scored.split}/{start.metric}": scored.score, f"{scored.split}/loss": scored.loss}
            return [(scored.split, scored.step, _measured(values))]
        case (DoneEvent() as done, StartEvent()):
            values = {f"final/{name}": value for name, value in metrics_of(said).items()}
            return [(f"final {done.status}", done.step, _measured(values))]
    return []


def _measured(values: dict[str, Any]) -> dict[str, Number]:
    """Numbers alone: what was not measured is left out."""
    return {name: value for name, value in values.items() if isinstance(value, int | float)}


def _trackio() -> Any:
    """trackio's storage, imported now.

    Below `trackio.init`, which has one run at a time, asks the Hub who is logged in, and prints.
    """
    try:
        from trackio.sqlite_storage import SQLiteStorage  # noqa: PLC0415
    except ImportError as err:
        raise SpecError("A mirror in trackio needs trackio, which is not installed: pip install trackio.") from err
    return SQLiteStorage
