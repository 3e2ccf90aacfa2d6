"""Drawn updates and matrices, and the dense numpy arrays that measures are checked against."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from lora_lab.lowrank import LowRank

Array = NDArray[np.float64]


def _normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="session")
def draw() -> Callable[..., LowRank]:
    """An update of independent normal factors."""

    def drawn(d_out: int, d_in: int, r: int, *, seed: int = 0, scaling: float = 0.5) -> LowRank:
        return LowRank(_normal(d_out, r, seed=2 * seed), _normal(r, d_in, seed=2 * seed + 1), scaling)

    return drawn


@pytest.fixture(scope="session")
def draw_base() -> Callable[..., Tensor]:
    """A base's matrix in float32: a few strong directions and a long tail, as trained ones have."""

    def drawn(d_out: int, d_in: int, *, seed: int = 100) -> Tensor:
        u, s, vh = torch.linalg.svd(_normal(d_out, d_in, seed=seed), full_matrices=False)
        return ((u * s / (1 + torch.arange(len(s))) ** 0.5) @ vh).float()

    return drawn


@pytest.fixture(scope="session")
def dense() -> Callable[[LowRank], Array]:
    """ΔW itself, by numpy."""

    def made(delta: LowRank) -> Array:
        return delta.scaling * (delta.lora_b.double().numpy() @ delta.lora_a.double().numpy())

    return made
