"""What is on while training, and what is on while measuring."""

from collections.abc import Iterator
from contextlib import contextmanager

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn


def adapters_in_training(model: nn.Module) -> None:
    """The method's own dropout on, the base's off: the base is frozen, and `lora_dropout` says what a run drops."""
    model.eval()
    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            for name, child in module.named_children():
                child.train(name != "base_layer")


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """A block without dropout; every module comes back in the mode that it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
