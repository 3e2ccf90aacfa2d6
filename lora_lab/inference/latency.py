"""Does the adapter cost time? One forward pass of the base and of what adapts it, measured in turn."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import nn

from lora_lab.analysis.timings import Latency, Refusal, Shape, ShapeTimings, timings_of
from lora_lab.benches import Bench
from lora_lab.errors import SpecError
from lora_lab.inference.interleaved import finish, interleaved
from lora_lab.inference.subject import Batch, Subject, default_shapes, find_subject, fitting, inputs_for
from lora_lab.inference.variants import with_variants
from lora_lab.live_geometry import read_geometry
from lora_lab.training import pick_device
from lora_lab.training.devices import pinned_threads

REPEATS = 20
_ROUND_S, _MOST_PASSES = 0.02, 8  # of each variant
# What a model raises where inputs do not suit it.
_CANNOT = (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError)


def measure_latency(
    source: Subject | Bench | str | Callable[[], nn.Module],
    shapes: Sequence[Shape] = (),
    *,
    r: int = 8,
    repeats: int = REPEATS,
    seed: int = 0,
    device: str | None = None,
) -> Latency:
    """Forward passes of base, merged LoRA, LoRA beside the base, both bottleneck adapters and a prefix, in inference mode.

    A round times each variant in a shuffled order, a fast one several times of which the least counts; a ratio to the base is
    one within a round. The adapters are random and not zero: how long they take does not depend on their values. All positions'
    logits are computed. A variant that the base cannot take is in `refused` with the reason, and nowhere else.

    Args:
        source: a bench or its name, a model's folder or Hub id, or what builds a model.
        shapes: batch sizes, with lengths where the base reads tokens; some that suit it where there are none.
        r: LoRA's rank, the bottlenecks' width, the prefix's tokens.
        repeats: rounds at each shape; below 8 nothing can be told from the base.
        seed: of adapters, inputs and orders.
        device: the best there is where None.

    Raises:
        SpecError: a value out of range, or a shape that the base cannot compute.
        LabError: the base cannot be had.
    """
    *_, record = latency_by_shape(find_subject(source), shapes, r=r, repeats=repeats, seed=seed, device=device)
    return record


def latency_by_shape(
    subject: Subject, shapes: Sequence[Shape] = (), *, r: int, repeats: int, seed: int = 0, device: str | None = None
) -> Iterator[Latency]:
    """`measure_latency` shape by shape: each record has one more than the last.

    Raises:
        LabError: as `measure_latency`.
    """
    place = pick_device(device)
    with pinned_threads(subject.threads):
        models, refused = with_variants(subject, r=r, seed=seed, device=place)
        base = models["base"]
        geometry = read_geometry(base)
        threads, dtype = torch.get_num_threads(), str(next(base.parameters()).dtype).removeprefix("torch.")
        record = Latency(subject.name, geometry.total_params, r, place.type, threads, dtype, (), refused)
        for shape in fitting(tuple(shapes), geometry) or default_shapes(geometry):
            inputs = {name: column.to(place) for name, column in inputs_for(base, shape, seed=seed).items()}
            calls, failed = _calls(models, inputs, shape, place)
            times_s = interleaved(calls, repeats=repeats, passes=_passes(calls["base"]), seed=seed)
            measured = ShapeTimings(shape, timings_of(times_s))
            record = replace(record, shapes=(*record.shapes, measured), refused=(*record.refused, *failed))
            yield record


def _passes(call: Callable[[], None]) -> int:
    """How often a round times each variant: short passes are the ones that another process's turn falls upon."""
    begun_s = time.perf_counter()
    call()
    return max(1, min(_MOST_PASSES, round(_ROUND_S / (time.perf_counter() - begun_s))))


def _calls(
    models: Mapping[str, nn.Module], inputs: Batch, shape: Shape, device: torch.device
) -> tuple[dict[str, Callable[[], None]], tuple[Refusal, ...]]:
    """A forward pass of each model, tried once; what fails is not among them."""
    calls, failed = {}, []
    for name, model in models.items():
        call = _call(model, inputs, device)
        try:
            call()
        except _CANNOT as err:
            why = str(err).strip().split("\n", 1)[0] or type(err).__name__
            if name == "base":
                raise SpecError(f"The base cannot compute {shape.label}: {why}") from err
            failed.append(Refusal(name, f"It fails at {shape.label}: {why}", shape))
        else:
            calls[name] = call
    return calls, tuple(failed)


def _call(model: nn.Module, inputs: Batch, device: torch.device) -> Callable[[], None]:
    def call() -> None:
        with torch.inference_mode():
            model(**inputs)
        finish(device)

    return call
