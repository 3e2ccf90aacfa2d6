"""Does merging change the answers? The largest difference of a logit, in each precision."""

import copy
from pathlib import Path

import torch
from torch import Tensor, nn

from lora_lab.analysis.timings import LogitDifference, LogitDifferences
from lora_lab.errors import MergeError
from lora_lab.inference.costs import logits_of
from lora_lab.inference.merging import merge
from lora_lab.inference.open_run import open_run
from lora_lab.inference.report import refuse_unmergeable
from lora_lab.inference.subject import Batch, Subject
from lora_lab.inference.variants import CHANGE_SHARE, random_lora
from lora_lab.specs import METHODS, RunSpec
from lora_lab.training.devices import pinned_threads
from lora_lab.units import percent

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def differences_of_run(subject: Subject, spec: RunSpec, adapter_dir: Path) -> LogitDifferences:
    """Merged against unmerged of a run of the subject's bench, on held-out examples.

    Raises:
        MergeError: the method does not merge, or the run's base is in few bits.
        LabError: the base cannot be had.
    """
    refuse_unmergeable(spec)
    if spec.quant != "none":
        raise MergeError(f"The run's base is kept in {spec.quant}: what merging does there `merge` measures.")
    label = METHODS[spec.tuning.method].label
    named = f"the {label} of run {spec.run_id}"
    batches, examples = subject.examples()
    with pinned_threads(subject.threads):
        return LogitDifferences(named, examples, logit_differences(open_run(spec, adapter_dir), batches))


def differences_of_random(subject: Subject, *, r: int, seed: int = 0) -> LogitDifferences:
    """The same of a random LoRA on q and v, each ΔW a tenth of its W0 in norm.

    Raises:
        SpecError: the base cannot take LoRA on q and v.
    """
    batches, examples = subject.examples()
    with pinned_threads(subject.threads):
        model = random_lora(subject, subject.build(), r=r, seed=seed)
        named = f"a random LoRA of r = {r} on q and v, ‖ΔW‖ = {percent(CHANGE_SHARE, 0)} of ‖W0‖ each"
        return LogitDifferences(named, examples, logit_differences(model, batches))


def logit_differences(model: nn.Module, batches: list[Batch]) -> tuple[LogitDifference, ...]:
    """The largest |merged - unmerged| over every logit, with base and adapter cast to fp32, bf16 and fp16 before they merge.

    Unmerged a matrix gives W0 x + s·B·(A x), merged (W0 + s·B·A) x: the same number, rounded in other places. None where the
    device computes no such thing, or overflows.

    Args:
        model: a live PEFT model, which stays as it is.
        batches: keyword arguments of the model.

    Raises:
        MergeError: the adapter cannot be merged, or there is no batch.
    """
    return tuple(_difference(name, dtype, copy.deepcopy(model), batches) for name, dtype in DTYPES.items())


def _difference(name: str, dtype: torch.dtype, model: nn.Module, batches: list[Batch]) -> LogitDifference:
    cast = model.to(dtype)
    inputs = [{key: x.to(dtype) if x.is_floating_point() else x for key, x in batch.items()} for batch in batches]
    try:
        apart = logits_of(cast, inputs)
        if not _all_finite(apart):
            return LogitDifference(name, None, None, f"{name} overflows: some logits are not finite.")
        with merge(cast):
            together = logits_of(cast, inputs)
    except (RuntimeError, NotImplementedError) as err:
        return LogitDifference(name, None, None, str(err).strip().split("\n", 1)[0])
    if not _all_finite(together):
        return LogitDifference(name, None, None, f"{name} overflows once merged: some logits are not finite.")
    return LogitDifference(name, max(map(_farthest, apart, together)), max(float(x.double().abs().max()) for x in apart))


def _all_finite(batches: list[Tensor]) -> bool:
    return all(bool(logits.isfinite().all()) for logits in batches)


def _farthest(apart: Tensor, together: Tensor) -> float:
    return float((apart.double() - together.double()).abs().max())
