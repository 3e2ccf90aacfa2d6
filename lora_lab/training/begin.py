"""A run's model as its first step finds it, and the batches that it sees."""

from collections.abc import Iterator

import torch
from torch import nn

from lora_lab.benches import Bench, Split
from lora_lab.live_geometry import read_geometry
from lora_lab.methods import attach_method, quantize
from lora_lab.specs import RunSpec

_EVA_BATCHES = 4


def begun(
    spec: RunSpec, bench: Bench, base: nn.Module, training: Split, *, compute_dtype: torch.dtype = torch.float32
) -> nn.Module:
    """The base, quantized or not, with the run's method on it at its start values; on the CPU.

    Args:
        spec: a planned run.
        bench: its bench.
        base: a fresh model of the bench, which is changed in place.
        training: the bench's training split, which EVA reads.
        compute_dtype: in which a base in NF4 multiplies.

    Raises:
        SpecError: the base cannot take the method.
    """
    by_eva = spec.tuning.init_lora_weights == "eva"
    return attach_method(
        quantize(base, spec.quant, compute_dtype=compute_dtype),
        spec.tuning,
        seed=spec.seed,
        head_modules=bench.head_modules(read_geometry(base)),
        task_type=bench.task_type,
        batches=list(batches(training, spec.batch_size, steps=_EVA_BATCHES, seed=spec.seed)) if by_eva else (),
        total_steps=spec.steps,
    )


def batches(split: Split, batch_size: int, *, steps: int, seed: int) -> Iterator[dict[str, torch.Tensor]]:
    """`steps` batches of the split in a seeded order, reshuffled every epoch.

    An epoch shows every row once, and no batch holds a row twice unless the split is smaller than a batch: rows left over from
    one epoch come late in the next.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        while len(order) < batch_size:
            fresh = torch.randperm(len(split), generator=generator)
            order = torch.cat([order, fresh[torch.isin(fresh, order).int().argsort(stable=True)]])
        yield split.batch(order[:batch_size])
        order = order[batch_size:]
