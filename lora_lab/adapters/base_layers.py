"""The W of a base layer as numbers, whatever way it is stored, and without touching it."""

import copy

from peft.utils.integrations import dequantize_bnb_weight, dequantize_module_weight
from torch import Tensor, nn


def copy_of(tensor: Tensor) -> Tensor:
    """The tensor on the CPU, with storage of its own."""
    return tensor.detach().cpu().clone()


def weight_of(module: nn.Module) -> Tensor:
    """W as (d_out, d_in) on the CPU, dequantized where it is quantized; the module stays as it is."""
    kind = type(module.weight).__name__
    if isinstance(module.weight, Tensor) and kind == "Params4bit":
        return copy_of(_dequantize_4bit(module.weight))
    if kind == "Int8Params":
        # PEFT's helper for modules moves such a weight, and on the CPU it loses its scales on the way.
        return copy_of(dequantize_bnb_weight(module.weight, state=copy.copy(module.state)))
    weight = copy_of(dequantize_module_weight(module))
    return weight.mT if type(module).__name__ == "Conv1D" else weight


def _dequantize_4bit(weight: Tensor) -> Tensor:
    """bitsandbytes packs a weight anew at its first evaluation on some CPUs, and then dequantizes it to nonsense."""
    state = weight.quant_state  # type: ignore[attr-defined]
    if not getattr(state, "packing_format_for_cpu", False):
        dequantized: Tensor = dequantize_bnb_weight(weight)
        return dequantized
    from bitsandbytes.functional import _convert_weight_packed_for_cpu_inverse, dequantize_4bit  # noqa: PLC0415 (it may not be installed)

    plain = copy.copy(state)
    plain.original_nested = False
    data, plain = _convert_weight_packed_for_cpu_inverse(weight.data, plain)
    plain.absmax = state.absmax.T.float().reshape(-1)  # which the inverse leaves turned round
    unpacked: Tensor = dequantize_4bit(data, plain)
    return unpacked
