"""Adapters of a model in memory: what each method made of each matrix, and PEFT folders written from it."""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.adalora import AdaLoraLayer
from peft.tuners.ia3 import IA3Layer
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import ParamWrapper
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.tuners.vera.layer import VeraLayer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lora_lab.adapters import factors
from lora_lab.adapters.adapter import Adapter
from lora_lab.adapters.base_layers import copy_of, weight_of
from lora_lab.adapters.folders import replaced, write_record
from lora_lab.adapters.peft_format import CONFIG
from lora_lab.adapters.tensors import WEIGHTS
from lora_lab.lowrank import LowRank

_PREFIX = "base_model.model."
VIRTUAL_TOKENS = "virtual_tokens"  # the folder within an adapter's


def from_model(
    model: nn.Module,
    *,
    adapter_name: str = "default",
    originals: Mapping[str, Tensor] | None = None,
    start: Mapping[str, LowRank] | None = None,
) -> Adapter:
    """Every ΔW = W − W0 of a live model as it is now, copied off it; none for a method that changes no matrix.

    LoRA, its kin, AdaLoRA and VeRA give their factors; DoRA and IA³ the full change, dense, from the base layer's W
    (dequantized where it is quantized): its cost is that of `LowRank.of_dense`.

    Args:
        model: the model, with PEFT on it or trained in place.
        adapter_name: which of PEFT's adapters.
        originals: W0 by module name, (d_out, d_in), or (experts, d_out, d_in) of a parameter that holds experts; what has
            changed against it in a model trained in place is part of the adapter.
        start: the factors at initialisation of a method that moves the base by them (PiSSA, OLoRA), by module name.
    """
    modules: dict[str, LowRank] = {}
    for name, module in model.named_modules():
        if isinstance(module, BaseTunerLayer):
            modules |= _deltas(name.removeprefix(_PREFIX), module, adapter_name)
    for name, original in (originals or {}).items():
        modules |= _in_place(model, name, original)
    moved = {name: modules[name] - first for name, first in (start or {}).items() if name in modules}
    return Adapter("peft", modules | moved, scaling_source="live model")


def moved_by(model: nn.Module, originals: Mapping[str, Tensor]) -> dict[str, LowRank]:
    """W0 − W of every adapted matrix whose base was moved by more than its factors hold: the `start` of LoftQ, dense.

    Args:
        model: right after it was attached.
        originals: W0 by module name, (d_out, d_in).
    """
    layers = {name.removeprefix(_PREFIX): module for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    adapted = {name: layer for name, layer in layers.items() if name in originals}
    moved = {name: originals[name].detach().cpu() - weight_of(layer.get_base_layer()).cpu() for name, layer in adapted.items()}
    return {name: LowRank.of_dense(change) for name, change in moved.items() if bool(change.any())}


def _deltas(name: str, layer: BaseTunerLayer, adapter: str) -> dict[str, LowRank]:
    """{module: ΔW} of what one adapter has put on one layer."""
    if isinstance(layer, ParamWrapper):
        return _of_parameter(name, layer, adapter)
    readers: tuple[tuple[type, Callable[[Any, str], LowRank | None]], ...] = (
        (AdaLoraLayer, _of_adalora),  # a LoraLayer too
        (LoraLayer, _of_lora),
        (VeraLayer, _of_vera),
        (IA3Layer, _of_ia3),
    )
    delta = next((read(layer, adapter) for kind, read in readers if isinstance(layer, kind)), None)
    return {} if delta is None else {name: delta}


def _of_lora(layer: LoraLayer, adapter: str) -> LowRank | None:
    if adapter not in layer.lora_A:
        return None
    a, b = copy_of(layer.lora_A[adapter].weight), copy_of(layer.lora_B[adapter].weight)
    delta = LowRank(b, a, float(layer.scaling[adapter]))
    if adapter in layer.lora_magnitude_vector:
        return factors.dora(weight_of(layer.get_base_layer()), delta, copy_of(layer.lora_magnitude_vector[adapter].weight))
    return delta


def _of_adalora(layer: AdaLoraLayer, adapter: str) -> LowRank | None:
    if adapter not in layer.lora_A:
        return None
    a, b, e = (copy_of(factor[adapter]) for factor in (layer.lora_A, layer.lora_B, layer.lora_E))
    return factors.adalora(a, b, e, lora_alpha=float(layer.scaling[adapter]), init_r=float(layer.ranknum[adapter]))


def _of_vera(layer: VeraLayer, adapter: str) -> LowRank | None:
    if adapter not in layer.vera_lambda_b:
        return None
    shared = copy_of(layer.vera_A[adapter]), copy_of(layer.vera_B[adapter])
    scales = copy_of(layer.vera_lambda_d[adapter]), copy_of(layer.vera_lambda_b[adapter])
    return factors.vera(*shared, *scales, d_in=layer.in_features)


def _of_ia3(layer: IA3Layer, adapter: str) -> LowRank | None:
    return factors.ia3(weight_of(layer.get_base_layer()), copy_of(layer.ia3_l[adapter])) if adapter in layer.ia3_l else None


def _of_parameter(name: str, layer: ParamWrapper, adapter: str) -> dict[str, LowRank]:
    """Of LoRA on a parameter; wrappers of several parameters of one module lie in each other."""
    if adapter not in layer.lora_A:
        return {}
    owner = name.replace(".base_layer", "")
    a, b, scaling = copy_of(layer.lora_A[adapter].weight), copy_of(layer.lora_B[adapter].weight), float(layer.scaling[adapter])
    if layer.get_param().ndim == 2:
        return {factors.matrix_name(owner, layer.parameter_name): LowRank(b, a, scaling)}
    found = factors.experts(a, b, count=layer.num_experts, scaling=scaling)
    return {f"{owner}.{layer.parameter_name}[{i}]": delta for i, delta in enumerate(found)}


def _in_place(model: nn.Module, name: str, original: Tensor) -> dict[str, LowRank]:
    if original.ndim == 2:
        delta = factors.changed(weight_of(model.get_submodule(name)), original.detach().cpu())
        return {} if delta is None else {name: delta}
    owner, _, parameter = name.rpartition(".")
    module = model.get_submodule(owner)
    stack = copy_of(getattr(module, parameter))
    stack = stack.mT if getattr(module, "is_transposed", False) else stack
    deltas = {f"{name}[{i}]": factors.changed(*pair) for i, pair in enumerate(zip(stack, original.detach().cpu(), strict=True))}
    return {expert: delta for expert, delta in deltas.items() if delta is not None}


def save(
    peft_model: PeftModel,
    folder: Path,
    *,
    base_name: str,
    step: int,
    initial: Path | None = None,
    virtual_tokens: PeftModel | None = None,
) -> None:
    """Write the adapter as a PEFT folder: a reader sees a whole one or, if this is killed between two renames, none.

    Nothing of the live model changes. PEFT's own conversion of PiSSA and OLoRA (`path_initial_model_for_weight_conversion`)
    loads a second adapter into it and leaves out a task head, so it is done here, on the files.

    Args:
        peft_model: the model that carries it.
        folder: where to; replaced if it is there.
        base_name: the base that the adapter's config names, a Hub id or a folder.
        step: the optimizer step that the weights stand at, kept beside them.
        initial: what `save_initial` wrote, for PiSSA and OLoRA: they are saved as plain LoRA of rank 2r, for the original base.
        virtual_tokens: the prefix or prompt that goes with the adapter: a PEFT folder of its own within this one.
    """
    with replaced(folder) as fresh:
        _save_with_peft(peft_model, fresh)
        if initial is not None:
            _convert_to_lora(fresh, initial)
        _rewrite_config(fresh, {"base_model_name_or_path": base_name})
        if virtual_tokens is not None:
            _save_with_peft(virtual_tokens, fresh / VIRTUAL_TOKENS)
            _rewrite_config(fresh / VIRTUAL_TOKENS, {"base_model_name_or_path": base_name})
        write_record(fresh, {"step": step})


def save_initial(peft_model: PeftModel, folder: Path) -> None:
    """Keep the factors that PiSSA or OLoRA begins with, right after it was attached, for `save` and for `from_model`'s start.

    `load_adapter(folder).modules` is that start.
    """
    with replaced(folder) as fresh:
        _save_with_peft(peft_model, fresh)


def _save_with_peft(peft_model: PeftModel, folder: Path) -> None:
    # PEFT would ask the Hub whether the vocabulary changed, and wait for an answer: no embedding is adapted here.
    with _unpruned(peft_model), _without_card(peft_model):
        peft_model.save_pretrained(str(folder), save_embedding_layers=False)


@contextmanager
def _without_card(peft_model: PeftModel) -> Iterator[None]:
    """PEFT writes a model card in which nothing is filled in, and takes longer for it than for the weights."""
    peft_model.__dict__["create_or_update_model_card"] = lambda output_dir: None
    try:
        yield
    finally:
        del peft_model.__dict__["create_or_update_model_card"]


@contextmanager
def _unpruned(peft_model: PeftModel) -> Iterator[None]:
    """AdaLoRA saved with all its ranks, the pruned ones as zeros.

    Between two prunings a step moves pruned ranks off zero again; PEFT would leave them out of the file, which then is not
    the model, and rename the keys of the live rank_pattern.
    """
    patterns = {name: config.rank_pattern for name, config in peft_model.peft_config.items() if config.peft_type == "ADALORA"}
    try:
        for name in patterns:
            peft_model.peft_config[name].rank_pattern = None
        yield
    finally:
        for name, pattern in patterns.items():
            peft_model.peft_config[name].rank_pattern = pattern


def _convert_to_lora(folder: Path, initial: Path) -> None:
    """s(BA − B0 A0) = s[B, −B0][A; A0]: LoRA of rank 2r and of the same scaling, on the base that was not moved."""
    tensors, first = load_file(folder / WEIGHTS), load_file(initial / WEIGHTS)
    for key, tensor in tensors.items():
        if key.endswith(".lora_A.weight"):
            tensors[key] = torch.cat([tensor, first[key]])
        elif key.endswith(".lora_B.weight"):
            tensors[key] = torch.cat([tensor, -first[key]], dim=1)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    config = json.loads((folder / CONFIG).read_text())
    alpha_factor = math.sqrt(2) if config["use_rslora"] else 2
    doubled = {
        "r": 2 * config["r"],
        "lora_alpha": alpha_factor * config["lora_alpha"],
        "rank_pattern": {pattern: 2 * r for pattern, r in (config["rank_pattern"] or {}).items()},
        "alpha_pattern": {pattern: alpha_factor * alpha for pattern, alpha in (config["alpha_pattern"] or {}).items()},
    }
    _rewrite_config(folder, {**doubled, "init_lora_weights": True})


def _rewrite_config(folder: Path, fields: dict[str, Any]) -> None:
    config = json.loads((folder / CONFIG).read_text()) | fields
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
