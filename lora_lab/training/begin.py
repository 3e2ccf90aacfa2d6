"""A run's model as its first step finds it, and the batches that it sees."""

from collections.abc import Iterator

import torch
from jaxtyping import Int
from torch import Tensor, nn

from lora_lab.adapters import Adapter, from_model
from lora_lab.benches import Bench, Split
from lora_lab.live_geometry import read_geometry
from lora_lab.methods import attach_method, draw_start, quantize
from lora_lab.specs import MethodSpec, RunSpec

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


def factors_at_start(spec: RunSpec, bench: Bench) -> Adapter:
    """What the run's first step finds: ΔW = 0 wherever the method promises it, and A as it was drawn.

    Raises:
        LabError: the base or the data cannot be had.
    """
    return from_model(begun(spec, bench, bench.build(), bench.splits().train))


def base_at_start(bench: Bench, *, seed: int) -> nn.Module:
    """The base as a run of this seed finds it, with nothing attached: under the head that such a run begins with; on the CPU."""
    model: nn.Module = bench.build()
    draw_start(model, MethodSpec(), seed=seed, heads=bench.head_modules(read_geometry(model)))
    return model


def batches(split: Split, batch_size: int, *, steps: int, seed: int) -> Iterator[dict[str, torch.Tensor]]:
    """`steps` batches of the split, its rows as `row_batches` has them."""
    return (split.batch(rows) for rows in row_batches(len(split), batch_size, steps=steps, seed=seed))


def row_batches(n: int, batch_size: int, *, steps: int, seed: int) -> Iterator[Int[Tensor, " batch"]]:
    """`steps` batches of row numbers out of 0..n-1 in a seeded order, reshuffled every epoch.

    An epoch shows every row once, and no batch holds a row twice unless the split is smaller than a batch: rows left over from
    one epoch come late in the next.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        while len(order) < batch_size:
            fresh = torch.randperm(n, generator=generator)
            order = torch.cat([order, fresh[torch.isin(fresh, order).int().argsort(stable=True)]])
        yield order[:batch_size]
        order = order[batch_size:]
