"""What a model trains, counted on the model itself."""

from collections.abc import Iterable

from torch import nn


def trainable_params(model: nn.Module, head_modules: Iterable[str] = ()) -> tuple[int, int]:
    """(all that is trained, the part of it that is a task head: PEFT's copies, or these modules of the base)."""
    heads = tuple(f"{head}." for head in head_modules)
    trained = [(name, p.numel()) for name, p in model.named_parameters() if p.requires_grad]
    in_head = (n for name, n in trained if "modules_to_save" in name or name.startswith(heads or ("\0",)))
    return sum(n for _, n in trained), sum(in_head)
