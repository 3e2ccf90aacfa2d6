"""Start values that depend on (seed, r, module) and on nothing else."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from peft.tuners.adalora import AdaLoraLayer
from peft.tuners.lora import LoraLayer
from torch import nn

from lora_lab.methods.bottleneck import Bottleneck
from lora_lab.random_key import key_of
from lora_lab.specs import MethodSpec

# PEFT's own names of the start values that are drawn at random and leave the base alone.
_DRAWN: dict[str, bool | str] = {"default": True, "gaussian": "gaussian", "orthogonal": "orthogonal"}


@contextmanager
def stream(*key: object) -> Iterator[None]:
    """A block whose random numbers come from this key alone; the global stream stays where it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(key_of(*key))  # the CPU's alone: start values are drawn there
        yield


def attaching(spec: MethodSpec, seed: int | None) -> AbstractContextManager[None]:
    """A block for the attachment itself, which draws too: virtual tokens, and sketches of W for start values."""
    return nullcontext() if seed is None else stream("attach", seed, spec.r, spec.method)


def draw_start(model: nn.Module, spec: MethodSpec, *, seed: int, heads: Iterable[str] = ()) -> None:
    """Draw every start value anew, one random stream a module, from the distribution that PEFT or the method has.

    With a stream shared by all the A of r = 8 would be rows of that of r = 64, and their overlap an artefact.
    """
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer | Bottleneck):
            with stream("lora_a", seed, spec.r, name):
                _draw(module, spec.init_lora_weights)
    for head in heads:
        _draw_head(model, head, seed=seed)


def _draw(module: LoraLayer | Bottleneck, init: str) -> None:
    if isinstance(module, Bottleneck):
        module.down.reset_parameters()
    elif isinstance(module, AdaLoraLayer):
        module.reset_lora_parameters("default")
    elif init == "orthogonal":
        module.orthogonal_init("default")
    elif init in _DRAWN:
        module.reset_lora_parameters("default", _DRAWN[init])


def _draw_head(model: nn.Module, head: str, *, seed: int) -> None:
    """The linear maps of a head as transformers draws them: normal with sd 0.02, bias 0; the same for every r and method."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and _is_trained_head(name, head):
            with stream("head", seed, name.rpartition(f"{head}")[2].removeprefix(".modules_to_save.default")):
                nn.init.normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _is_trained_head(name: str, head: str) -> bool:
    """PEFT trains a copy of the head; methods of the lab train the head itself."""
    return f"{head}.modules_to_save" in name or name == head or name.startswith(f"{head}.")
