"""A base and what adapts it, side by side in memory: merged LoRA, LoRA beside the base, bottleneck adapters, a prefix."""

import copy
from collections.abc import Iterable
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import nn

from lora_lab.analysis.timings import Refusal
from lora_lab.errors import LabError
from lora_lab.inference.merging import unload_merged
from lora_lab.inference.subject import Subject
from lora_lab.live_geometry import read_geometry
from lora_lab.methods import attach_method
from lora_lab.methods.bottleneck import Bottleneck
from lora_lab.specs import MethodSpec

ADAPTED = ("merged", "lora", "adapter", "adapter_pfeiffer", "prefix")
CHANGE_SHARE = 0.1  # ‖ΔW‖ / ‖W0‖ of the adapters drawn here
_BOTTLENECK_SD = 0.02


def with_variants(subject: Subject, *, r: int, seed: int, device: torch.device) -> tuple[dict[str, nn.Module], tuple[Refusal, ...]]:
    """The base on a device with a model for each of `ADAPTED` that it can take, all over the base's own weights.

    Only what a variant changes or adds is in memory twice, so that the variants differ by what they compute and not by where
    their weights lie. Merged LoRA has matrices of its own: W0 + ΔW.

    Raises:
        SpecError: r is out of range.
    """
    specs = {name: MethodSpec(method="lora" if name == "merged" else name, r=r) for name in ADAPTED}
    base = subject.build().eval().to(device)
    models, refused = {"base": base}, []
    for name, spec in specs.items():
        try:
            models[name] = _variant(name, subject, base, spec, seed=seed).to(device).eval()
        except LabError as err:
            refused.append(Refusal(name, str(err)))
    for model in models.values():
        model.requires_grad_(False)
    return models, tuple(refused)


def random_lora(subject: Subject, base: nn.Module, *, r: int, seed: int) -> nn.Module:
    """The base, changed in place, with a LoRA of r on q and v, whose every ΔW is random and a tenth of its W0 in norm.

    Raises:
        SpecError: the base has no such matrices, or PEFT refuses.
    """
    heads = subject.heads(read_geometry(base))
    model = attach_method(base, MethodSpec(r=r), seed=seed, head_modules=heads, task_type=subject.task_type)
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, LoraLayer):
            _draw_b(module, generator)
    return model.eval()


def _variant(name: str, subject: Subject, base: nn.Module, spec: MethodSpec, *, seed: int) -> nn.Module:
    geometry = read_geometry(base)
    if spec.method == "lora":
        own = [m.name for m in geometry.targeted(spec.targets)] if name == "merged" else []
        model = random_lora(subject, _twin(base, own=own), r=spec.r, seed=seed)
        return unload_merged(model) if name == "merged" else model
    heads = subject.heads(geometry)
    model = attach_method(_twin(base), spec, seed=seed, head_modules=heads, task_type=subject.task_type)
    for module in model.modules():
        if isinstance(module, Bottleneck):
            nn.init.normal_(module.up.weight, std=_BOTTLENECK_SD, generator=_generator(module.up.weight, seed))
    return model


def _twin(base: nn.Module, *, own: Iterable[str] = ()) -> nn.Module:
    """A copy of the modules over the same parameters and buffers; `own` names the matrices that it has to itself."""
    kept = {id(parameter) for name in own for parameter in _parameters_at(base, name)}
    shared: list[Any] = [*base.parameters(), *base.buffers()]
    return copy.deepcopy(base, {id(tensor): tensor for tensor in shared if id(tensor) not in kept})


def _parameters_at(base: nn.Module, name: str) -> list[nn.Parameter]:
    """Of a linear map by its module, of 3-D experts by their parameter."""
    found = dict(base.named_parameters())
    return [found[name]] if name in found else list(base.get_submodule(name).parameters())


@torch.no_grad()
def _draw_b(layer: Any, generator: torch.Generator) -> None:
    """B at random, as large as makes ‖scaling·B·A‖_F a tenth of ‖W0‖_F."""
    for name, lora_b in layer.lora_B.items():
        drawn = torch.randn(lora_b.weight.shape, generator=generator).to(lora_b.weight)
        change = layer.scaling[name] * (drawn @ layer.lora_A[name].weight)
        lora_b.weight.copy_(drawn * (CHANGE_SHARE * layer.get_base_layer().weight.float().norm() / change.norm()))


def _generator(weight: torch.Tensor, seed: int) -> torch.Generator:
    return torch.Generator(weight.device).manual_seed(seed)
