"""The formula with its numbers put in, line by line; the lines sum to the peak."""

from collections.abc import Iterator
from dataclasses import dataclass

from lora_lab.budget.activations import spans
from lora_lab.budget.budget import Budget
from lora_lab.budget.ledger import Part


@dataclass(frozen=True, slots=True)
class Line:
    """One summand of the peak."""

    part: Part
    name: str
    text: str
    size_bytes: int


def memory_lines(made: Budget) -> tuple[Line, ...]:
    """Where the formula's peak comes from. Activations are told layer by layer at the loss, where all of them stand."""
    ledger, trained = made.ledger, made.trainable_params
    lines = [
        Line("weights", "the base", _a_parameter(ledger.weights, made.total_params), ledger.weights),
        Line("adapters", "what is trained beside it", _a_parameter(ledger.adapters, trained), ledger.adapters),
        Line("gradients", "gradients", _a_parameter(ledger.gradients, trained), ledger.gradients),
        Line("optimizer", f"{made.step.optimizer}'s states", _a_parameter(ledger.optimizer, trained), ledger.optimizer),
        *_activation_lines(made),
        Line("loss", "the logits and what the loss makes of them", _loss_text(made), ledger.loss),
    ]
    return tuple(line for line in lines if line.size_bytes)


def _a_parameter(size_bytes: int, params: int) -> str:
    """`2 · 3,212,749,824` where it is a whole number of bytes a parameter, else the share."""
    if not params or not size_bytes:
        return ""
    whole, rest = divmod(size_bytes, params)
    return f"{whole} · {params:,}" if not rest else f"{size_bytes / params:.4f} · {params:,}"


def _activation_lines(made: Budget) -> Iterator[Line]:
    tokens = made.step.tokens
    told = 0
    if made.peak_moment == "loss":
        for line in _kept_lines(made, tokens):
            told += line.size_bytes
            yield line
    rest = made.ledger.activations - told
    name = "outside the layers, less what the lowest need not keep" if told else f"at the {made.peak_moment}"
    yield Line("activations", name, "", rest)


def _kept_lines(made: Budget, tokens: int) -> Iterator[Line]:
    for span in spans(made.model.geometry, made.spec, made.step):
        n, layer = len(span.places), span.layer
        if made.step.checkpointing:
            each = layer.checkpointed_bytes_per_token
            yield Line("activations", "the input of each layer", f"{tokens:,} · {n} · {each:,}", tokens * n * each)
            continue
        for kept in layer.kept():
            size_bytes = tokens * n * kept.bytes_per_token
            yield Line("activations", kept.name, f"{tokens:,} · {n} · ({kept.text})", size_bytes)


def _loss_text(made: Budget) -> str:
    architecture = made.model.geometry.architecture
    logits = made.step.tokens * architecture.vocab if architecture else 0
    return f"{made.ledger.loss / logits:g} · {made.step.tokens:,} · {architecture.vocab:,}" if logits and architecture else ""
