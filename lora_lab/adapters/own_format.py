"""The lab's own format, for methods that PEFT has no word for: what was trained, under its own name in the model."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lora_lab.adapters import factors
from lora_lab.adapters.adapter import Adapter
from lora_lab.adapters.folders import RECORD, read_record, replaced, write_record
from lora_lab.adapters.tensors import WEIGHTS, read_tensors
from lora_lab.errors import AdapterError
from lora_lab.geometry import Matrix
from lora_lab.lowrank import LowRank
from lora_lab.weights import BaseWeights

_IN_PLACE = ("full", "partial")
_NO_CHANGE = {
    "bitfit": "BitFit trains biases: it changes no matrix.",
    "adapter": "Bottleneck adapters are new modules beside the base's: they change no matrix.",
    "adapter_pfeiffer": "Bottleneck adapters are new modules beside the base's: they change no matrix.",
}


def save_trained(model: nn.Module, folder: Path, *, record: dict[str, Any], step: int) -> None:
    """Write every parameter that requires a gradient, under its name in the model; the folder is replaced as a whole.

    Args:
        model: the model as it was trained.
        folder: where to.
        record: what made it, plain JSON, its "method" among it.
        step: the optimizer step that the weights stand at.
    """
    with replaced(folder) as fresh:
        fresh.mkdir()
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in _trained(model).items()}, fresh / WEIGHTS)
        write_record(fresh, {"step": step, **record})


def load_trained(model: nn.Module, folder: Path) -> None:
    """Copy what `save_trained` wrote into a model of the same make: `model.load_state_dict(load_file(…), strict=False)`.

    Raises:
        AdapterError: the model lacks a parameter of the file, or has it in another shape; it is as it was then.
    """
    tensors, parameters = read_tensors(folder), dict(model.named_parameters())
    for name, tensor in tensors.items():
        if name not in parameters:
            raise AdapterError(f"The model must have every parameter in {folder}. Got none called {name}.")
        if parameters[name].shape != tensor.shape:
            found = f"{tuple(tensor.shape)} in the file and {tuple(parameters[name].shape)} in the model"
            raise AdapterError(f"The parameter {name} must have one shape. Got {found}.")
    with torch.no_grad():
        for name, tensor in tensors.items():
            parameters[name].copy_(tensor)


def read_own(folder: Path, base: BaseWeights | None) -> Adapter:
    """The adapter that `save_trained` left in a folder: W − W0 of each matrix that was trained in place.

    Raises:
        AdapterError: the record names no such method, or the base is needed and not given.
        DataError: the base has no such matrix.
    """
    record, tensors = read_record(folder), read_tensors(folder)
    method = record.get("method")
    if method in _NO_CHANGE:
        return Adapter("lora_lab", {}, "no matrix is changed", (_NO_CHANGE[str(method)],), record)
    if method not in _IN_PLACE:
        known = ", ".join((*_IN_PLACE, *_NO_CHANGE))
        raise AdapterError(f"The method in {folder / RECORD} must be one of {known}. Got {method!r}.")
    if base is None:
        raise AdapterError(f"What method {method!r} trained must be read with the base, which it is compared with. Got none.")
    return Adapter("lora_lab", _changes(tensors, base), "W − W0", (), record)


def _trained(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _changes(tensors: dict[str, Tensor], base: BaseWeights) -> dict[str, LowRank]:
    found: dict[str, LowRank | None] = {}
    for matrix in base.matrices:
        is_stack = matrix.kind == "experts"
        trained = tensors.get(matrix.name if is_stack else f"{matrix.name}.weight")
        if trained is None or matrix.tied:  # a tied weight is the embedding
            continue
        weight = base.oriented(matrix, trained)
        _require_shape(matrix, weight)
        if is_stack:
            names = (f"{matrix.name}[{i}]" for i in range(matrix.experts))
            found |= {name: factors.changed(weight[i], base.matrix(matrix, expert=i)) for i, name in enumerate(names)}
        else:
            found[matrix.name] = factors.changed(weight, base.matrix(matrix))
    return {name: delta for name, delta in found.items() if delta is not None}


def _require_shape(matrix: Matrix, weight: Tensor) -> None:
    expected = (matrix.d_out, matrix.d_in) if matrix.kind != "experts" else (matrix.experts, matrix.d_out, matrix.d_in)
    if tuple(weight.shape) != expected:
        raise AdapterError(f"The weight of {matrix.name} must have the base's shape {expected}. Got {tuple(weight.shape)}.")
