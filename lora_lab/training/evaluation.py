"""Scoring a model on a split, and measuring what it still can."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lora_lab.benches import Retention, Split
from lora_lab.benches.task import on, without_labels
from lora_lab.training.devices import autocast
from lora_lab.training.modes import in_eval_mode


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
    return _evaluated(model, split, heads=1, score=score)[0]


@torch.no_grad()
def evaluate_heads(model: nn.Module, split: Split, *, heads: int) -> list[Score]:
    """`evaluate` of a model that gives the answers of so many heads, one block of rows after the other.

    Args:
        model: of n rows it gives the logits of heads · n.
        split: its task reads logits: nothing is written here.
        heads: how many.
    """
    return _evaluated(model, split, heads=heads, score=True)


def _evaluated(model: nn.Module, split: Split, *, heads: int, score: bool) -> list[Score]:
    device, task = next(model.parameters()).device, split.task
    predicted: list[list[Tensor]] = [[] for _ in range(heads)]
    totals, weight, order = [0.0] * heads, 0, split.by_length()
    with in_eval_mode(model):
        for rows in torch.split(order, task.rows_a_batch):
            batch = split.batch(rows)
            with autocast(device):
                logits = model(**on(device, batch if heads == 1 else without_labels(batch))).logits
            for head, own in enumerate(logits.chunk(heads)):
                loss, count = task.loss(own, batch)
                totals[head] += float(loss)
                found = task.predictions(own)
                predicted[head] += [] if found is None else [found]
            weight += count
        back = order.argsort()
        scores = [task.score(model, split, torch.cat(found)[back] if found else None) if score else None for found in predicted]
    return [Score(value, total / max(weight, 1)) for value, total in zip(scores, totals, strict=True)]


class Forgetting:
    """What a base could before it was trained, measured when this is made, to be measured again afterwards.

    Args:
        model: the base, before the first step.
        retention: what to measure.
    """

    def __init__(self, model: nn.Module, retention: Retention) -> None:
        self.retention = retention
        self._embeddings = embeddings(model, retention.split) if retention.kept == "cosine" else None
        self.before = 1.0 if self._embeddings is not None else self.measure(model)

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
    with in_eval_mode(model):
        return _embeddings(model, split)


def _embeddings(model: nn.Module, split: Split) -> Float[Tensor, "n d"]:
    device = next(model.parameters()).device
    order, found = split.by_length(), []
    for rows in torch.split(order, split.task.rows_a_batch):
        batch = on(device, split.batch(rows))
        with autocast(device):
            hidden = model(**batch, output_hidden_states=True).hidden_states[-1]
        mask = batch["attention_mask"][..., None]
        text = hidden[:, -mask.shape[1] :].float()
        found.append(((text * mask).sum(1) / mask.sum(1)).cpu())
    return torch.cat(found)[order.argsort()]
