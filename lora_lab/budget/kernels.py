"""What the CUDA kernels keep, on the meta device, where PyTorch would take other ways: attention, dropout, quantized matrices."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel, masking_utils
from transformers.integrations import sdpa_attention

from lora_lab.specs import Quant

_REAL_SDPA, _REAL_AUTOCAST = functional.scaled_dot_product_attention, torch.autocast
FLASH = "lora_lab_fused"  # transformers looks for a kernel behind any name with "flash" in it


class _Attention(torch.autograd.Function):
    """Fused attention: keeps q, k, v, its output and one log-sum-exp a row, and no score matrix."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        *batch, heads, rows, _ = q.shape
        # the kernel writes (batch, rows, heads, width), so that putting the heads together copies nothing
        out = q.new_empty(*batch, rows, heads, v.shape[-1]).transpose(-3, -2)
        ctx.save_for_backward(q, k, v, out, q.new_empty(*batch, heads, rows, dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        q, k, v, *_ = ctx.saved_tensors
        return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _sdpa(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    if not query.is_meta:  # another thread of this process, at work on a real model
        return _REAL_SDPA(query, key, value, *args, **kwargs)
    result: Tensor = _Attention.apply(query, key, value)  # type: ignore[no-untyped-call]
    return result


def _dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """On CUDA dropout keeps one byte an element; elsewhere PyTorch keeps a mask of the input's own type."""
    return torch.native_dropout(input, p, True)[0] if training and p > 0 else input


def _flash(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, **kwargs: Any) -> tuple[Tensor, None]:
    """Flash attention reads the key-value heads as they are: grouped queries repeat nothing."""
    return _sdpa(query, key, value).transpose(1, 2), None


def _autocast(device_type: str, *args: Any, **kwargs: Any) -> Any:
    """PEFT turns autocast off where it adapts 3-D parameters; the meta device knows none."""
    return nullcontext() if device_type == "meta" else _REAL_AUTOCAST(device_type, *args, **kwargs)


def _nothing(*args: Any, **kwargs: Any) -> None:  # a Mock would keep what it is called with alive
    return None


def _no(*args: Any) -> bool:
    return False


AttentionInterface.register(FLASH, _flash)
AttentionMaskInterface.register(FLASH, _nothing)


@contextmanager
def as_on_cuda() -> Iterator[None]:
    """Attention and dropout keep what their CUDA kernels keep.

    A padded batch has a mask, which keeps SDPA from reading grouped key-value heads in place: they are repeated.
    """
    with (
        mock.patch.object(functional, "scaled_dot_product_attention", _sdpa),
        mock.patch.object(functional, "dropout", _dropout),
        mock.patch.object(torch, "dropout", lambda x, p, train: _dropout(x, p, train)),
        mock.patch.object(torch, "autocast", _autocast),
        mock.patch.object(sdpa_attention, "use_gqa_in_sdpa", _no),
        mock.patch.object(masking_utils, "find_packed_sequence_indices", _nothing),  # these two would read values
        mock.patch.object(PreTrainedModel, "warn_if_padding_and_no_attention_mask", _nothing),
    ):
        yield


class _Matmul(torch.autograd.Function):
    """bitsandbytes' products with a frozen matrix: dequantized for the backward; int8 keeps its input, 4-bit does not."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, d_out: int, keeps_input: bool) -> Tensor:
        ctx.shape, ctx.d_out = x.shape, d_out
        ctx.kept = x if keeps_input else None
        if keeps_input:
            x.new_empty(x.shape, dtype=torch.int8)
        return x.new_empty(*x.shape[:-1], d_out)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        weight = grad.new_empty(ctx.d_out, ctx.shape[-1])
        return grad @ weight, None, None


class QuantizedLinear(nn.Linear):
    """A frozen linear map as bitsandbytes keeps it, shapes and bytes only.

    Args:
        linear: the map to stand in for, an nn.Linear or a Conv1D.
        quant: int8, nf4 or nf4-dq.
    """

    def __init__(self, linear: nn.Module, quant: Quant) -> None:
        super().__init__(1, 1, bias=False, device="meta")
        weight: Tensor = linear.weight  # type: ignore[assignment]
        self.out_features, self.in_features = weight.shape if isinstance(linear, nn.Linear) else weight.shape[::-1]
        self.quant, self.compute_dtype = quant, weight.dtype
        self.bias = linear.bias  # type: ignore[assignment]
        packed = weight.numel() if quant == "int8" else -(-weight.numel() // 2)
        self.weight = nn.Parameter(torch.empty(packed, dtype=torch.uint8, device="meta"), requires_grad=False)
        for i, (elements, dtype) in enumerate(_constants(weight.numel(), self.out_features, quant)):
            self.register_buffer(f"constants_{i}", torch.empty(elements, dtype=dtype, device="meta"))

    @property
    def W_q(self) -> Tensor:
        """The packed weight; by this name PEFT knows that it must ask for the weight unpacked, as DoRA does."""
        return self.weight

    def dequantize(self) -> Tensor:
        """The weight in the compute type, (out_features, in_features)."""
        return torch.empty(self.out_features, self.in_features, dtype=self.compute_dtype, device="meta")

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features), in the input's own type."""
        is_int8 = self.quant == "int8"
        given = x if is_int8 else x.to(self.compute_dtype)
        result: Tensor = _Matmul.apply(given, self.out_features, is_int8)  # type: ignore[no-untyped-call]
        if self.bias is not None:
            result = result + self.bias.to(result.dtype)
        return result.to(x.dtype)


def _constants(elements: int, d_out: int, quant: Quant) -> list[tuple[int, torch.dtype]]:
    """int8: a scale a row. NF4: a scale a block of 64, in 8 bits with one more scale a block of 256 where quantized twice."""
    blocks = -(-elements // 64)
    if quant == "int8":
        return [(d_out, torch.float32)]
    return [(blocks, torch.float32)] if quant == "nf4" else [(blocks, torch.uint8), (-(-blocks // 256), torch.float32)]


class EightBitAdam(torch.optim.Optimizer):
    """bitsandbytes' 8-bit AdamW, bytes only: two moments, a byte each and a scale a block of 256; small tensors in 32 bits.

    A paged one keeps the states of its large tensors in memory that the card may give up, which is counted as held.
    """

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, {})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Make the states, at the first step."""
        for parameter in (p for group in self.param_groups for p in group["params"] if p.grad is not None):
            if parameter not in self.state:
                self.state[parameter] = {"moments": [_moment(parameter), _moment(parameter)]}


def _moment(parameter: Tensor) -> list[Tensor]:
    n = parameter.numel()
    if n < 4096:
        return [parameter.new_empty(n, dtype=torch.float32)]
    return [parameter.new_empty(n, dtype=torch.uint8), parameter.new_empty(-(-n // 256), dtype=torch.float32)]
