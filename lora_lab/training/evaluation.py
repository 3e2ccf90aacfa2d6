"""Scoring a model on a split."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lora_lab.benches import Split
from lora_lab.training.devices import autocast

_ROWS = 64


@dataclass(frozen=True, slots=True)
class Score:
    """Accuracy in 0..1 and mean cross-entropy in nats."""

    accuracy: float
    loss: float


def task_loss(output: Any, labels: Int[Tensor, " n"]) -> Float[Tensor, ""]:
    """Mean cross-entropy in nats, without what a method adds to the loss that it trains on, as AdaLoRA does."""
    logits = output.logits.detach().float()
    return nn.functional.cross_entropy(logits, labels.to(logits.device))


@torch.no_grad()
def evaluate(model: nn.Module, split: Split) -> Score:
    """The model's score on the whole split; the model comes back in the mode it was in."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    correct, loss = 0, 0.0
    for rows in torch.split(split.by_length(), _ROWS):
        batch = split.batch(rows)
        labels = batch["labels"].to(device)
        with autocast(device):
            output = model(**{name: column.to(device) for name, column in batch.items()})
        correct += int((output.logits.argmax(1) == labels).sum())
        loss += float(task_loss(output, labels)) * len(labels)
    model.train(was_training)
    return Score(correct / len(split), loss / len(split))
