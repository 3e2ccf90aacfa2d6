"""The bill of a training step, by doing it: two steps of the real model and the real adapter on the meta device.

It shares no code with the formula. No memory is touched: only the sizes of what PyTorch would allocate are counted.
"""

import contextlib
import gc
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lora_lab.budget.kernels import FLASH, EightBitAdam, QuantizedLinear, as_on_cuda
from lora_lab.budget.ledger import Ledger
from lora_lab.budget.meta import build_model
from lora_lab.budget.meter import Meter
from lora_lab.budget.models import Model
from lora_lab.errors import DataError, SpecError
from lora_lab.methods import attach_method
from lora_lab.specs import MethodSpec, StepSpec

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
_IGNORED_HEADS = ("lm_head", "embed_out", "cls", "classifier", "score")  # bitsandbytes leaves them as they are


_ONE_AT_A_TIME = threading.Lock()  # it patches functions of the process
Attach = Callable[[nn.Module], nn.Module]


def trace(model: Model, spec: MethodSpec, step: StepSpec) -> Ledger:
    """What two training steps hold at their peak.

    Args:
        model: its config is built; its weights are not needed.
        spec: attached as `methods` attaches it.
        step: the batch, padded to `seq`; the optimizer; the numeric types.

    Raises:
        SpecError: the base cannot take the method.
        DataError: transformers cannot build the config.
    """
    return trace_attached(model, lambda base: attach_method(base, spec, adapter_dtype=DTYPES[step.adapter_dtype]), step)[0]


def trace_attached(model: Model, attach: Attach, step: StepSpec) -> tuple[Ledger, nn.Module]:
    """The bill of two steps of whatever `attach` makes of the base, and the model it made, on the meta device."""
    with _ONE_AT_A_TIME, _quietly(), as_on_cuda():
        base = _prepare(model, step)
        weights = {tensor.untyped_storage()._cdata for tensor in _tensors(base)}
        live = attach(base)
        if step.checkpointing:
            _checkpoint(live)
        if step.fused_loss:
            _fuse_loss(live)
        batch, optimizer = _batch(live, model, step), _optimizer(live, step)
        architecture = model.geometry.architecture
        meter = Meter(architecture.vocab if architecture else 0, step.tokens)
        for tensor in _tensors(live):
            meter.bill(tensor, "weights" if tensor.untyped_storage()._cdata in weights else "adapters")
        inputs = [*batch.values(), *_padding_mask(step)]
        for tensor in inputs:
            meter.bill(tensor, "activations")
        for parameter in optimizer.param_groups[0]["params"]:
            parameter.register_post_accumulate_grad_hook(lambda p: meter.bill(p.grad, "gradients", again=True))
        with meter:
            for _ in range(2):
                _step_or_refuse(live, batch, optimizer, meter)
    return meter.ledger(), live


def _step_or_refuse(live: nn.Module, batch: dict[str, Tensor], optimizer: torch.optim.Optimizer, meter: Meter) -> None:
    """A step that the libraries cannot run on a GPU they often cannot run here: a sequence longer than the positions, say."""
    try:
        _step(live, batch, optimizer, meter)
    except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError) as err:
        reason = str(err).strip().split("\n", 1)[0].rstrip(".")
        raise SpecError(f"The trace must be of a step that transformers and PEFT can run. This one stops with: {reason}.") from err


def _prepare(model: Model, step: StepSpec) -> nn.Module:
    """The base as a step finds it: typed, quantized, made ready for k-bit training."""
    live = _build(model, step)
    live.config.use_cache = False  # type: ignore[union-attr]
    for parameter in live.parameters():
        parameter.requires_grad_(True)
    if step.quant != "none":
        _quantize(live, step)
    if step.kbit_prepare:
        for parameter in (p for p in live.parameters() if p.is_floating_point()):
            parameter.data = parameter.data.float()  # PEFT 0.21 casts whatever is not in 4 bits, embeddings and head too
    return live


def _build(model: Model, step: StepSpec) -> nn.Module:
    """With the attention asked for, or the nearest that the family has: Gemma 2 has no SDPA, DeBERTa only its own."""
    ways = {"flash": (FLASH, "sdpa", "eager"), "sdpa": ("sdpa", "eager"), "eager": ("eager",)}[step.attention]
    for way in ways[:-1]:
        with contextlib.suppress(DataError):
            return build_model(model.config, dtype=DTYPES[step.dtype], attention=way)
    return build_model(model.config, dtype=DTYPES[step.dtype], attention=ways[-1])


def _tensors(live: nn.Module) -> Iterator[Tensor]:
    yield from live.parameters()
    yield from live.buffers()


def _quantize(live: nn.Module, step: StepSpec) -> None:
    """As transformers does with bitsandbytes: nn.Linear and Conv1D but the head and what a family keeps; subclasses stay."""
    left = {*_IGNORED_HEADS, *(getattr(live, "_keep_in_fp32_modules", None) or ())}
    for name, module in list(live.named_modules()):
        plain = type(module) is nn.Linear or isinstance(module, Conv1D)
        if plain and not left & set(name.split(".")):
            parent = live.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], QuantizedLinear(module, step.quant))


def _checkpoint(live: nn.Module) -> None:
    """Checkpoint every layer. Its input must ask for a gradient even where everything before it is frozen."""
    live.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
    live.enable_input_require_grads()  # type: ignore[operator]


class _FusedLoss(torch.autograd.Function):
    """A head and its loss in one kernel: no logits, the gradient of the hidden states made on the way forward."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor) -> Tensor:
        ctx.of_weight = torch.empty_like(weight) if weight.requires_grad else None
        ctx.of_hidden = torch.empty_like(hidden)
        return hidden.new_empty(*hidden.shape[:-1], 1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None]:
        given, ctx.of_hidden, ctx.of_weight = (ctx.of_hidden, ctx.of_weight), None, None
        return given


def _fuse_loss(live: nn.Module) -> None:
    head = live.get_output_embeddings()  # type: ignore[operator]
    if head is not None:
        head.forward = lambda hidden: _FusedLoss.apply(hidden, head.weight)  # type: ignore[no-untyped-call]


def _batch(live: nn.Module, model: Model, step: StepSpec) -> dict[str, Tensor]:
    """Padded tokens, or images where the model takes them; labels where it has a language model's loss."""
    config: Any = live.config
    if getattr(config, "image_size", None) and not config.is_encoder_decoder:
        shape = (step.batch, config.num_channels, config.image_size, config.image_size)
        return {"pixel_values": torch.empty(shape, dtype=DTYPES[step.dtype], device="meta")}
    tokens = torch.empty(step.batch, step.seq, dtype=torch.int64, device="meta")
    writes = live.get_output_embeddings() is not None and not step.fused_loss  # type: ignore[operator]
    return {"input_ids": tokens, **({"labels": tokens} if writes else {})}


def _padding_mask(step: StepSpec) -> list[Tensor]:
    """What SDPA is given for a padded batch: a byte a pair of positions. Flash takes none, eager makes its own."""
    shape = (step.batch, 1, step.seq, step.seq)
    return [torch.empty(shape, dtype=torch.bool, device="meta")] if step.attention == "sdpa" else []


def _optimizer(live: nn.Module, step: StepSpec) -> torch.optim.Optimizer:
    """As CUDA would run it: one foreach kernel over all tensors."""
    trained = [p for p in live.parameters() if p.requires_grad]
    if step.optimizer == "adamw":
        return torch.optim.AdamW(trained, foreach=True)
    if step.optimizer == "adafactor":
        return torch.optim.Adafactor(trained, foreach=True)
    return torch.optim.SGD(trained, foreach=True) if step.optimizer == "sgd" else EightBitAdam(trained)


def _step(live: nn.Module, batch: dict[str, Tensor], optimizer: torch.optim.Optimizer, meter: Meter) -> None:
    outputs = live(**batch)
    loss = outputs["loss"] if outputs.get("loss") is not None else outputs[0].float().mean()
    loss.backward()
    with meter.billing("optimizer"), mock.patch.object(Tensor, "item", _one):  # Adafactor reads norms
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def _one(_: Tensor) -> float:
    return 1.0


@contextmanager
def _quietly() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    gc.collect()
