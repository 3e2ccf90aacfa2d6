"""The loop: a generator of events. Whoever iterates it drives it; closing it stops the run and keeps what was learned."""

import math
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path

import torch
from peft import PeftModel
from torch import nn

from lora_lab.adapters import Adapter, from_model, load_adapter, moved_by, save, save_initial, save_trained
from lora_lab.benches import Bench, find_bench
from lora_lab.benches.own_data import resolved
from lora_lab.benches.task import on, task_loss
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
from lora_lab.geometry import Geometry
from lora_lab.live_geometry import read_geometry
from lora_lab.lowrank import LowRank
from lora_lab.methods import beneath, trainable_params
from lora_lab.specs import MOVING_INITS, RunSpec
from lora_lab.training.begin import batches, begun
from lora_lab.training.devices import (
    autocast,
    peak_memory_bytes,
    peak_reserved_bytes,
    pick_device,
    pinned_threads,
    precision_on,
    reset_peak_memory,
    seeded,
    threads_for,
)
from lora_lab.training.evaluation import Forgetting, evaluate
from lora_lab.training.gradients import gradient_norms
from lora_lab.training.optimizers import make_optimizer, warm_up_and_cosine

_SPECTRA_A_RUN = 40
_LARGEST_LIVE_R = 512  # a wider ΔW without factors is a second a matrix: it is read when the run has ended


def train_events(spec: RunSpec, folder: Path, *, device: str | None = None) -> Generator[Event, None, None]:
    """Train one run, yielding what happens; the adapter goes to `folder / "adapter"` at every evaluation and at the end.

    Args:
        spec: the run, its targets resolved (`plan_run`).
        folder: an existing folder for the adapter.
        device: `cuda`, `mps` or `cpu`; the best there is if None.

    Yields:
        Start, Evals at step 0, then Steps, Evals and Spectra, an Eval of the test split, Forgetting, then Done. A loss that is
        not finite ends the run as `diverged`.

    Raises:
        DataError: base or data are no longer those of the spec.
        SpecError: no such device.
    """
    bench = find_bench(spec.bench, spec.data)
    _require_same(f"base of {spec.bench}", spec.base_sha256, bench.base_sha256())
    if spec.data:
        _require_same(f"data in {spec.data.path}", spec.data.sha256, resolved(spec.data).sha256)
    return _Run(spec, bench, folder, pick_device(device)).events()


def _require_same(what: str, planned: str, found: str) -> None:
    if found != planned:
        raise DataError(f"The {what} must have SHA-256 {planned[:12]}…, as planned. Got {found[:12]}….")


class _Run:
    """One run's moving parts."""

    def __init__(self, spec: RunSpec, bench: Bench, folder: Path, device: torch.device) -> None:
        self.spec, self.bench, self.device = spec, bench, device
        self.adapter_dir, self.initial = folder / "adapter", folder / "initial"
        self.began_s = time.perf_counter()
        self.splits = bench.splits()
        model = bench.build()
        geometry = read_geometry(model)
        self.total_params = geometry.total_params
        self.heads = bench.head_modules(geometry)
        in_place, by_loftq = spec.tuning.method in ("full", "partial"), spec.tuning.init_lora_weights == "loftq"
        before = _originals(model, geometry) if in_place or by_loftq else {}
        self.originals = before if in_place else {}
        compute_dtype = torch.bfloat16 if precision_on(device) == "bf16" else torch.float32
        self.model = begun(spec, bench, model, self.splits.train, compute_dtype=compute_dtype).to(device)
        self.carrier = beneath(self.model) or self.model  # what has ΔW, where virtual tokens stand above it
        self.start: Mapping[str, LowRank] | None = moved_by(self.carrier, before) if by_loftq else None
        if spec.tuning.init_lora_weights in MOVING_INITS:
            self.start = self._kept_start()
        self.step = 0
        self.longest_tokens: int | None = None
        self.forgetting: Forgetting | None = None

    def _kept_start(self) -> Adapter:
        """The factors that were taken out of the base: ΔW is counted from them, and saved without them."""
        save_initial(self.carrier, self.initial)
        return load_adapter(self.initial)

    def events(self) -> Generator[Event, None, None]:
        reset_peak_memory(self.device)
        yield self._start()
        yield from self._evals_of_base()
        yield self._spectrum()
        try:
            yield from self._steps()
        finally:  # on close() too: that is how Stop works
            self._save()

    def _threads(self) -> AbstractContextManager[None]:
        """This run's threads, for one computation: between events the thread count is the caller's."""
        return pinned_threads(threads_for(self.bench.defaults.threads))

    def _start(self) -> StartEvent:
        trained, head = trainable_params(self.model, self.heads)
        task = self.splits.train.task
        return StartEvent(
            run_id=self.spec.run_id,
            total_steps=self.spec.steps,
            trainable_params=trained,
            head_params=head,
            total_params=self.total_params,
            device=str(self.device),
            precision=precision_on(self.device),
            metric=task.metric,
            echo_score=task.echo(self.splits.train, self.splits.validation),
            echo_test_score=task.echo(self.splits.train, self.splits.test),
            base_note=self.bench.note(),
        )

    def _steps(self) -> Iterator[Event]:
        spec, every = self.spec, max(1, self.spec.steps // _SPECTRA_A_RUN)
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        optimizer = make_optimizer(self.model, spec)
        schedule = warm_up_and_cosine(optimizer, warmup_steps=spec.warmup_steps, steps=spec.steps)
        self.model.train()
        for batch in batches(self.splits.train, spec.batch_size, steps=spec.steps, seed=spec.seed):
            event = self._one_step(batch, parameters, optimizer, float(schedule.get_last_lr()[0]))
            if not math.isfinite(event.loss):
                yield self._diverged(event.loss)
                return
            schedule.step()
            self.step = event.step
            yield event
            last = self.step == spec.steps
            evaluates = self.step % spec.eval_every_steps == 0 or last
            if (self.step % every == 0 and not self.is_dense) or evaluates:
                yield self._spectrum()
            if evaluates:
                self._save()  # before the evaluation, which may take long: a stop in it loses nothing
                score = self._eval(self.model, scored=last or not self.splits.validation.task.is_slow)
                if not math.isfinite(score.loss):
                    yield self._diverged(score.loss)
                    return
                yield score
        if spec.steps:
            yield self._eval(self.model, split="test")
        yield from self._forgotten()
        yield self._done("finished", "")

    def _forgotten(self) -> Iterator[Event]:
        if self.forgetting is not None:
            with self._threads():
                after = self.forgetting.measure(self.model)
            yield ForgettingEvent(self.step, self.forgetting.retention.kept, self.forgetting.before, after)

    def _one_step(
        self, batch: dict[str, torch.Tensor], parameters: list[torch.nn.Parameter], optimizer: torch.optim.Optimizer, lr: float
    ) -> StepEvent:
        """Forward, backward, clip, update; the update is left out where the loss is not finite."""
        if "input_ids" in batch:
            self.longest_tokens = max(self.longest_tokens or 0, batch["input_ids"].shape[1])
        began_s = time.perf_counter()
        with self._threads():
            optimizer.zero_grad()
            with seeded(self.device, self.spec.seed * 1_000_003 + self.step):
                with autocast(self.device):
                    output = self.model(**on(self.device, batch))
                output.loss.backward()
                # AdaLoRA adds a term of its own to the loss that it trains on
                is_own = self.spec.tuning.method == "adalora"
                loss = task_loss(self.splits.train.task, output, batch) if is_own else float(output.loss.detach())
            factors = gradient_norms(self.carrier)
            norm = torch.nn.utils.clip_grad_norm_(parameters, self.spec.max_grad_norm)
            value, norm_value = loss, float(norm)
            if math.isfinite(value) and math.isfinite(norm_value):
                optimizer.step()
                if self.spec.tuning.method == "adalora":  # it cuts its least directions by their gradients
                    self.model.base_model.update_and_allocate(self.step)  # type: ignore[operator,union-attr]
            elif math.isfinite(value):
                value = norm_value  # a gradient that overflowed: the next loss would be lost too
        grad_norms = (factors.grad_norm_a, factors.grad_norm_b)
        return StepEvent(self.step + 1, value, lr, norm_value, self._elapsed_s(), *grad_norms, time.perf_counter() - began_s)

    def _eval(self, model: nn.Module, *, split: SplitName = "validation", scored: bool = True) -> EvalEvent:
        with self._threads():
            score = evaluate(model, getattr(self.splits, split), score=scored)
        return EvalEvent(self.step, score.value, score.loss, self._elapsed_s(), split)

    def _evals_of_base(self) -> Iterator[Event]:
        """Where virtual tokens are attached they are left out: from the first they say something."""
        with_tokens = isinstance(self.model, PeftModel) and self.spec.tuning.virtual_tokens
        base: nn.Module = self.model.get_base_model() if with_tokens else self.model  # type: ignore[operator]
        score = self._eval(base)
        if not math.isfinite(score.loss):
            raise DataError(f"The base of {self.spec.bench} must give a finite loss on the held-out split. Got {score.loss}.")
        yield score
        yield self._eval(base, split="test")
        retention = self.bench.retention()
        if retention is not None:
            with self._threads():
                self.forgetting = Forgetting(base, retention)

    def _spectrum(self) -> SpectrumEvent:
        with self._threads():
            adapter = from_model(self.carrier, originals=self.originals, start=self.start)
            small = {name: delta for name, delta in adapter.items() if delta.r <= _LARGEST_LIVE_R}
            return SpectrumEvent(self.step, {name: tuple(delta.svd("gram")[1].tolist()) for name, delta in small.items()})

    @property
    def is_dense(self) -> bool:
        """Whether ΔW comes without factors, and its spectrum at the price of a whole matrix."""
        return self.spec.tuning.method in ("full", "partial", "dora", "ia3")

    def _diverged(self, loss: float) -> DoneEvent:
        return self._done("diverged", f"The loss became {loss} at step {self.step + 1}: try a smaller learning rate.")

    def _done(self, status: Status, message: str) -> DoneEvent:
        return DoneEvent(
            status,
            self.step,
            message,
            self._elapsed_s(),
            peak_memory_bytes(self.device),
            peak_reserved_bytes(self.device),
            self.longest_tokens,
        )

    def _save(self) -> None:
        if not isinstance(self.model, PeftModel):
            save_trained(self.model, self.adapter_dir, record=asdict(self.spec.tuning), step=self.step)
            return
        save(
            self.carrier,
            self.adapter_dir,
            base_name=self.bench.base_name or str(self.bench.base_folder().resolve()),
            step=self.step,
            initial=self.initial if self.spec.tuning.init_lora_weights in MOVING_INITS else None,
            virtual_tokens=self.model if self.carrier is not self.model else None,
        )

    def _elapsed_s(self) -> float:
        return time.perf_counter() - self.began_s


def _originals(model: nn.Module, geometry: Geometry) -> dict[str, torch.Tensor]:
    """A copy of every matrix but a head's and the tied ones, (d_out, d_in), to count ΔW against when they are trained in place."""
    wanted = [m for m in geometry.matrices if m.kind != "experts" and not m.tied and m.role != "head"]
    stored = {m.name: model.get_parameter(f"{m.name}.weight").detach().clone() for m in wanted}
    return {m.name: stored[m.name].T if m.kind == "conv1d" else stored[m.name] for m in wanted}
