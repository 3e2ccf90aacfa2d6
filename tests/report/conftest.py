"""Evidence made by hand: what a report says is decided by numbers that the test knows."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from lora_lab.analysis import overlap
from lora_lab.analysis.base_records import Amplification
from lora_lab.analysis.comparison import all_pairs
from lora_lab.analysis.random_subspaces import random_generator
from lora_lab.lowrank import LowRank
from lora_lab.report.evidence import two_random, two_ranks, two_seeds
from lora_lab.report.records import Evidence, PairMaps, ScoreCell, ScoreTable

MATRICES = tuple(f"vit.layers.{layer}.attention.{role}_proj" for layer in range(4) for role in "qv")
D, SMALL, LARGE = 64, 4, 16


def score_table(scores: dict[tuple[str, int], tuple[float, ...]], base: float = 0.2) -> ScoreTable:
    cells = tuple(ScoreCell(targets, r, values) for (targets, r), values in scores.items())
    return ScoreTable("accuracy", cells, all_pairs(cells), base)


def random_adapters(r: int, what: str, *, shared: int = 0) -> dict[int, dict[str, LowRank]]:
    """Adapters of three seeds; `shared` leading directions of A are the same in all, whatever the rank."""
    found: dict[int, dict[str, LowRank]] = {}
    for seed in range(3):
        own, common = random_generator(r, what, seed), random_generator("common")
        found[seed] = {}
        for name in MATRICES:
            a = torch.randn(r, D, generator=own, dtype=torch.float64)
            strong = 40 * torch.randn(4, D, generator=common, dtype=torch.float64)
            a[:shared] = strong[:shared]
            found[seed][name] = LowRank(torch.randn(D, r, generator=own, dtype=torch.float64), a, 1.0)
    return found


def amplified(*, on_delta: float, factor: float) -> dict[str, Amplification]:
    """As of a W whose random projections are 0.10 ± 0.01."""
    norm = factor * on_delta
    return {name: Amplification(name, 4, norm, 8.0, on_delta, 2.0, 1e-9, 0.10, 0.01, 0.1, 8, factor) for name in MATRICES}


@pytest.fixture
def evidence() -> Callable[..., Evidence]:
    """Evidence in which nothing is to be found, unless the test puts it there."""

    def make(**changes: Any) -> Evidence:
        small, large = random_adapters(SMALL, "small"), random_adapters(LARGE, "large")
        same = (0.80, 0.81, 0.79)
        targets = {(t, r): same for t, r in (("q", 8), ("k", 8), ("v", 8), ("o", 8), ("q,k", 4), ("q,v", 4), ("q,k,v,o", 2))}
        given = {
            "bench": "digits",
            "metric_name": "accuracy",
            "small": SMALL,
            "large": LARGE,
            "seeds": (0, 1, 2),
            "ranks": score_table({("q,v", r): (0.8 + 0.05 * (-1) ** r, 0.7, 0.9) for r in (1, 4, 16)}),
            "targets": score_table(targets),
            "two_ranks": two_ranks(small, large, SMALL, LARGE),
            "two_seeds": two_seeds(large, LARGE),
            "two_ranks_at_start": PairMaps("", ()),
            "two_seeds_at_start": PairMaps("", ()),
            "two_random": two_random(large),
            "amplifications": {SMALL: amplified(on_delta=0.1, factor=9.0), LARGE: amplified(on_delta=0.1, factor=3.0)},
        }
        return Evidence(**{**given, **changes})

    return make


def zero_maps(r: int) -> PairMaps:
    """Two adapters whose A is zero."""
    nothing = {name: LowRank(torch.zeros(D, r), torch.zeros(r, D), 1.0) for name in MATRICES}
    return PairMaps("zero", ({one.name: one for one in overlap(nothing, nothing, of="a")},))
