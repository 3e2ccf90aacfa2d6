"""W beside ΔW: where one matrix of the base comes from, and that the two fit."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from lora_lab.errors import AdapterError
from lora_lab.lowrank import LowRank


@runtime_checkable
class NamedWeights(Protocol):
    """What gives the W of a module by its name, one matrix at a time: `weights.BaseWeights`, or anything like it."""

    def named(self, name: str) -> Float[Tensor, "d_out d_in"]:
        """The original W of the module of that name."""
        ...


def base_matrix(name: str, delta: LowRank, w: Float[Tensor, "d_out d_in"]) -> Float[Tensor, "d_out d_in"]:
    """W in float64 on the CPU.

    Raises:
        AdapterError: ΔW has another shape.
    """
    if tuple(w.shape) != delta.shape:
        raise AdapterError(f"{name} must have one shape in adapter and base. Got {delta.shape} and {tuple(w.shape)}.")
    return w.detach().to("cpu", torch.float64)
