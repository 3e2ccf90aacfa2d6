"""Merging: W0 + ΔW as one weight, in the live model, and taken out again to the bit."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any
from weakref import WeakSet

import torch
from peft.tuners import adalora, ia3, lora
from peft.tuners.ln_tuning.layer import LNTuningLayer
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import nn
from transformers.pytorch_utils import Conv1D

from lora_lab.errors import MergeError, out_of_range
from lora_lab.methods import quantized

_MERGED: WeakSet[nn.Module] = WeakSet()
# PEFT's layers on a quantized base either merge into few bits or not at all; these merge into the plain layer put in its place.
_PLAIN = ((adalora.AdaLoraLayer, adalora.SVDLinear), (lora.LoraLayer, lora.Linear), (ia3.IA3Layer, ia3.Linear))
Placer = Callable[["Merge", nn.Module, str, Any], None]


class Merge:
    """An adapter that is merged into its base. A context manager: leaving it undoes the merge.

    While it is merged, do not switch, disable or save the adapter. What is kept to undo it: a copy on the CPU of each weight that
    the merge changed, and each quantized layer that a plain one stands in for, where it was.

    Attributes:
        adapter_name: the adapter, as PEFT calls it.
        kept_bytes: what is kept to undo the merge.
    """

    def __init__(self, model: nn.Module, adapter_name: str) -> None:
        self.adapter_name = adapter_name
        self.kept_bytes = 0
        self._model = model
        self._steps: list[Callable[[], object]] = []
        self._merged: list[nn.Parameter] = []
        _MERGED.add(model)

    def undo(self) -> None:
        """Bring back the base's weights, bit for bit; a second time does nothing."""
        while self._steps:
            self._steps.pop()()
        self.kept_bytes = 0
        self._merged.clear()
        _MERGED.discard(self._model)

    def round_to(self, dtype: torch.dtype) -> None:
        """Give the merged weights the values that they have in another dtype, and compute as before."""
        for parameter in self._merged:
            before = parameter.data
            parameter.data = before.to(dtype).to(before.dtype)
            self.later(lambda p=parameter, data=before: setattr(p, "data", data))

    def later(self, step: Callable[..., object], *, kept_bytes: int = 0) -> None:
        """Remember how to undo what was just done; the last comes first."""
        self._steps.append(step)
        self.kept_bytes += kept_bytes

    def changed(self, parameters: Iterator[nn.Parameter]) -> None:
        """Remember what holds merged weights."""
        known = {id(parameter) for parameter in self._merged}
        self._merged += [parameter for parameter in parameters if id(parameter) not in known]

    def __enter__(self) -> "Merge":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.undo()


def merge(model: nn.Module, *, adapter_name: str | None = None, dtype: torch.dtype | None = None) -> Merge:
    """Merge an adapter of a live PEFT model into the base's weights, in place.

    A plain base keeps the dtype that it has. An adapted matrix that bitsandbytes quantized is dequantized first, and an nn.Linear
    stands in for it; merging into 4 bits again, as PEFT does, would round W0 + ΔW anew. A weight that the base shares with another
    module (tied embeddings) is merged in a copy of its own, as the adapter adapts one of its uses only.

    Args:
        model: what `get_peft_model` or `PeftModel.from_pretrained` gave.
        adapter_name: the adapter to merge, active from then until it is undone; the active one where None.
        dtype: of the matrices that stand in for quantized ones; what they compute in where None.

    Raises:
        MergeError: the model has no adapter that can be merged, or has one merged.
    """
    return _merge(model, adapter_name, lambda merged, layer, name, place: _stand_in(merged, layer, name, place, dtype))


def merge_requantized(model: nn.Module, *, adapter_name: str | None = None) -> Merge:
    """The same by PEFT's own way with a quantized base: into as few bits again. Only to measure what that loses.

    Raises:
        MergeError: as `merge`, and where PEFT cannot (IA3, AdaLoRA).
    """
    return _merge(model, adapter_name, _quantize_again)


def unload_merged(model: nn.Module, *, adapter_name: str | None = None) -> nn.Module:
    """The base with the adapter merged and nothing of PEFT or bitsandbytes in it; the PEFT model is used up.

    Every parameter trains again that trains in a fresh model of its class: PEFT leaves a base frozen.

    Raises:
        MergeError: as `merge`.
    """
    merged = merge(model, adapter_name=adapter_name, dtype=torch.float32)
    tuner = _tuner_of(model)
    base: nn.Module = tuner.unload()
    _MERGED.discard(model)
    del merged
    _dequantize_rest(base)
    _settle_ties(base)
    _restore_requires_grad(base)
    return base


def active_adapter(model: nn.Module) -> str:
    """The one active adapter of a PEFT model.

    Raises:
        MergeError: the model has none that can be merged, or several.
    """
    active = list(_tuner_of(model).active_adapters)
    if len(active) != 1:
        raise MergeError(out_of_range("adapter_name", "merge", "given where not exactly one adapter is active", active))
    return str(active[0])


def _merge(model: nn.Module, adapter_name: str | None, place: Placer) -> Merge:
    _check(model, adapter_name)
    quantized.keep_exact(model)
    before = active_adapter(model) if adapter_name is None else None
    merged = Merge(model, adapter_name or str(before))
    try:
        _activate(model, merged)
        with _silenced():
            _merge_layers(model, merged, place)
    except (ValueError, RuntimeError, NotImplementedError, AttributeError) as err:
        merged.undo()
        raise MergeError(f"The adapter {merged.adapter_name} cannot be merged: {err or type(err).__name__}.") from err
    except BaseException:
        merged.undo()
        raise
    return merged


def _check(model: nn.Module, adapter_name: str | None) -> None:
    tuner = _tuner_of(model)
    if adapter_name is not None and adapter_name not in tuner.peft_config:
        raise MergeError(out_of_range("adapter_name", "merge", f"one of {sorted(tuner.peft_config)}", adapter_name))
    if model in _MERGED or any(layer.merged for layer in tuner.modules() if isinstance(layer, BaseTunerLayer)):
        raise MergeError("The model parameter of merge must be a model with no adapter merged. Got one that has: undo that first.")


def _tuner_of(model: nn.Module) -> Any:
    tuner = getattr(model, "base_model", None)
    if not isinstance(tuner, BaseTuner):
        kind = _method_of(model)
        raise MergeError(out_of_range("model", "merge", "a PEFT model whose adapter changes weights (LoRA, IA3, …)", kind))
    return tuner


def _method_of(model: nn.Module) -> str:
    configs = getattr(model, "peft_config", None)
    names = {str(getattr(config.peft_type, "value", config.peft_type)) for config in configs.values()} if configs else set()
    return ", ".join(sorted(names)) or type(model).__name__


def _activate(model: nn.Module, merged: Merge) -> None:
    """Make the adapter the active one, without touching what is trained."""
    tuner = _tuner_of(model)
    before = list(tuner.active_adapters)
    if before == [merged.adapter_name]:
        return
    trained = [(parameter, parameter.requires_grad) for parameter in model.parameters()]

    def switch(name: str | list[str]) -> None:
        tuner.set_adapter(name)
        for parameter, requires_grad in trained:
            parameter.requires_grad_(requires_grad)

    merged.later(lambda: switch(before))
    switch(merged.adapter_name)


def _merge_layers(model: nn.Module, merged: Merge, place: Placer) -> None:
    tied = _tied(model)
    for path, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer) and merged.adapter_name in module._get_available_adapters():
            if quantized.bits_of(module.get_base_layer()) is None:
                _untie(merged, module, tied)
                _merge_in_place(merged, module)
            else:
                place(merged, model, path, module)


def _merge_in_place(merged: Merge, layer: Any) -> None:
    """PEFT's own merge, with copies of what it changes."""
    parameters = _mergeable(layer)
    copies = [parameter.detach().to("cpu", copy=True) for parameter in parameters]
    merged.later(lambda: _forget(layer))
    layer.merge(safe_merge=True, adapter_names=[merged.adapter_name])
    for parameter, kept in zip(parameters, copies, strict=True):
        if not torch.equal(parameter.detach().cpu(), kept):
            merged.later(lambda p=parameter, data=kept: p.data.copy_(data), kept_bytes=kept.nbytes)
    merged.changed(iter(_mergeable(layer)))


def _mergeable(layer: Any) -> list[nn.Parameter]:
    """The base's parameters that the layer may change: the one parameter of experts, weight and bias elsewhere."""
    base = layer.get_base_layer()
    if hasattr(layer, "parameter_name"):
        return [getattr(base, layer.parameter_name)]
    return list(base.parameters())


def _forget(layer: Any) -> None:
    """Leave PEFT's merged state. Its unmerge subtracts, which rounds; layer norms it swaps, which does not."""
    if isinstance(layer, LNTuningLayer):
        if layer.merged:
            layer.unmerge()
        return
    layer.merged_adapters.clear()
    getattr(layer, "_caches", {}).clear()


def _stand_in(merged: Merge, model: nn.Module, path: str, layer: Any, dtype: torch.dtype | None) -> None:
    """A plain layer of W0 + ΔW in the place of PEFT's, which stays as it is with the quantized one inside."""
    few_bits = layer.base_layer
    plain = quantized.dequantize(few_bits, torch.float32)
    _on_plain(layer, plain).merge(safe_merge=True, adapter_names=[merged.adapter_name])
    plain.to(dtype or quantized.compute_dtype(few_bits))
    model.set_submodule(path, plain)
    merged.later(lambda: model.set_submodule(path, layer), kept_bytes=quantized.bytes_of(few_bits))
    merged.changed(plain.parameters())


def _on_plain(layer: Any, plain: nn.Linear) -> Any:
    """A twin of PEFT's layer as it would be on a plain base: it shares the adapter's parameters and leaves the layer alone."""
    kind: Any = next((kind for base, kind in _PLAIN if isinstance(layer, base)), type(layer))
    twin = kind.__new__(kind)
    vars(twin).update({"fan_in_fan_out": False, **vars(layer)})
    vars(twin).update(_modules={**layer._modules, "base_layer": plain}, merged_adapters=[], _caches={}, quantization_backend=None)
    return twin


def _quantize_again(merged: Merge, model: nn.Module, path: str, layer: Any) -> None:
    """PEFT's merge into a copy of the quantized layer."""
    few_bits = layer.base_layer

    def restore() -> None:
        layer.base_layer = few_bits
        _forget(layer)

    merged.later(restore, kept_bytes=quantized.bytes_of(few_bits))
    layer.base_layer = quantized.copied(few_bits)
    layer.merge(adapter_names=[merged.adapter_name])


def _tied(model: nn.Module) -> set[int]:
    """The parameters that more than one module holds, by id."""
    seen: set[int] = set()
    tied: set[int] = set()
    for module in model.modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                (tied if id(parameter) in seen else seen).add(id(parameter))
    return tied


def _untie(merged: Merge, layer: Any, tied: set[int]) -> None:
    """Give the layer's base its own copy of what it shares: the other uses are not adapted."""
    base = layer.get_base_layer()
    for name, parameter in list(base._parameters.items()):
        if id(parameter) in tied:
            own = nn.Parameter(parameter.detach().clone(), requires_grad=parameter.requires_grad)
            setattr(base, name, own)
            merged.later(lambda n=name, shared=parameter: setattr(base, n, shared), kept_bytes=parameter.nbytes)


def _dequantize_rest(base: Any) -> None:
    """Plain linear layers everywhere, in the dtype of the rest; transformers no longer takes the model for quantized."""
    dtype = next(p.dtype for p in base.parameters() if p.is_floating_point())
    for path, module in list(base.named_modules()):
        if quantized.bits_of(module) is not None or isinstance(module, quantized.Dequantized):
            base.set_submodule(path, _plain(module, dtype))
    for name in ("hf_quantizer", "quantization_method", "is_loaded_in_4bit", "is_loaded_in_8bit", "is_quantized"):
        vars(base).pop(name, None)
    for module in base.modules():
        config = getattr(module, "config", None)
        for name in ("quantization_config", "_is_quantized"):
            getattr(config, "__dict__", {}).pop(name, None)


def _plain(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """What transformers had there: a linear layer, or its Conv1D, which keeps the weight transposed."""
    source: Any = module if isinstance(module, quantized.Dequantized) else quantized.dequantize(module, dtype)
    state = {name: value.detach().to(dtype) for name, value in source.state_dict().items()}
    with torch.device("meta"):
        if issubclass(source.source_cls, Conv1D):
            plain: nn.Module = Conv1D(source.out_features, source.in_features)
            state["weight"] = state["weight"].T.contiguous()
        else:
            plain = nn.Linear(source.in_features, source.out_features, bias=source.bias is not None)
    plain.load_state_dict(state, assign=True)
    return plain.train(module.training)


def _settle_ties(base: Any) -> None:
    """A config that ties embeddings that no longer are one would lose one of them when saved."""
    config: Any = getattr(base, "config", None)
    if not getattr(config, "tie_word_embeddings", False):
        return
    first, last = base.get_input_embeddings(), base.get_output_embeddings()
    if last is not None and first.weight is not last.weight:
        config.tie_word_embeddings = False


def _restore_requires_grad(base: Any) -> None:
    """As a fresh model of the class has it: some freeze parameters of their own (ViT-MAE's positions)."""
    frozen: set[str] = set()
    if hasattr(base, "_from_config"):
        with torch.device("meta"):
            fresh = type(base)._from_config(base.config)
        frozen = {name for name, parameter in fresh.named_parameters() if not parameter.requires_grad}
    for name, parameter in base.named_parameters():
        parameter.requires_grad_(name not in frozen)


@contextmanager
def _silenced() -> Iterator[None]:
    """Without PEFT's warnings of rounding: the rounding is measured, or does not happen."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
