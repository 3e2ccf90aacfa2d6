"""Scoring a model on a split, and measuring what it still can."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lora_lab.benches import Retention, Split
from lora_lab.benches.task import on
from lora_lab.training.devices import autocast


@dataclass(frozen=True, slots=True)
class Score:
    """The task's metric, None where it was not asked for or there is none, and the mean loss in nats."""

    value: float | None
    loss: float


@torch.no_grad()
def evaluate(model: nn.Module, split: Split, *, score: bool = True) -> Score:
    """The model's score on the whole split; the model comes back in the mode it was in.

    Args:
        model: anything with logits.
        split: its task says what loss and metric are.
        score: leave the metric out where False; where answers have to be written it takes far longer than the loss.
    """
    device, task = next(model.parameters()).device, split.task
    was_training = model.training
    model.eval()
    predicted: list[Tensor] = []
    total, weight = 0.0, 0
    order = split.by_length()
    for rows in torch.split(order, task.rows_a_batch):
        batch = split.batch(rows)
        with autocast(device):
            output = model(**on(device, batch))
        loss, count = task.loss(output.logits, batch)
        total, weight = total + float(loss), weight + count
        found = task.predictions(output.logits)
        predicted += [] if found is None else [found]
    value = task.score(model, split, torch.cat(predicted)[order.argsort()] if predicted else None) if score else None
    model.train(was_training)
    return Score(value, total / max(weight, 1))


class Forgetting:
    """What a base could before it was trained, measured when this is made, to be measured again afterwards.

    Args:
        model: the base, before the first step.
        retention: what to measure.
    """

    def __init__(self, model: nn.Module, retention: Retention) -> None:
        self.retention = retention
        self._embeddings = embeddings(model, retention.split) if retention.kept == "cosine" else None
        self.before = self.measure(model)

    def measure(self, model: nn.Module) -> float:
        """The accuracy, the loss in nats, or the mean cosine to the embeddings of before."""
        if self._embeddings is not None:
            now = embeddings(model, self.retention.split)
            return float(nn.functional.cosine_similarity(self._embeddings, now).mean())
        found = evaluate(model, self.retention.split)
        return found.loss if found.value is None or self.retention.kept == "loss" else found.value


@torch.no_grad()
def embeddings(model: nn.Module, split: Split) -> Float[Tensor, "n d"]:
    """Mean-pooled last hidden states of every row, on the CPU; virtual tokens left out."""
    device, was_training = next(model.parameters()).device, model.training
    model.eval()
    order, found = split.by_length(), []
    for rows in torch.split(order, split.task.rows_a_batch):
        batch = on(device, split.batch(rows))
        with autocast(device):
            hidden = model(**batch, output_hidden_states=True).hidden_states[-1]
        mask = batch["attention_mask"][..., None]
        text = hidden[:, -mask.shape[1] :].float()
        found.append(((text * mask).sum(1) / mask.sum(1)).cpu())
    model.train(was_training)
    return torch.cat(found)[order.argsort()]
