"""What a base cannot take, said before anything is attached. Every sentence here was found by trying."""

import inspect
import re
from collections.abc import Callable

import torch
from torch import nn

from lora_lab.errors import SpecError, out_of_range
from lora_lab.geometry import Geometry
from lora_lab.specs import IN_PLACE, LORA_KIN, METHODS, PLAIN_LORA, MethodSpec

_ANY_START = ("lora", "rslora", "lora+")
_WITHOUT_LAYERS = ("prefix", "preembed", "full")


def refuse_unfit(model: nn.Module, geometry: Geometry, spec: MethodSpec) -> None:
    """Nothing where the base can take the method.

    Raises:
        SpecError: it cannot, with the reason.
    """
    _refuse_unsaid(spec)
    _refuse_idle(geometry, spec)
    for part in spec.parts():
        reason = _REASONS.get(part.method, _on_experts)(model, geometry, part) or _on_start(geometry, part)
        if reason:
            raise SpecError(reason)


def _refuse_unsaid(spec: MethodSpec) -> None:
    """A field that the method has no use for would be dropped without a word."""
    label = METHODS[spec.method].label
    if spec.bias != "none" and spec.method not in (*LORA_KIN, *IN_PLACE):
        raise SpecError(out_of_range("bias", "MethodSpec", f"'none' for {label}", spec.bias))
    if spec.rank_pattern and spec.method not in (*PLAIN_LORA, "dora"):
        raise SpecError(out_of_range("rank_pattern", "MethodSpec", f"left out for {label}", spec.rank_pattern))
    if spec.layers_to_transform is not None and spec.method in _WITHOUT_LAYERS:
        raise SpecError(out_of_range("layers_to_transform", "MethodSpec", f"left out for {label}", spec.layers_to_transform))


def _refuse_idle(geometry: Geometry, spec: MethodSpec) -> None:
    names = [m.name for m in geometry.targeted(spec.targets, spec.layers_to_transform)] if spec.rank_pattern else []
    for pattern, _ in spec.rank_pattern:
        if not any(re.match(rf"(.*\.)?({pattern})$", name) for name in names):
            raise SpecError(out_of_range("rank_pattern", "MethodSpec", "made of patterns that match a target each", pattern))


def _on_experts(_: nn.Module, geometry: Geometry, spec: MethodSpec) -> str:
    matrices = geometry.targeted(spec.targets, spec.layers_to_transform)
    experts = next((m.name for m in matrices if m.kind == "experts"), None)
    if experts is None:
        return ""
    if spec.method not in PLAIN_LORA:
        return f"PEFT's {METHODS[spec.method].label} adapts linear modules, and {experts} is one 3-D parameter of all experts."
    return "PEFT's LoRA of 3-D experts works with lora_dropout = 0 alone." if spec.lora_dropout else ""


def _on_start(geometry: Geometry, spec: MethodSpec) -> str:
    """What the start values ask of method and base."""
    init, label = spec.init_lora_weights, METHODS[spec.method].label
    matrices = geometry.targeted(spec.targets, spec.layers_to_transform) if init != "default" else ()
    if init not in ("default", "gaussian") and spec.method not in _ANY_START:
        return out_of_range("init_lora_weights", "MethodSpec", f"default or gaussian for {label}", init)
    if init == "orthogonal" and any(r % 2 for r in (spec.r, *(r for _, r in spec.rank_pattern))):
        return out_of_range("r", "MethodSpec", "even for orthogonal start values", spec.r)
    if init == "loftq" and not torch.cuda.is_available():
        return "PEFT's LoftQ quantizes the base on a GPU, and there is none."
    if init not in ("default", "gaussian") and any(m.kind == "experts" for m in matrices):
        return f"PEFT reads the start values {init} off a linear module, and the experts here are one 3-D parameter."
    if init == "olora" and any(m.kind == "conv1d" for m in matrices):
        return "PEFT's OLoRA takes the weight of a Conv1D for one of nn.Linear, whose transpose it is."
    return ""


def _on_norms(_: nn.Module, geometry: Geometry, __: MethodSpec) -> str:
    return "" if geometry.norms else "LayerNorm tuning trains norms, and this base has none."


def _on_biases(_: nn.Module, geometry: Geometry, __: MethodSpec) -> str:
    heads = geometry.task_heads or ("\0",)
    biases = (p for p in geometry.parts() if getattr(p, "bias_params", 0) and not p.name.startswith(heads))
    return "" if any(biases) else "BitFit trains biases, and this base has none."


def _on_past_keys(model: nn.Module, _: Geometry, __: MethodSpec) -> str:
    backbone = getattr(model, getattr(model, "base_model_prefix", ""), model)
    taken = "past_key_values" in inspect.signature(backbone.forward).parameters
    compressed = getattr(getattr(model, "config", None), "kv_lora_rank", None) is not None  # DeepSeek's latent attention
    if taken and not compressed:
        return ""
    takes = "keeps them compressed" if compressed else "takes none"
    return f"Prefix tuning gives attention past keys and values, and transformers' {type(backbone).__name__} {takes}."


def _on_tokens(_: nn.Module, geometry: Geometry, __: MethodSpec) -> str:
    reads_tokens = geometry.architecture is not None and geometry.architecture.vocab > 0
    return "" if reads_tokens else "PreEmbed puts virtual tokens before those of the text, and this base reads none."


def _never(_: nn.Module, __: Geometry, ___: MethodSpec) -> str:
    return "PreLayer is counted by its paper's definition, and no library attaches it."


def _always(_: nn.Module, __: Geometry, ___: MethodSpec) -> str:
    return ""


_REASONS: dict[str, Callable[[nn.Module, Geometry, MethodSpec], str]] = {
    "ln_tuning": _on_norms,
    "bitfit": _on_biases,
    "prefix": _on_past_keys,
    "preembed": _on_tokens,
    "prelayer": _never,
    **dict.fromkeys(("adapter", "adapter_pfeiffer", "partial", "full"), _always),
}
