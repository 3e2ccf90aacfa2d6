"""A base in 8 or 4 bits, by bitsandbytes, on whatever device it runs."""

from typing import Any

import torch
from torch import nn

from lora_lab.errors import SpecError
from lora_lab.live_geometry import read_geometry
from lora_lab.methods.quantized import bitsandbytes, keep_exact
from lora_lab.specs import Quant


def quantize(model: nn.Module, quant: Quant, *, compute_dtype: torch.dtype = torch.float32) -> nn.Module:
    """The model with its linear maps quantized in place, as transformers' loader does.

    Left as they are: the head, and what the family keeps in float32 (T5's `wo`, to whose dtype it casts what goes in).

    Args:
        model: a fresh base on the CPU.
        quant: `int8` (LLM.int8), `nf4`, `nf4-dq` (scales quantized too), or `none`.
        compute_dtype: in which a dequantized NF4 matrix multiplies.

    Raises:
        SpecError: bitsandbytes is not installed, or there is nothing to quantize.

    Source: Dettmers et al. 2022 (arXiv 2208.07339), Dettmers et al. 2023 (QLoRA, arXiv 2305.14314).
    """
    if quant == "none":
        return model
    bnb, geometry = bitsandbytes(), read_geometry(model)
    names = [m.name for m in geometry.matrices if m.is_quantizable]
    if not names:
        raise SpecError(f"bitsandbytes quantizes nn.Linear and Conv1D, and {type(model).__name__} has neither but its head.")
    for name in names:
        model.set_submodule(name, _quantized(bnb, model.get_submodule(name), quant, compute_dtype))
    # What PEFT asks a model before it attaches to quantized layers, and transformers before it moves one.
    keep_exact(model)
    live: Any = model
    live.is_loaded_in_8bit, live.is_loaded_in_4bit = quant == "int8", quant != "int8"
    return model


def _quantized(bnb: Any, layer: Any, quant: Quant, compute_dtype: torch.dtype) -> nn.Module:
    weight = layer.weight.data
    weight = weight.T.contiguous() if type(layer).__name__ == "Conv1D" else weight  # transformers does so too
    d_out, d_in = weight.shape
    bias = getattr(layer, "bias", None)
    if quant == "int8":
        made = bnb.nn.Linear8bitLt(d_in, d_out, bias is not None, has_fp16_weights=False, threshold=6.0)
        made.weight = bnb.nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
    else:
        made = bnb.nn.Linear4bit(
            d_in, d_out, bias is not None, compute_dtype, compress_statistics=quant == "nf4-dq", quant_type="nf4"
        )
        made.weight = bnb.nn.Params4bit(
            weight, requires_grad=False, compress_statistics=quant == "nf4-dq", quant_type="nf4", module=made
        )
    if bias is not None:
        made.bias = nn.Parameter(bias.data, requires_grad=False)
    made.source_cls = type(layer)  # as transformers notes it
    on_device: nn.Module = made.to(weight.device)  # it is the move that quantizes
    return on_device
