"""The loop: a generator of events. Whoever iterates it drives it; closing it stops the runs and keeps what was learned."""

import math
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch import nn

from lora_lab.adapters import SNAPSHOTS, write_snapshot
from lora_lab.benches import Bench, Splits, find_bench
from lora_lab.benches.own_data import resolved
from lora_lab.errors import DataError
from lora_lab.events import (
    DoneEvent,
    EvalEvent,
    Event,
    ForgettingEvent,
    SpectrumEvent,
    SplitName,
    StartEvent,
    Status,
    StepEvent,
)
from lora_lab.specs import RunSpec
from lora_lab.training.devices import (
    peak_memory_bytes,
    peak_reserved_bytes,
    pick_device,
    pinned_threads,
    precision_on,
    reset_peak_memory,
    threads_for,
)
from lora_lab.training.engine import Engine, Outcome
from lora_lab.training.evaluation import Forgetting, Score, evaluate
from lora_lab.training.grouped import GroupedEngine
from lora_lab.training.plain import PlainEngine

SPECTRA_A_RUN = 40  # of ΔW at most, besides those at its evaluations
Tagged = tuple[str, Event]


def train_events(spec: RunSpec, folder: Path, *, device: str | None = None) -> Generator[Event, None, None]:
    """Train one run, yielding what happens; the adapter goes to `folder / "adapter"` at every evaluation and at the end.

    Args:
        spec: the run, its targets resolved (`plan_run`).
        folder: an existing folder for the adapter, and for the snapshots of ΔW that the spec asks for.
        device: `cuda`, `mps` or `cpu`; the best there is if None.

    Yields:
        Start, Evals at step 0, then Steps, Evals and Spectra, an Eval of the test split, Forgetting, then Done. A loss that is
        not finite ends the run as `diverged`.

    Raises:
        DataError: base or data are no longer those of the spec.
        SpecError: no such device.
    """
    bench = _bench_of(spec)
    return _one(spec, bench, folder, pick_device(device))


def _one(spec: RunSpec, bench: Bench, folder: Path, device: torch.device) -> Generator[Event, None, None]:
    began_s, splits = time.perf_counter(), bench.splits()
    engine = PlainEngine(spec, bench, splits, folder, device)
    loop = _Loop(engine, bench, splits, {spec.run_id: folder}, device, threads_for(bench.defaults.threads), began_s)
    for _, event in loop.events():
        yield event


def group_events(
    specs: Sequence[RunSpec], folders: Mapping[str, Path], *, device: str | None = None, threads: int | None = None
) -> Generator[Tagged, None, None]:
    """Train runs that go together (`may_share`) in one pass, yielding (run id, event): of each run what `train_events` yields.

    Args:
        specs: the runs.
        folders: by run id, an existing folder for each adapter.
        device: as for `train_events`.
        threads: on the CPU; the bench's where nothing is said.

    Raises:
        DataError: base or data are no longer those of the specs.
        SpecError: no such device.
    """
    bench = _bench_of(specs[0])
    return _many(specs, bench, folders, pick_device(device), threads or threads_for(bench.defaults.threads))


def _many(
    specs: Sequence[RunSpec], bench: Bench, folders: Mapping[str, Path], device: torch.device, threads: int
) -> Generator[Tagged, None, None]:
    began_s, splits = time.perf_counter(), bench.splits()
    engine = GroupedEngine(specs, bench, splits, device)
    yield from _Loop(engine, bench, splits, folders, device, threads, began_s).events()


def _bench_of(spec: RunSpec) -> Bench:
    bench = find_bench(spec.bench, spec.data)
    _require_same(f"base of {spec.bench}", spec.base_sha256, bench.base_sha256())
    if spec.data:
        _require_same(f"data in {spec.data.path}", spec.data.sha256, resolved(spec.data).sha256)
    return bench


def _require_same(what: str, planned: str, found: str) -> None:
    if found != planned:
        raise DataError(f"The {what} must have SHA-256 {planned[:12]}…, as planned. Got {found[:12]}….")


class _Loop:
    """The order of events, whatever takes the steps. The runs of one engine have their steps and evaluations in common."""

    def __init__(
        self,
        engine: Engine,
        bench: Bench,
        splits: Splits,
        folders: Mapping[str, Path],
        device: torch.device,
        threads: int,
        began_s: float,
    ) -> None:
        self.engine, self.bench, self.splits, self.device, self.threads = engine, bench, splits, device, threads
        self.folders = folders
        self.total = len(engine.specs)
        self.group_id = engine.specs[0].run_id if self.total > 1 else ""
        self.began_s = began_s
        self.step = 0
        self.saved: dict[str, int] = {}
        self.longest_tokens: dict[str, int] = {}
        self.forgetting: Forgetting | None = None

    def events(self) -> Generator[Tagged, None, None]:
        reset_peak_memory(self.device)
        yield from self._starts()
        yield from self._evals_of_base()
        yield from self._spectra()
        try:
            yield from self._steps()
        finally:  # on close() too: that is how Stop works
            for spec in self.engine.specs:
                self._save(spec)

    def _threads(self) -> AbstractContextManager[None]:
        """The runs' threads, for one computation: between events the thread count is the caller's."""
        return pinned_threads(self.threads)

    def _starts(self) -> Iterator[Tagged]:
        task = self.splits.train.task
        echoes = [task.echo(self.splits.train, split) for split in (self.splits.validation, self.splits.test)]
        note = self.bench.note()
        for spec in self.engine.specs:
            trained, head = self.engine.counts(spec)
            yield (
                spec.run_id,
                StartEvent(
                    run_id=spec.run_id,
                    total_steps=spec.steps,
                    trainable_params=trained,
                    head_params=head,
                    total_params=self.engine.total_params,
                    device=str(self.device),
                    precision=precision_on(self.device),
                    metric=task.metric,
                    echo_score=echoes[0],
                    echo_test_score=echoes[1],
                    base_note=note,
                    group_runs=self.total,
                    group_id=self.group_id,
                ),
            )

    def _steps(self) -> Iterator[Tagged]:
        first = self.engine.specs[0]
        every = max(1, first.steps // SPECTRA_A_RUN)
        for step in range(1, first.steps + 1):
            yield from self._one_step(step)
            if not self.engine.specs:
                return
            self._keep_snapshots()
            last = step == first.steps
            evaluates = step % first.eval_every_steps == 0 or last
            if (step % every == 0 and self.engine.spectra_are_cheap) or evaluates:
                yield from self._spectra()
            if evaluates:
                for spec in tuple(self.engine.specs):
                    yield from self._evaluated(spec, last=last)
        for spec in tuple(self.engine.specs):
            yield from self._finished(spec)

    def _keep_snapshots(self) -> None:
        for spec in self.engine.specs:
            if self.step in spec.snapshot_steps:
                write_snapshot(self.folders[spec.run_id] / SNAPSHOTS, self.engine.factors(spec), step=self.step)

    def _one_step(self, step: int) -> Iterator[Tagged]:
        """Forward, backward, clip, update; a run whose loss is not finite is over, and not updated."""
        began_s = time.perf_counter()
        with self._threads():
            found = self.engine.backward(step)
        for outcome in found:
            self.longest_tokens[outcome.run_id] = max(self.longest_tokens.get(outcome.run_id, 0), outcome.tokens or 0)
        lost = {outcome.run_id: outcome.loss for outcome in found if not math.isfinite(outcome.loss)}
        for spec in [spec for spec in self.engine.specs if spec.run_id in lost]:
            yield from self._diverged(spec, lost[spec.run_id])
        if not self.engine.specs:
            return
        with self._threads():
            self.engine.update()
        self.step = step
        step_s = time.perf_counter() - began_s if self.total == 1 else None  # of a run in company it is not known
        for outcome in found:
            if outcome.run_id not in lost:
                yield outcome.run_id, self._step_event(step, outcome, step_s)

    def _step_event(self, step: int, found: Outcome, step_s: float | None) -> StepEvent:
        norms = (found.grad_norm, self._elapsed_s(), found.grad_norm_a, found.grad_norm_b)
        return StepEvent(step, found.loss, found.learning_rate, *norms, step_s)

    def _evaluated(self, spec: RunSpec, *, last: bool) -> Iterator[Tagged]:
        self._save(spec)  # before the evaluation, which may take long: a stop in it loses nothing
        with self.engine.model_of(spec) as model:
            event = self._eval(model, scored=last or not self.splits.validation.task.is_slow)
        if math.isfinite(event.loss):
            yield spec.run_id, event
        else:
            yield from self._diverged(spec, event.loss)

    def _finished(self, spec: RunSpec) -> Iterator[Tagged]:
        forgetting = self.forgetting
        with self.engine.model_of(spec) as model:
            if spec.steps:
                yield spec.run_id, self._eval(model, split="test")
            if forgetting is not None:
                with self._threads():
                    after = forgetting.measure(model)
                yield spec.run_id, ForgettingEvent(self.step, forgetting.retention.kept, forgetting.before, after)
        yield from self._done(spec, "finished", "")

    def _eval(self, model: nn.Module, *, split: SplitName = "validation", scored: bool = True) -> EvalEvent:
        with self._threads():
            score = evaluate(model, getattr(self.splits, split), score=scored)
        return self._eval_event(score, split)

    def _eval_event(self, score: Score, split: SplitName) -> EvalEvent:
        return EvalEvent(self.step, score.value, score.loss, self._elapsed_s(), split)

    def _evals_of_base(self) -> Iterator[Tagged]:
        with self._threads():
            validation = self.engine.base_scores(self.splits.validation)
        for score in validation.values():
            if not math.isfinite(score.loss):
                allowed = f"The base of {self.bench.name} must give a finite loss on the held-out split."
                raise DataError(f"{allowed} Got {score.loss}.")
        for run_id, score in validation.items():
            yield run_id, self._eval_event(score, "validation")
        with self._threads():
            test = self.engine.base_scores(self.splits.test)
        for run_id, score in test.items():
            yield run_id, self._eval_event(score, "test")
        retention = self.bench.retention()
        if retention is not None:
            with self.engine.base() as base, self._threads():
                self.forgetting = Forgetting(base, retention)

    def _spectra(self) -> Iterator[Tagged]:
        with self._threads():
            found = self.engine.spectra()
        for run_id, singular_values in found.items():
            yield run_id, SpectrumEvent(self.step, dict(singular_values))

    def _diverged(self, spec: RunSpec, loss: float) -> Iterator[Tagged]:
        yield from self._done(spec, "diverged", f"The loss became {loss} at step {self.step + 1}: try a smaller learning rate.")

    def _done(self, spec: RunSpec, status: Status, message: str) -> Iterator[Tagged]:
        """The run's adapter is on the disk before its last event, and the run out of the engine after it."""
        self._save(spec)
        done = DoneEvent(
            status,
            self.step,
            message,
            self._elapsed_s(),
            peak_memory_bytes(self.device),
            peak_reserved_bytes(self.device),
            self.longest_tokens.get(spec.run_id) or None,
        )
        self.engine.drop([spec.run_id])
        yield spec.run_id, done

    def _save(self, spec: RunSpec) -> None:
        if self.saved.get(spec.run_id) != self.step:
            self.engine.save(spec, self.folders[spec.run_id] / "adapter", step=self.step)
            self.saved[spec.run_id] = self.step

    def _elapsed_s(self) -> float:
        return time.perf_counter() - self.began_s
