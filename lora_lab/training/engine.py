"""What the loop asks of whatever takes its steps: one run through PEFT, or K runs in one pass."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from lora_lab.benches import Split
from lora_lab.lowrank import LowRank
from lora_lab.specs import RunSpec
from lora_lab.training.evaluation import Score


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one step found for one run before it moved anything.

    Attributes:
        loss: mean over the run's own batch in nats; not finite where the run is lost, by its loss or by its gradient.
        learning_rate: that the step takes.
        grad_norm: of all that the run trains, before clipping.
        grad_norm_a: of LoRA's A over all matrices; None where there is none.
        grad_norm_b: of B.
        tokens: length of the run's batch, padding included; None where it is no text.
    """

    run_id: str
    loss: float
    learning_rate: float
    grad_norm: float
    grad_norm_a: float | None
    grad_norm_b: float | None
    tokens: int | None


def loss_or_lost(loss: float, grad_norm: float) -> float:
    """The loss of a step; what is not finite where the loss or the gradient is not: the next loss would be lost too."""
    return grad_norm if math.isfinite(loss) and not math.isfinite(grad_norm) else loss


class Engine(ABC):
    """Runs that take their steps together."""

    total_params: int
    specs: tuple[RunSpec, ...]  # the runs still under way

    @abstractmethod
    def counts(self, spec: RunSpec) -> tuple[int, int]:
        """(trained parameters, those of them in a task head)."""

    @abstractmethod
    def backward(self, step: int) -> Sequence[Outcome]:
        """Forward and backward of step 1, 2, …; nothing is moved yet."""

    @abstractmethod
    def update(self) -> None:
        """Move what is trained, by the gradients of `backward`."""

    @abstractmethod
    def drop(self, run_ids: Iterable[str]) -> None:
        """These runs are over; the others go on as they are."""

    @abstractmethod
    def model_of(self, spec: RunSpec) -> AbstractContextManager[nn.Module]:
        """A block with the run's model as it is now, for any rows."""

    @abstractmethod
    def base(self) -> AbstractContextManager[nn.Module]:
        """A block with the base that the runs have in common, whosever head is on it; asked for before the first step alone."""

    @abstractmethod
    def base_scores(self, split: Split) -> Mapping[str, Score]:
        """What each run's model scores before the first step, by run: the base, under the head that the run begins with."""

    @abstractmethod
    def spectra(self) -> Mapping[str, Mapping[str, tuple[float, ...]]]:
        """Singular values of every ΔW, largest first, by run and matrix."""

    @abstractmethod
    def factors(self, spec: RunSpec) -> Mapping[str, LowRank]:
        """Every ΔW of the run as it is now, by matrix."""

    @property
    @abstractmethod
    def spectra_are_cheap(self) -> bool:
        """Whether ΔW is kept as factors, so that its spectrum costs little."""

    @abstractmethod
    def save(self, spec: RunSpec, folder: Path, *, step: int) -> None:
        """Write the run's adapter as it is now; the folder is replaced as a whole."""
