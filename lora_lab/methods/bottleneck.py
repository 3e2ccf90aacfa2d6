"""Bottleneck adapters: a small residual network after the attention and the MLP of a layer."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lora_lab.errors import SpecError
from lora_lab.geometry import Geometry, Matrix
from lora_lab.methods.method_config import architecture_of
from lora_lab.roles import Role, stack_of

_NAME = "bottleneck"
_CROSS_ATTENTION = ("EncDecAttention", "encoder_attn", "crossattention")


class Bottleneck(nn.Module):
    """x + W_up GELU(W_down x), both matrices with a bias; W_up and its bias start at 0, so that it starts as the identity.

    Source: Houlsby et al. 2019 (arXiv 1902.00751), section 2.1.
    """

    def __init__(self, width: int, r: int, *, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        self.down = nn.Linear(width, r, device=device, dtype=dtype)
        self.up = nn.Linear(r, width, device=device, dtype=dtype)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Computed in the adapter's precision, given back in that of x, as PEFT does with LoRA."""
        hidden = nn.functional.gelu(self.down(x.to(self.down.weight.dtype)))
        updated: Tensor = x + self.up(hidden).to(x.dtype)
        return updated


def add_bottlenecks(
    model: nn.Module, geometry: Geometry, roles: Sequence[Role], *, r: int, layers: Sequence[int] | None, dtype: torch.dtype
) -> None:
    """A bottleneck on the output of what plays each of the roles, in each layer; nothing else is trained.

    Raises:
        SpecError: a layer has no module of a role, or one of another width than the model's.
    """
    places = [_place(model, geometry, stack, role) for stack in geometry.kept_stacks(layers) for role in roles]
    model.requires_grad_(False)
    for module, width in places:
        device = next(module.parameters()).device
        module.add_module(_NAME, Bottleneck(width, r, device=device, dtype=dtype))
        module.register_forward_hook(_through_bottleneck)


def _place(model: nn.Module, geometry: Geometry, stack: str, role: Role) -> tuple[nn.Module, int]:
    """The module whose output is that of the layer's attention or MLP before the residual, and the width of that output."""
    found = [m for m in geometry.matrices if m.role == role and stack_of(m.name) == stack]
    found = [m for m in found if not any(part in m.name for part in _CROSS_ATTENTION)]
    hidden = architecture_of(geometry).hidden
    if not found or any(m.d_out != hidden for m in found):
        raise SpecError(f"A bottleneck adapter follows the attention and the MLP of every layer, and {stack} has not both.")
    if len(found) == 1 and found[0].kind != "experts":
        return model.get_submodule(found[0].name), hidden
    return _around(model, found), hidden


def _around(model: nn.Module, matrices: Sequence[Matrix]) -> nn.Module:
    """The module that runs all of the experts: its output is their sum."""
    paths = [m.name.split(".")[:-1] for m in matrices]
    depth = next((i for i, parts in enumerate(zip(*paths, strict=False)) if len(set(parts)) > 1), min(map(len, paths)))
    module = model.get_submodule(".".join(paths[0][:depth]))
    return model.get_submodule(".".join(paths[0][: depth - 1])) if isinstance(module, nn.ModuleList) else module


def _through_bottleneck(module: nn.Module, _: Any, output: Any) -> Any:
    """A hook of the module's own bottleneck; some modules give more than their hidden states, and give these first."""
    bottleneck = getattr(module, _NAME)
    return (bottleneck(output[0]), *output[1:]) if isinstance(output, tuple) else bottleneck(output)
