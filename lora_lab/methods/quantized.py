"""bitsandbytes' linear layers: which they are, and what their weights are worth. Only a model that has such layers loads it."""

import copy
import warnings
from collections.abc import Sequence
from functools import cache
from math import prod
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lora_lab.errors import SpecError

Bits = Literal[4, 8]
_CLASSES: dict[str, Bits] = {"Linear4bit": 4, "Linear8bitLt": 8}


class Dequantized(nn.Linear):
    """A plain linear map in the place of a quantized one: as that does, it computes in its own dtype and answers in its input's.

    Attributes:
        source_cls: what transformers quantized, nn.Linear or its own Conv1D.
    """

    source_cls: type[nn.Module] = nn.Linear

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.to(self.weight.dtype)).to(input.dtype)


def bits_of(module: nn.Module) -> Bits | None:
    """4 or 8 for a linear layer of bitsandbytes, None for every other module."""
    names = (kind.__name__ for kind in type(module).__mro__ if kind.__module__.startswith("bitsandbytes."))
    return next((_CLASSES[name] for name in names if name in _CLASSES), None)


def format_of(module: nn.Module) -> str:
    """How a quantized layer keeps its weight, in the words of `--quant`: `int8`, `nf4`, `nf4-dq` (or `fp4`, `fp4-dq`)."""
    if bits_of(module) == 8:
        return "int8"
    weight: Any = module.weight
    return f"{weight.quant_type}-dq" if weight.compress_statistics else str(weight.quant_type)


def keep_exact(model: nn.Module) -> None:
    """Have quantized layers keep what they hold, and 4-bit ones compute in their compute dtype, on every processor; for good.

    On processors with AVX512-BF16 the first forward pass in eval mode repacks a 4-bit weight in place, rounds its scales to
    bfloat16 and computes in bfloat16 whatever the compute dtype is; what reads the weight afterwards (PEFT's DoRA, its merge)
    reads the packed bytes as if they were not. A layer that was packed before is unpacked; its scales stay rounded. (bitsandbytes'
    own unpacking leaves plain scales transposed, here they are put right.) An 8-bit weight that is moved after its first forward
    pass, as PEFT's DoRA does on a CPU, loses its scales and the next pass fails: here they stay.

    Raises:
        SpecError: the model is quantized and bitsandbytes is not installed.

    Source: bitsandbytes 0.50.2, `nn/modules.py: Linear4bit.forward, Int8Params.to`;
        `functional.py: _convert_weight_packed_for_cpu_inverse`.
    """
    for module in model.modules():
        if bits_of(module) == 4:
            _unpack(module)
            vars(module)["support_avx512bf16_for_cpu"] = False
        if bits_of(module) == 8 and _keep_scales not in module._forward_pre_hooks.values():
            module.register_forward_pre_hook(_keep_scales)


def _unpack(layer: Any) -> None:
    state = layer.weight.quant_state
    if getattr(state, "packing_format_for_cpu", False):
        unpack = bitsandbytes().functional._convert_weight_packed_for_cpu_inverse
        layer.weight.data, state = unpack(layer.weight.data, state)
        layer.weight.quant_state = state
    if state is not None and not state.nested and state.absmax.ndim == 2:
        state.absmax = state.absmax.T.reshape(-1).float()


def _keep_scales(layer: Any, _: Any) -> None:
    if layer.weight.CB is not None and layer.weight.SCB is None:
        layer.weight.SCB = layer.state.SCB


def dequantize(module: nn.Module, dtype: torch.dtype | None = None) -> Dequantized:
    """A linear layer of the quantized one's values, frozen; the quantized one stays as it is.

    Args:
        module: a quantized layer, (d_in) to (d_out).
        dtype: of the weight and the bias; the dtype that the layer computes in where None.

    Raises:
        SpecError: bitsandbytes is not installed.
    """
    layer: Any = module
    dtype = dtype or compute_dtype(module)
    with torch.device("meta"):
        plain = Dequantized(layer.in_features, layer.out_features, bias=layer.bias is not None)
    plain.weight = nn.Parameter(_values(layer).to(dtype), requires_grad=False)
    if layer.bias is not None:
        plain.bias = nn.Parameter(layer.bias.detach().to(dtype, copy=True), requires_grad=False)
    plain.source_cls = getattr(layer, "source_cls", nn.Linear)
    return plain.train(layer.training)


def compute_dtype(module: nn.Module) -> torch.dtype:
    """What a quantized layer computes in: a 4-bit one is told or has found out; an 8-bit one rounds its inputs to float16."""
    found: torch.dtype | None = getattr(module, "compute_dtype", None)
    return found or (torch.float32 if bits_of(module) == 4 else torch.float16)


def copied(module: nn.Module) -> nn.Module:
    """A quantized layer of the same values, to be quantized anew without the first one noticing."""
    twin = copy.deepcopy(module)
    if bits_of(module) == 4:
        weight: Any = twin.weight
        weight.module = twin  # a copied weight still names the first layer, and quantizing it would write there
    return twin


def bytes_of(module: nn.Module) -> int:
    """What a quantized layer holds: packed weight, scales and bias."""
    tensors = {id(tensor): tensor for tensor in module.state_dict().values() if isinstance(tensor, Tensor)}
    return sum(tensor.nbytes for tensor in tensors.values())


def bitsandbytes() -> ModuleType:
    """The library, imported now.

    Raises:
        SpecError: it is not installed.
    """
    try:
        import bitsandbytes as library  # noqa: PLC0415
    except ImportError as err:
        raise SpecError("A quantized base needs bitsandbytes, which is not installed: pip install bitsandbytes.") from err
    _mend_dequantization()
    found: ModuleType = library
    return found


@cache
def _mend_dequantization() -> Any:
    """Have 4-bit weights dequantized right on a CPU, whatever their width; for this process, once.

    The kernel for AVX512 takes the first scales of every row for blocks of its own, where blocks run on from row to row: a matrix
    whose rows are a multiple of 16 but not of whole blocks (160 wide in blocks of 64) comes out wrong by a third and more. Given
    as one long row it comes out right.

    Source: bitsandbytes 0.50.2, `backends/cpu/ops.py: bitsandbytes::dequantize_4bit`.
    """
    kernel = torch.library.get_kernel("bitsandbytes::dequantize_4bit", "CPU")

    def dequantize_4bit(
        keys: Any, packed: Tensor, absmax: Tensor, blocksize: int, quant_type: str, shape: Sequence[int], dtype: torch.dtype
    ) -> Tensor:
        asked = (1, prod(shape)) if shape[-1] % blocksize else shape
        values: Tensor = kernel.call_boxed(keys, packed, absmax, blocksize, quant_type, asked, dtype)
        return values.reshape(tuple(shape))

    registry: Any = torch.library
    mended = registry.Library("bitsandbytes", "IMPL")  # it holds as long as this object does, which the cache keeps
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="[\\s\\S]*Overriding a previously registered kernel")
        mended.impl("dequantize_4bit", dequantize_4bit, "CPU", with_keyset=True)
    return mended


def _values(layer: Any) -> Tensor:
    """The weight (d_out, d_in) that the quantized one stands for."""
    functional = bitsandbytes().functional
    weight = layer.weight
    if bits_of(layer) == 4:
        values: Tensor = functional.dequantize_4bit(weight.data, weight.quant_state)
        return values
    scales = layer.state.SCB if layer.state.SCB is not None else weight.SCB
    values = functional.int8_vectorwise_dequant(weight.data, scales)
    return values
