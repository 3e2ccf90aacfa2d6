"""A PEFT model without a base in it: it knows what a run trains, draws its start values and writes its folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from lora_lab.adapters import save
from lora_lab.benches import Bench
from lora_lab.errors import SpecError
from lora_lab.methods import attach_method, draw_start, trainable_params
from lora_lab.specs import MethodSpec

_PREFIX = "base_model.model."
_COPY = ".modules_to_save.default."


@dataclass(frozen=True)
class Factors:
    """One adapted matrix: its parameters in the shell, and how PEFT uses them."""

    lora_a: nn.Parameter
    lora_b: nn.Parameter
    scaling: float
    dropout: float

    @property
    def r(self) -> int:
        """Its rank."""
        return self.lora_a.shape[0]


class Shell:
    """What a method is on a bench's base, for every run that attaches it alike, whatever its seed or its learning rate.

    Args:
        bench: the bench.
        base: its model with weights, of which a task head begins as a copy.
        tuning: a method that `may_share` lets into a group.
        heads: modules trained in full beside it.

    Raises:
        SpecError: the base cannot take the method, or the method is more than factors beside linear maps.
    """

    def __init__(self, bench: Bench, base: nn.Module, tuning: MethodSpec, heads: tuple[str, ...]) -> None:
        self.bench, self.tuning, self.heads = bench, tuning, heads
        self.model = attach_method(bench.build(meta=True), tuning, head_modules=heads, task_type=bench.task_type)
        assert isinstance(self.model, PeftModel)
        self._give_memory()
        self.factors = dict(self._factors())
        self.head = {f"{head} {name}": p for head in heads for name, p in self._copy_of(head).named_parameters()}
        self._head_start = {
            f"{head} {name}": p.detach().clone() for head in heads for name, p in base.get_submodule(head).named_parameters()
        }
        self.counts = trainable_params(self.model, heads)
        known = sum(p.numel() for p in self.head.values()) + sum(f.lora_a.numel() + f.lora_b.numel() for f in self.factors.values())
        if known != self.counts[0]:
            allowed = "Runs that share a pass must train factors of linear maps and heads alone."
            raise SpecError(f"{allowed} Got {tuning.method}, which trains more.")

    def _give_memory(self) -> None:
        for name, parameter in [(n, p) for n, p in self.model.named_parameters() if p.requires_grad]:
            owner, _, leaf = name.rpartition(".")
            setattr(self.model.get_submodule(owner), leaf, nn.Parameter(torch.zeros(parameter.shape)))

    def _factors(self) -> list[tuple[str, Factors]]:
        layers = [(name, module) for name, module in self.model.named_modules() if isinstance(module, LoraLayer)]
        strange = next((name for name, module in layers if type(module) is not LoraLinear), None)
        if strange is not None:
            raise SpecError(f"Runs that share a pass must adapt linear maps alone. Got {strange.removeprefix(_PREFIX)}.")
        return [(name.removeprefix(_PREFIX), _factors_of(module)) for name, module in layers]

    def _copy_of(self, head: str) -> nn.Module:
        return self.model.get_submodule(f"{_PREFIX}{head}{_COPY.rstrip('.')}")

    @torch.no_grad()
    def draw(self, seed: int) -> None:
        """The start values of a run of this seed, those that it has alone."""
        for name, parameter in self.head.items():
            parameter.copy_(self._head_start[name])
        draw_start(self.model, self.tuning, seed=seed, heads=self.heads)
        self.factors = dict(self._factors())  # some start values are parameters of their own

    def save(self, folder: Path, *, step: int) -> None:
        """Write the values that the shell has now as a PEFT folder."""
        save(self.model, folder, base_name=self.bench.said_base_name(), step=step)

    @torch.no_grad()
    def fill(self, values: Mapping[str, Tensor]) -> None:
        """Take over a run's values as the stack has them, B transposed."""
        for name, factors in self.factors.items():
            factors.lora_a.copy_(values[f"{name} lora_a"][: factors.r])
            factors.lora_b.copy_(values[f"{name} lora_b"][: factors.r].mT)
        for name, parameter in self.head.items():
            parameter.copy_(values[name])


def _factors_of(layer: LoraLayer) -> Factors:
    dropout = layer.lora_dropout["default"]
    p = dropout.p if isinstance(dropout, nn.Dropout) else 0.0
    return Factors(layer.lora_A["default"].weight, layer.lora_B["default"].weight, float(layer.scaling["default"]), p)
