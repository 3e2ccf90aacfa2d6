"""The bill of a training step: integers, bytes."""

from dataclasses import dataclass
from typing import Literal

Part = Literal["weights", "adapters", "gradients", "optimizer", "activations", "loss"]
PARTS: tuple[Part, ...] = ("weights", "adapters", "gradients", "optimizer", "activations", "loss")
# What a CUDA context takes on a card before the first tensor, and what the allocator loses to fragmentation. Between what
# PyTorch had allocated at its peak and what nvidia-smi showed lay 1.8 GB and more; both are shown apart, never as our own figure.
CONTEXT_BYTES = 500_000_000
_FRAGMENTATION_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class Ledger:
    """What is alive when a step holds most, so that the parts sum to `peak`: bytes that the allocator has given out.

    `overhead` is the CUDA context and fragmentation, an estimate and outside the peak; a card must hold both.
    """

    weights: int = 0
    adapters: int = 0
    gradients: int = 0
    optimizer: int = 0
    activations: int = 0
    loss: int = 0

    @property
    def peak(self) -> int:
        """Allocated bytes at the peak (what `torch.cuda.max_memory_allocated` counts)."""
        return self.weights + self.adapters + self.gradients + self.optimizer + self.activations + self.loss

    @property
    def overhead(self) -> int:
        """Context and fragmentation, bytes."""
        return CONTEXT_BYTES + round(_FRAGMENTATION_SHARE * self.peak)

    @property
    def on_card(self) -> int:
        """What a card must have: peak and overhead."""
        return self.peak + self.overhead

    def difference_from(self, other: "Ledger") -> float:
        """How far this peak lies from another's, as a share of the other's."""
        return self.peak / other.peak - 1

    def to_json(self) -> dict[str, int]:
        """Every part, the overhead and the peak, bytes."""
        return {**{part: getattr(self, part) for part in PARTS}, "overhead": self.overhead, "peak": self.peak}
