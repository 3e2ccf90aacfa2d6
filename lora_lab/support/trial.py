"""A method on a tiny base of a family, and what its claims are held against."""

import copy
import functools
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora.layer import ParamWrapper
from peft.tuners.tuners_utils import BaseTuner
from safetensors.torch import save_file
from torch import Tensor, nn

from lora_lab.adapters import (
    VIRTUAL_TOKENS,
    Adapter,
    from_model,
    load_adapter,
    load_trained,
    save,
    save_initial,
    save_trained,
)
from lora_lab.geometry import Matrix
from lora_lab.live_geometry import read_geometry
from lora_lab.methods import attach_method, beneath, quantize, quiet_peft
from lora_lab.methods.quantized import bits_of, dequantize
from lora_lab.methods.tiny import TINY, tiny_model
from lora_lab.specs import COMBINED, IN_PLACE, MOVING_INITS, Quant
from lora_lab.support.rows import Row
from lora_lab.weights import BaseWeights

STEPS = 2


@functools.cache
def saved_base(family: str) -> tuple[nn.Module, TemporaryDirectory[str]]:
    """A family's random base, biases and norms random too, and its weights in a folder; the same in every process."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        base = tiny_model(family, device="cpu").eval()
        with torch.no_grad():
            for parameter in base.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
    folder: TemporaryDirectory[str] = TemporaryDirectory()
    save_file({name: tensor.clone() for name, tensor in base.state_dict().items()}, Path(folder.name) / "model.safetensors")
    base.config.save_pretrained(folder.name)  # type: ignore[operator,union-attr]
    return base, folder


def fresh(family: str, quant: Quant) -> nn.Module:
    return quantize(copy.deepcopy(saved_base(family)[0]), quant)


@functools.cache
def base_of(family: str, quant: Quant) -> nn.Module:
    """A base that nothing is attached to, to compare with."""
    return fresh(family, quant)


@functools.cache
def base_logits(family: str, quant: Quant) -> Tensor:
    return logits_of(base_of(family, quant), family)


@functools.cache
def base_maps(family: str, quant: Quant) -> dict[str, Tensor]:
    base = base_of(family, quant)
    return maps_of(base, read_geometry(base).matrices)


@functools.cache
def base_state(family: str, quant: Quant) -> dict[str, dict[str, Tensor]]:
    """{module: what it holds itself}."""
    return {name: own_state(module) for name, module in base_of(family, quant).named_modules() if module._parameters}


@functools.cache
def base_weights(family: str) -> BaseWeights:
    base, folder = saved_base(family)
    return BaseWeights(folder.name, read_geometry(base).matrices)


def batch_of(family: str) -> dict[str, Tensor]:
    """Three rows of seven tokens, or three pictures, and what to learn of them."""
    generator = torch.Generator().manual_seed(1)
    classes = torch.tensor([0, 1, 0])
    if family == "vit":
        return {"pixel_values": torch.randn(3, 1, 8, 8, generator=generator), "labels": classes}
    tokens = torch.randint(3, 40, (3, 7), generator=generator)
    labels = classes if TINY[family][0].endswith("SequenceClassification") else tokens
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": labels}


class Trial:
    """A row attached to a family's base, and what goes with it."""

    def __init__(self, family: str, row: Row, folder: Path) -> None:
        self.family, self.row, self.folder = family, row, folder
        self.initial = folder / "initial"
        base = fresh(family, row.quant)
        self.matrices = {matrix.name: matrix for matrix in read_geometry(base).matrices}
        self.own = {name: module for name, module in base.named_modules() if module._parameters}
        data = (batch_of(family),) if row.spec.init_lora_weights == "eva" else ()
        self.live = attach_method(base, row.spec, seed=0, batches=data, total_steps=STEPS)
        self.carrier: Any = beneath(self.live) or self.live
        self.start = self._kept_start()
        self.originals = self._originals() if row.spec.method in IN_PLACE else {}

    def _kept_start(self) -> Adapter | None:
        if self.row.spec.init_lora_weights not in MOVING_INITS:
            return None
        save_initial(self.carrier, self.initial)
        return load_adapter(self.initial)

    def _originals(self) -> dict[str, Tensor]:
        """W0 of each matrix, as `from_model` wants it."""
        original = saved_base(self.family)[0]
        return {name: stored(original, matrix) for name, matrix in self.matrices.items() if not matrix.tied}

    @property
    def trained(self) -> set[str]:
        """The names of what is trained, a tied parameter under each of its names."""
        return {name for name, p in self.live.named_parameters(remove_duplicate=False) if p.requires_grad}

    @property
    def is_mergeable(self) -> bool:
        """Whether the method can be merged into weights."""
        return isinstance(getattr(self.carrier, "base_model", None), BaseTuner)

    @property
    def inner(self) -> nn.Module:
        """The base's own class, with whatever is on it."""
        found: nn.Module = self.carrier.get_base_model() if isinstance(self.carrier, PeftModel) else self.carrier
        return found

    @property
    def original_maps(self) -> dict[str, Tensor]:
        """What every linear map of the base was, before anything was attached."""
        return base_maps(self.family, self.row.quant)

    def adapter(self) -> Adapter:
        """ΔW of the live model."""
        return from_model(self.carrier, originals=self.originals, start=self.start)

    def logits(self, model: nn.Module | None = None) -> Tensor:
        """What the live model, or another, answers."""
        return logits_of(model or self.live, self.family)

    def save(self) -> None:
        """Save as a run does."""
        if not isinstance(self.live, PeftModel):
            save_trained(self.live, self.folder / "adapter", record=asdict(self.row.spec), step=STEPS)
            return
        save(
            self.carrier,
            self.folder / "adapter",
            base_name="base",
            step=STEPS,
            initial=self.initial if self.start is not None else None,
            virtual_tokens=self.live if self.carrier is not self.live else None,
        )

    def load(self, base: nn.Module) -> nn.Module:
        """What was saved on another base: in plain PEFT, or by `load_trained` where PEFT lacks the method."""
        folder = self.folder / "adapter"
        if not isinstance(self.live, PeftModel):
            model = attach_method(base, self.row.spec)
            load_trained(model, folder)
            return model
        with quiet_peft():
            loaded = PeftModel.from_pretrained(base, str(folder))
            if self.row.spec.method in COMBINED:
                loaded = PeftModel.from_pretrained(loaded.get_base_model(), str(folder / VIRTUAL_TOKENS))
        opened: nn.Module = loaded
        return opened


def logits_of(model: nn.Module, family: str) -> Tensor:
    with torch.no_grad():
        found: Tensor = model.eval()(**batch_of(family)).logits
    return found


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """Copies of every tensor that the model would save: packed bytes and their scales too."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items() if isinstance(tensor, Tensor)}


def apart(found: Tensor, expected: Tensor) -> float:
    """‖found − expected‖ / ‖expected‖; infinite where the shapes differ or a number is none."""
    if found.shape != expected.shape or not bool(found.isfinite().all()):
        return float("inf")
    difference, size = (found.double() - expected.double()).norm(), expected.double().norm()
    return float(difference / size) if bool(difference) else 0.0


# What a linear map does.


def own_state(module: nn.Module) -> dict[str, Tensor]:
    """What the module holds beside its children."""
    children = {name for name, _ in module.named_children()}
    return {key: tensor for key, tensor in state_of(module).items() if key.split(".")[0] not in children}


def maps_of(model: nn.Module, matrices: Iterable[Matrix]) -> dict[str, Tensor]:
    """Each map as (d_out, d_in) in float64, an expert as name[i]; tied ones left out, as they are the embedding."""
    found: dict[str, Tensor] = {}
    for matrix in matrices:
        if matrix.kind == "experts":
            found |= {f"{matrix.name}[{i}]": weight.double() for i, weight in enumerate(stored(model, matrix))}
        elif not matrix.tied:
            found[matrix.name] = effective(model.get_submodule(matrix.name), matrix)
    return found


def effective(layer: Any, matrix: Matrix) -> Tensor:
    """What a layer does to each unit vector, whichever way it keeps its weight and whatever PEFT has put on it."""
    if bits_of(layer):
        layer = dequantize(layer, torch.float32)
    with torch.no_grad():
        answers = layer(torch.cat([torch.eye(matrix.d_in), torch.zeros(1, matrix.d_in)]))
    effective: Tensor = (answers[:-1] - answers[-1:]).T.double()
    return effective


def stored(base: nn.Module, matrix: Matrix) -> Tensor:
    """A weight as (d_out, d_in), or a stack of experts as (experts, d_out, d_in)."""
    if matrix.kind != "experts":
        weight: Tensor = base.get_parameter(f"{matrix.name}.weight").detach()
        return weight.mT if matrix.kind == "conv1d" else weight
    owner, _, name = matrix.name.rpartition(".")
    module: Any = base.get_submodule(owner)
    delta: Tensor | float = 0.0
    while isinstance(module, ParamWrapper):  # PEFT's, one in another where several parameters of a module are adapted
        if module.parameter_name == name and not module.merged:
            delta = module.get_delta_weight("default").detach()
        module = module.base_layer
    stack: Tensor = getattr(module, name).detach() + delta
    return stack.mT if getattr(module, "is_transposed", False) else stack


def dequantized(base: nn.Module) -> nn.Module:
    """Plain layers of the same values in the place of quantized ones."""
    for name, layer in [(name, layer) for name, layer in base.named_modules() if bits_of(layer)]:
        base.set_submodule(name, dequantize(layer, torch.float32))
    return base
