"""A run that is being trained, in a folder that no reader looks into; how it becomes a run, and what a killed process left.

    .draft-3f2a90c1d4e5/      being trained
    3f2a90c1d4e5/             a run, whole: renamed into place when everything in it is written
    .old-3f2a90c1d4e5/        the lesser run that it replaces, for the moment between two renames
    .gone-3f2a90c1d4e5/       being removed

All of these belong to whoever has the claim on the run. A process may be killed between any two lines here: `rescue` then
finds either a draft, from which it makes the most, or a run.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lora_lab.adapters import SNAPSHOTS, drop_snapshots_after, replaced, restore, saved_step
from lora_lab.errors import LabError
from lora_lab.events import DoneEvent, EvalEvent, Event, StartEvent, StepEvent
from lora_lab.specs import RunSpec
from lora_lab.sweeps.claims import Claim, unwritable
from lora_lab.sweeps.outcome import metrics_of
from lora_lab.sweeps.run import COMPLETE, log_lines, read_events, read_run

_DRAFT, _OLD, _GONE = ".draft-", ".old-", ".gone-"
_CONTENT = ("spec.json", "events.jsonl", "metrics.json", "adapter", SNAPSHOTS)


class Draft:
    """A run that is being trained by who has the claim on it, which goes with the draft."""

    def __init__(self, root: Path, spec: RunSpec, claim: Claim) -> None:
        self.root, self.spec, self._claim = root, spec, claim
        self.folder = draft_folder(root, spec.run_id)
        try:
            self.folder.mkdir()
        except OSError as err:
            raise unwritable(root, err.strerror) from None
        (self.folder / "spec.json").write_text(json.dumps(spec.to_json(), indent=1) + "\n")

    def record(self, event: Event) -> None:
        """Append the event to the run's log."""
        with (self.folder / "events.jsonl").open("a", encoding="utf-8") as log:  # open no longer than that: a draft may be dropped
            log.write(log_lines([event]))

    def put(self, files: Mapping[str, bytes]) -> None:
        """Keep what was saved elsewhere, by its paths in the run's folder: snapshots of ΔW, and an adapter in place of the last."""
        for name, content in _inside(files, SNAPSHOTS).items():
            path = self.folder / SNAPSHOTS / name
            path.parent.mkdir(exist_ok=True)
            fresh = path.with_name(f"{name}.new")
            fresh.write_bytes(content)
            os.replace(fresh, path)
        with replaced(self.folder / "adapter") as fresh:
            for name, content in _inside(files, "adapter").items():
                (fresh / name).parent.mkdir(parents=True, exist_ok=True)
                (fresh / name).write_bytes(content)

    def begin_again(self) -> None:
        """Forget what was recorded."""
        (self.folder / "events.jsonl").unlink(missing_ok=True)
        for folder in ("adapter", SNAPSHOTS):
            shutil.rmtree(self.folder / folder, ignore_errors=True)

    def commit(self) -> None:
        """Turn the draft into a run, in one rename; a run that is there by now and further on stays."""
        try:
            _publish(self.folder, self.root / self.spec.run_id)
        finally:
            self._claim.give_back()

    def keep_saved(self) -> None:
        """Do what `recover` would if this process were killed: what was saved last becomes a stopped run, or nothing is left."""
        try:
            rescue(self.root, self.spec.run_id)
        finally:
            self._claim.give_back()

    def discard(self) -> None:
        """Leave nothing behind."""
        try:
            _remove(self.folder)
        finally:
            self._claim.give_back()


def _inside(files: Mapping[str, bytes], folder: str) -> dict[str, bytes]:
    return {name.removeprefix(f"{folder}/"): content for name, content in files.items() if name.startswith(f"{folder}/")}


def draft_folder(root: Path, run_id: str) -> Path:
    """Where that run is while it is trained."""
    return root / f"{_DRAFT}{run_id}"


def left_behind(root: Path) -> set[str]:
    """The runs that there is more of than a run: trained now, or by a process that is gone."""
    return {path.name.removeprefix(prefix) for prefix in (_DRAFT, _OLD, _GONE) for path in root.glob(f"{prefix}*")}


def rescue(root: Path, run_id: str) -> bool:
    """Deal with what a process that is gone left of a run: its adapter as last saved becomes a stopped run, the rest is cleared.

    For who has the claim on the run.

    Returns:
        Whether the draft became the run.
    """
    draft, old, final = draft_folder(root, run_id), root / f"{_OLD}{run_id}", root / run_id
    kept = _mend(draft) and _publish(draft, final)
    _remove(draft)
    if old.exists() and not final.exists():  # killed between the two renames, and the draft is lost since
        os.rename(old, final)
    for rest in (old, root / f"{_GONE}{run_id}"):
        shutil.rmtree(rest, ignore_errors=True)
    return kept


def remove(root: Path, run_id: str) -> None:
    """Take a run and all that is left of it away, for who has the claim on it."""
    rescue(root, run_id)
    _put_away(root / run_id, root / f"{_GONE}{run_id}")


def _remove(draft: Path) -> None:
    _put_away(draft, draft.with_name(draft.name.replace(_DRAFT, _GONE)))


def _put_away(folder: Path, gone: Path) -> None:
    """Out of sight first: what is half removed is never taken for a draft, or for a run."""
    shutil.rmtree(gone, ignore_errors=True)
    if folder.exists():
        os.rename(folder, gone)
        shutil.rmtree(gone, ignore_errors=True)


def _publish(draft: Path, final: Path) -> bool:
    """Write the metrics, flush everything to the disk, rename. A lesser run that is there already is replaced.

    Returns:
        Whether the draft became the run: one that is complete, or further on than a stopped draft, stays.
    """
    metrics = metrics_of(read_events(draft))
    if _is_further(final, metrics):
        _remove(draft)
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
    old = draft.with_name(draft.name.replace(_DRAFT, _OLD))
    if final.exists():
        shutil.rmtree(old, ignore_errors=True)
        os.rename(final, old)
    os.rename(draft, final)
    shutil.rmtree(old, ignore_errors=True)
    return True


def _is_further(final: Path, metrics: dict[str, Any]) -> bool:
    there = read_run(final)
    if there is None:
        return False
    return there.is_complete or (metrics["status"] not in COMPLETE and there.metrics.get("step", 0) > metrics["step"])


def _mend(draft: Path) -> bool:
    """Make a stopped run of what a killed process left: its adapter as last saved, the log and the snapshots of ΔW up to that.

    Returns:
        Whether there is anything to keep: an adapter of at least one step.
    """
    restore(draft / "adapter")
    step = saved_step(draft / "adapter")
    try:
        events = read_events(draft)
        RunSpec.from_json(json.loads((draft / "spec.json").read_text()))
    except (OSError, LabError, ValueError, KeyError, TypeError):
        return False
    if not step or not events:
        return False
    drop_snapshots_after(draft / SNAPSHOTS, step)
    if not any(isinstance(event, DoneEvent) for event in events):
        events = [event for event in events if isinstance(event, StartEvent) or event.step <= step]
        message = "The training process ended before the run did; the adapter as last saved was kept."
        elapsed_s = max(event.elapsed_s for event in events if isinstance(event, StepEvent | EvalEvent))
        _replace_log(draft, [*events, DoneEvent("stopped", step, message, elapsed_s, None)])
    return True


def _replace_log(draft: Path, events: list[Event]) -> None:
    """In one rename: whoever mends may be killed too."""
    fresh = draft / "events.new"
    fresh.write_text(log_lines(events), encoding="utf-8")
    os.replace(fresh, draft / "events.jsonl")
