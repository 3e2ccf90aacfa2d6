"""What a split asks of a model: a loss, and a metric that people read."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Float, Int
from scipy.stats import pearsonr
from sklearn.metrics import matthews_corrcoef
from torch import Tensor, nn

if TYPE_CHECKING:
    from lora_lab.benches.bench import Split

Batch = Mapping[str, Tensor]


@dataclass(frozen=True)
class Task(ABC):
    """A loss and a metric. `metric` is a name of `METRICS`; `loss` where there is none but the loss."""

    metric: str
    rows_a_batch: int = 32  # that an evaluation reads at once: more text than that is out of a core's cache
    is_slow: ClassVar[bool] = False  # whether the metric takes far longer than the loss, so that a run under way leaves it out

    @abstractmethod
    def item_losses(self, logits: Float[Tensor, "..."], batch: Batch) -> tuple[Float[Tensor, " items"], Int[Tensor, " items"]]:
        """The loss of every label or token that counts, without what a method adds to it, and which row of the batch it is in."""

    def loss(self, logits: Float[Tensor, "..."], batch: Batch) -> tuple[Float[Tensor, ""], int]:
        """The sum of the loss over a batch, and over how many labels or tokens it is one."""
        losses, _ = self.item_losses(logits, batch)
        return losses.sum(), len(losses)

    @abstractmethod
    def predictions(self, logits: Float[Tensor, "..."]) -> Tensor | None:
        """What the metric needs of a batch, on the CPU, a row an example; None where it reads no logits."""

    @abstractmethod
    def score(self, model: nn.Module, split: "Split", predictions: Tensor | None) -> float | None:
        """The metric on the whole split; None where it has none."""

    def echo(self, train: "Split", held_out: "Split") -> float | None:
        """What repeating the nearest training example would score; None where nobody says."""
        return None


@dataclass(frozen=True)
class Classification(Task):
    """One label a row; cross-entropy in nats."""

    metric: str = "accuracy"

    def item_losses(self, logits: Float[Tensor, "..."], batch: Batch) -> tuple[Float[Tensor, " items"], Int[Tensor, " items"]]:
        labels = batch["labels"].to(logits.device)
        losses = nn.functional.cross_entropy(logits.float(), labels, reduction="none")
        return losses, torch.arange(len(labels), device=labels.device)

    def predictions(self, logits: Float[Tensor, "..."]) -> Tensor | None:
        return logits.argmax(1).cpu()

    def score(self, model: nn.Module, split: "Split", predictions: Tensor | None) -> float | None:
        assert predictions is not None
        labels = split.columns["labels"]
        if self.metric == "matthews":  # as GLUE scores CoLA
            return float(matthews_corrcoef(labels.numpy(), predictions.numpy()))
        return int((predictions == labels).sum()) / len(labels)


@dataclass(frozen=True)
class Regression(Task):
    """One number a row; squared error, scored by Pearson's correlation as GLUE scores STS-B."""

    metric: str = "pearson"

    def item_losses(self, logits: Float[Tensor, "..."], batch: Batch) -> tuple[Float[Tensor, " items"], Int[Tensor, " items"]]:
        labels = batch["labels"].to(logits.device)
        losses = nn.functional.mse_loss(logits.float().squeeze(-1), labels.float(), reduction="none")
        return losses, torch.arange(len(labels), device=labels.device)

    def predictions(self, logits: Float[Tensor, "..."]) -> Tensor | None:
        return logits.float().squeeze(-1).cpu()

    def score(self, model: nn.Module, split: "Split", predictions: Tensor | None) -> float | None:
        """None where either side is constant: no correlation is defined."""
        assert predictions is not None
        labels = split.columns["labels"].float()
        if len(labels) < 2 or float(labels.std()) == 0 or float(predictions.std()) == 0:
            return None
        return float(pearsonr(labels.numpy(), predictions.numpy()).statistic)


def task_loss(task: Task, output: Any, batch: Batch) -> float:
    """Mean loss of a batch, without what a method adds to the loss that it trains on, as AdaLoRA does."""
    total, weight = task.loss(output.logits.detach(), batch)
    return float(total) / max(weight, 1)


def without_labels(batch: Batch) -> dict[str, Tensor]:
    """What a model reads, for its logits alone."""
    return {name: column for name, column in batch.items() if name != "labels"}


def on(device: torch.device, batch: Batch) -> dict[str, Tensor]:
    """The batch on a device."""
    return {name: column.to(device) for name, column in batch.items()}
