"""Any optimizer of torch or bitsandbytes by its name, and the learning rate over a run."""

import inspect
import math
from typing import Any

import torch
from peft.optimizers import create_loraplus_optimizer
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from lora_lab.errors import SpecError, out_of_range
from lora_lab.specs import RunSpec

_UNFIT = {"LBFGS": "it wants a closure", "SparseAdam": "it takes sparse gradients alone"}


def optimizer_name(name: str) -> str:
    """The class's own spelling: `adamw` and `paged-adamw8bit` are AdamW and PagedAdamW8bit.

    Raises:
        SpecError: neither torch nor bitsandbytes has it, or it cannot train a model step by step.
    """
    return optimizer_class(name).__name__


def optimizer_class(name: str) -> type[torch.optim.Optimizer]:
    """The class that a name means, torch's before bitsandbytes'.

    Raises:
        SpecError: as `optimizer_name`.
    """
    known = {_plain(key): found for module in (_bitsandbytes(), torch.optim) for key, found in _optimizers(module).items()}
    found = known.get(_plain(name))
    if found is None:
        names = ", ".join(sorted({found.__name__ for found in known.values()}))
        raise SpecError(out_of_range("optimizer", "RunSpec", f"a class of torch.optim or bitsandbytes.optim ({names})", name))
    if found.__name__ in _UNFIT:
        raise SpecError(out_of_range("optimizer", "RunSpec", f"one that steps by itself ({_UNFIT[found.__name__]})", name))
    return found


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def _bitsandbytes() -> Any:
    try:
        import bitsandbytes.optim as optim  # noqa: PLC0415 (an extra)
    except ImportError:
        return None
    return optim


def _optimizers(module: Any) -> dict[str, type[torch.optim.Optimizer]]:
    base = torch.optim.Optimizer
    classes = inspect.getmembers(module, inspect.isclass) if module else []
    return {name: found for name, found in classes if issubclass(found, base) and found is not base and name != "Optimizer8bit"}


def make_optimizer(model: nn.Module, spec: RunSpec) -> torch.optim.Optimizer:
    """The spec's optimizer over all that the model trains; LoRA+ gives B its own learning rate.

    Source: Hayou et al. 2024 (LoRA+, arXiv 2402.12354), as PEFT has it.

    Raises:
        SpecError: the optimizer refuses the parameters, or its arguments.
    """
    found = optimizer_class(spec.optimizer)
    taken = inspect.signature(found).parameters
    trained = [p for p in model.parameters() if p.requires_grad]
    try:
        if spec.tuning.method == "lora+":
            ratio, decay = spec.loraplus_lr_ratio, spec.weight_decay
            made: torch.optim.Optimizer = create_loraplus_optimizer(
                model, found, lr=spec.learning_rate, loraplus_lr_ratio=ratio, loraplus_weight_decay=decay
            )
            return made
        given: dict[str, Any] = {"lr": spec.learning_rate, "weight_decay": spec.weight_decay}
        return found(trained, **{key: value for key, value in given.items() if key in taken})
    except (TypeError, ValueError, RuntimeError) as err:
        reason = str(err).split("\n", 1)[0].rstrip(".")
        raise SpecError(f"{found.__name__} cannot train what {spec.tuning.method} trains: {reason}.") from err


def warm_up_and_cosine(optimizer: torch.optim.Optimizer, *, warmup_steps: int, steps: int) -> LambdaLR:
    """A rising line over the warm-up, then half a cosine down to 0 after the last step; no step stands still."""

    return LambdaLR(optimizer, lambda step: rate_share(step, warmup_steps=warmup_steps, steps=steps))


def rate_share(step: int, *, warmup_steps: int, steps: int) -> float:
    """The share of the learning rate that the step after `step` others takes: what `warm_up_and_cosine` follows.

    >>> [rate_share(step, warmup_steps=1, steps=3) for step in range(4)]
    [0.5, 1.0, 0.5, 0.0]
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1, steps - warmup_steps)))
