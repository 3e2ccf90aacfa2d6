"""One run through PEFT, or through the lab's own method: any method, any start value, any optimizer."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from peft import PeftModel
from torch import nn

from lora_lab.adapters import Adapter, from_model, load_adapter, moved_by, save, save_initial, save_trained
from lora_lab.benches import Bench, Split, Splits
from lora_lab.benches.task import on, task_loss
from lora_lab.geometry import Geometry
from lora_lab.live_geometry import read_geometry
from lora_lab.lowrank import LowRank
from lora_lab.methods import beneath, trainable_params
from lora_lab.specs import MOVING_INITS, RunSpec
from lora_lab.training.begin import batches, begun
from lora_lab.training.devices import autocast, compute_dtype_on, seeded
from lora_lab.training.engine import Engine, Outcome, loss_or_lost
from lora_lab.training.evaluation import Score, evaluate
from lora_lab.training.gradients import gradient_norms
from lora_lab.training.modes import adapters_in_training
from lora_lab.training.optimizers import make_optimizer, warm_up_and_cosine

_LARGEST_LIVE_R = 512  # a wider ΔW without factors is a second a matrix: it is read when the run has ended


class PlainEngine(Engine):
    """One run's moving parts.

    Args:
        spec: the run.
        bench: its bench.
        splits: of the bench.
        folder: where start values that were taken out of the base are kept.
        device: where to train.
    """

    def __init__(self, spec: RunSpec, bench: Bench, splits: Splits, folder: Path, device: torch.device) -> None:
        self.spec, self.bench, self.device, self.task = spec, bench, device, splits.train.task
        self.specs: tuple[RunSpec, ...] = (spec,)
        self.initial = folder / "initial"
        model = bench.build()
        geometry = read_geometry(model)
        self.total_params, self.heads = geometry.total_params, bench.head_modules(geometry)
        in_place, by_loftq = spec.tuning.method in ("full", "partial"), spec.tuning.init_lora_weights == "loftq"
        before = _originals(model, geometry) if in_place or by_loftq else {}
        self.originals = before if in_place else {}
        self.model = begun(spec, bench, model, splits.train, compute_dtype=compute_dtype_on(device)).to(device)
        self.carrier = beneath(self.model) or self.model  # what has ΔW, where virtual tokens stand above it
        self.start: Mapping[str, LowRank] | None = moved_by(self.carrier, before) if by_loftq else None
        if spec.tuning.init_lora_weights in MOVING_INITS:
            self.start = self._kept_start()
        self._parameters = [p for p in self.model.parameters() if p.requires_grad]
        self._batches = batches(splits.train, spec.batch_size, steps=spec.steps, seed=spec.seed)
        self._optimizer = make_optimizer(self.model, spec)
        self._schedule = warm_up_and_cosine(self._optimizer, warmup_steps=spec.warmup_steps, steps=spec.steps)
        self._step = 0
        adapters_in_training(self.model)

    def _kept_start(self) -> Adapter:
        """The factors that were taken out of the base: ΔW is counted from them, and saved without them."""
        save_initial(self.carrier, self.initial)
        return load_adapter(self.initial)

    def counts(self, spec: RunSpec) -> tuple[int, int]:
        return trainable_params(self.model, self.heads)

    def backward(self, step: int) -> Sequence[Outcome]:
        batch, self._step = next(self._batches), step
        self._optimizer.zero_grad()
        with seeded(self.device, stream_seed(self.spec, step)):
            with autocast(self.device):
                output = self.model(**on(self.device, batch))
            output.loss.backward()
            # AdaLoRA adds a term of its own to the loss that it trains on
            is_own = self.spec.tuning.method == "adalora"
            loss = task_loss(self.task, output, batch) if is_own else float(output.loss.detach())
        factors = gradient_norms(self.carrier)
        norm = float(torch.nn.utils.clip_grad_norm_(self._parameters, self.spec.max_grad_norm))
        tokens = batch["input_ids"].shape[1] if "input_ids" in batch else None
        rate = float(self._schedule.get_last_lr()[0])
        told = loss_or_lost(loss, norm)
        return [Outcome(self.spec.run_id, told, rate, norm, factors.grad_norm_a, factors.grad_norm_b, tokens)]

    def update(self) -> None:
        self._optimizer.step()
        if self.spec.tuning.method == "adalora":  # it cuts its least directions by their gradients
            self.model.base_model.update_and_allocate(self._step - 1)  # type: ignore[operator,union-attr]
        self._schedule.step()

    def drop(self, run_ids: Iterable[str]) -> None:
        self.specs = tuple(spec for spec in self.specs if spec.run_id not in set(run_ids))

    @contextmanager
    def model_of(self, spec: RunSpec) -> Iterator[nn.Module]:
        yield self.model

    @contextmanager
    def base(self) -> Iterator[nn.Module]:
        """Where virtual tokens are attached they are left out: from the first they say something."""
        with_tokens = isinstance(self.model, PeftModel) and self.spec.tuning.virtual_tokens
        base: nn.Module = self.model.get_base_model() if with_tokens else self.model  # type: ignore[operator]
        yield base

    def base_scores(self, split: Split) -> Mapping[str, Score]:
        with self.base() as base:
            return {self.spec.run_id: evaluate(base, split)}

    def spectra(self) -> Mapping[str, Mapping[str, tuple[float, ...]]]:
        small = {name: delta for name, delta in self.factors(self.spec).items() if delta.r <= _LARGEST_LIVE_R}
        return {self.spec.run_id: {name: tuple(delta.svd("gram")[1].tolist()) for name, delta in small.items()}}

    def factors(self, spec: RunSpec) -> Mapping[str, LowRank]:
        return from_model(self.carrier, originals=self.originals, start=self.start)

    @property
    def spectra_are_cheap(self) -> bool:
        return self.spec.tuning.method not in ("full", "partial", "dora", "ia3")

    def save(self, spec: RunSpec, folder: Path, *, step: int) -> None:
        if not isinstance(self.model, PeftModel):
            save_trained(self.model, folder, record=asdict(self.spec.tuning), step=step)
            return
        save(
            self.carrier,
            folder,
            base_name=self.bench.said_base_name(),
            step=step,
            initial=self.initial if self.spec.tuning.init_lora_weights in MOVING_INITS else None,
            virtual_tokens=self.model if self.carrier is not self.model else None,
        )


def stream_seed(spec: RunSpec, step: int) -> int:
    """The seed of what a step draws at random: dropout."""
    return spec.seed * 1_000_003 + step - 1


def _originals(model: nn.Module, geometry: Geometry) -> dict[str, torch.Tensor]:
    """A copy of every matrix but a head's and the tied ones, (d_out, d_in), to count ΔW against when they are trained in place."""
    wanted = [m for m in geometry.matrices if m.kind != "experts" and not m.tied and m.role != "head"]
    stored = {m.name: model.get_parameter(f"{m.name}.weight").detach().clone() for m in wanted}
    return {m.name: stored[m.name].T if m.kind == "conv1d" else stored[m.name] for m in wanted}
