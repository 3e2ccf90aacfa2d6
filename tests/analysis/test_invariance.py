"""No measure of ΔW depends on how it was factored: only B A is anything, and (B M)(M⁻¹ A) is the same."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest
import torch
from torch import Tensor

from lora_lab.analysis import (
    amplification_of,
    base_spectrum,
    drift_of,
    gradient_overlap,
    intruders_of,
    likeness_of,
    location_of,
    overlap_of,
    random_subspace,
    relative_norms,
    spectrum_of,
)
from lora_lab.lowrank import LowRank

SHAPES = [(20, 14, 4), (14, 20, 1), (12, 12, 12)]


def rotated(delta: LowRank) -> LowRank:
    m = random_subspace(delta.r, delta.r, "rotation")
    return LowRank(delta.lora_b @ m, m.mT @ delta.lora_a, delta.scaling)


def rescaled(delta: LowRank) -> LowRank:
    """Scale moved between A and B, another amount in every one of the r."""
    m = 10 ** torch.linspace(-2, 2, delta.r, dtype=torch.float64)
    return LowRank(delta.lora_b * m, delta.lora_a / m[:, None], delta.scaling)


def resigned(delta: LowRank) -> LowRank:
    signs = torch.tensor([-1.0, 1.0], dtype=torch.float64).repeat(delta.r)[: delta.r]
    return LowRank(delta.lora_b * signs, signs[:, None] * delta.lora_a, delta.scaling)


def scaling_moved(delta: LowRank) -> LowRank:
    return LowRank(-8 * delta.lora_b, delta.lora_a, -delta.scaling / 8)


def numbers(record: Any) -> list[Any]:
    """Every number of a record, in order, without the scaling, which only says how it was factored."""
    if isinstance(record, dict):
        return [x for key, value in record.items() if key != "scaling" for x in numbers(value)]
    if isinstance(record, (list, tuple)):
        return [x for value in record for x in numbers(value)]
    return [] if isinstance(record, str) else [record]


MEASURES: dict[str, Callable[[LowRank, LowRank, Tensor], Any]] = {
    "spectrum": lambda delta, other, w: spectrum_of("q", delta),
    "norms": lambda delta, other, w: relative_norms("q", delta, w),
    "overlap, input side": lambda delta, other, w: overlap_of("q", delta, other, side="in"),
    "overlap, output side": lambda delta, other, w: overlap_of("q", delta, other, side="out"),
    "likeness": lambda delta, other, w: likeness_of("q", delta, other),
    "amplification": lambda delta, other, w: amplification_of("q", delta, w),
    "intruders": lambda delta, other, w: intruders_of("q", delta, w, k=5),
    "location": lambda delta, other, w: location_of("q", delta, base_spectrum(w), k=3),
    "drift": lambda delta, other, w: drift_of("q", [(1, other), (2, delta), (3, other)]),
    "gradient": lambda delta, other, w: gradient_overlap("q", w, delta),
}


@pytest.mark.parametrize("change", [rotated, rescaled, resigned, scaling_moved])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_every_measure_is_of_the_product_alone(
    draw: Callable[..., LowRank],
    draw_base: Callable[..., Tensor],
    measure: Callable[[LowRank, LowRank, Tensor], Any],
    shape: tuple[int, int, int],
    change: Callable[[LowRank], LowRank],
) -> None:
    delta, other, w = draw(*shape, seed=1), draw(*shape, seed=2), draw_base(*shape[:2])
    plain, changed = (numbers(asdict(measure(one, other, w))) for one in (delta, change(delta)))
    assert changed == [x if x is None else pytest.approx(x, rel=1e-7, abs=1e-7) for x in plain]
