"""How gradients reach LoRA's two factors: with W = W0 + s·B·A and G = ∂L/∂W, ∂L/∂B = s·G·Aᵀ and ∂L/∂A = s·Bᵀ·G."""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import islice
from typing import Any

import torch
from jaxtyping import Float
from peft.tuners.adalora import AdaLoraLayer
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import ParamWrapper
from torch import Tensor, nn

from lora_lab.analysis.records import ChainRule, FirstGradient, GradientNorms, MatrixGradient
from lora_lab.errors import SpecError, out_of_range
from lora_lab.training.modes import in_eval_mode
from lora_lab.training.optimizers import optimizer_class

_PREFIX = "base_model.model."
Batch = Mapping[str, Tensor]


def gradient_norms(peft_model: nn.Module, *, adapter_name: str = "default") -> GradientNorms:
    """‖∂L/∂A‖_F and ‖∂L/∂B‖_F as the last backward left them, by adapted matrix and in total.

    Not the norm over all that trains: DoRA's magnitudes, AdaLoRA's E and a task head are left out. The factors of a layer's
    experts count as one matrix. A norm costs one pass over the factors, and all of them one wait for the device.

    Returns:
        norms in nats per unit of weight; None where there is no factor, or none with a gradient.
    """
    factors = list(_factors(peft_model, adapter_name))
    norms = _norms([(f"{name} {side}", p.grad) for name, a, b in factors for side, p in (("a", a), ("b", b))])
    matrices = {name: MatrixGradient(norms[f"{name} a"], norms[f"{name} b"]) for name, _, _ in factors}
    return GradientNorms(matrices, _total(m.a for m in matrices.values()), _total(m.b for m in matrices.values()))


def _factors(peft_model: nn.Module, adapter_name: str) -> Iterator[tuple[str, nn.Parameter, nn.Parameter]]:
    """(module path in the base, A, B) of every adapted matrix: embeddings and AdaLoRA keep them as bare parameters."""
    for name, module in peft_model.named_modules():
        if isinstance(module, LoraLayer):
            for kind in ("lora_", "lora_embedding_"):
                all_a, all_b = (getattr(module, f"{kind}{side}") for side in "AB")
                if adapter_name in all_a:
                    a, b = (getattr(one[adapter_name], "weight", one[adapter_name]) for one in (all_a, all_b))
                    yield _base_name(name, module), a, b


def _base_name(name: str, module: nn.Module) -> str:
    """The path without PEFT's own; wrappers of several parameters of one module lie in each other and adapt one each."""
    path = name.removeprefix(_PREFIX).replace(".base_layer", "")
    return f"{path}.{module.parameter_name}" if isinstance(module, ParamWrapper) else path


def _norms(gradients: list[tuple[str, Tensor | None]]) -> dict[str, float | None]:
    """Frobenius norms by key, None where the gradient is; read from the device at once."""
    there = [(key, gradient) for key, gradient in gradients if gradient is not None]
    norms: dict[str, float | None] = dict.fromkeys(key for key, _ in gradients)
    if there:
        device = there[0][1].device
        found = torch.stack([_norm(gradient.detach()).to(device, torch.float32) for _, gradient in there])
        norms.update(zip((key for key, _ in there), found.tolist(), strict=True))
    return norms


def _norm(x: Tensor) -> Tensor:
    """Added up in float32 at least: half precision would overflow."""
    norm: Tensor = torch.linalg.vector_norm(x, dtype=torch.promote_types(x.dtype, torch.float32))
    return norm


def _total(norms: Iterable[float | None]) -> float | None:
    """The norm over all matrices; None where no norm is."""
    there = [norm for norm in norms if norm is not None]
    return math.hypot(*there) if there else None


def chain_rule(peft_model: nn.Module, batch: Batch, module_name: str, *, adapter_name: str = "default") -> ChainRule:
    """G = ∂L/∂W of one matrix measured at its base weight, and from it ∂L/∂A and ∂L/∂B, beside what autograd says of A and B.

    The model is measured in eval mode (dropout would give A and W other inputs) and left as it was: weights, gradients, what
    requires gradients, modes. With DoRA the rule holds as well, as its column norms pass no gradient (Liu et al. 2024,
    section 4.3): G is then the gradient of W0 with the magnitudes' factor in it.

    Args:
        peft_model: a live model with LoRA on it, not merged.
        batch: columns of the model's forward, `labels` among them.
        module_name: the matrix's module path in the base, without PEFT's prefix.
        adapter_name: which adapter.

    Raises:
        SpecError: no such matrix with factors A and B (AdaLoRA and experts have another rule), or the batch has no labels.

    Source: Hu et al. 2021, section 4.1, by the chain rule on equation 3.
    """
    layer = _linear_with_lora(peft_model, module_name, adapter_name)
    lora_a, lora_b = layer.lora_A[adapter_name], layer.lora_B[adapter_name]
    with ExitStack() as stack:
        stack.enter_context(in_eval_mode(peft_model))
        stack.enter_context(torch.enable_grad())
        leaves = [stack.enter_context(own_leaf(module)) for module in (layer.get_base_layer(), lora_a, lora_b)]
        loss = loss_of(peft_model, batch, "chain_rule")
        grad_w, grad_a, grad_b = (g.to("cpu", torch.float64) for g in torch.autograd.grad(loss, leaves))
    grad_w = grad_w.mT if layer.fan_in_fan_out else grad_w  # Conv1D stores (d_in, d_out)
    a, b = (module.weight.detach().to("cpu", torch.float64) for module in (lora_a, lora_b))
    scaling = float(layer.scaling[adapter_name])
    return ChainRule(
        name=module_name,
        d_out=b.shape[0],
        d_in=a.shape[1],
        r=a.shape[0],
        scaling=scaling,
        loss=float(loss.detach()),
        norm_a=float(a.norm()),
        norm_b=float(b.norm()),
        grad_norm_w=float(grad_w.norm()),
        grad_norm_a=float(grad_a.norm()),
        grad_norm_b=float(grad_b.norm()),
        difference_a=_difference(grad_a, scaling * b.mT @ grad_w),
        difference_b=_difference(grad_b, scaling * grad_w @ a.mT),
    )


def _linear_with_lora(peft_model: nn.Module, name: str, adapter_name: str) -> Any:
    """The LoRA layer of a linear map whose weight can have a gradient."""
    layers = {path.removeprefix(_PREFIX): module for path, module in peft_model.named_modules() if isinstance(module, LoraLayer)}
    layer = layers.get(name)
    if layer is None or isinstance(layer, AdaLoraLayer | ParamWrapper) or adapter_name not in layer.lora_A:
        raise SpecError(out_of_range("module_name", "chain_rule", "a linear map with LoRA's factors A and B", name))
    weight = layer.get_base_layer().weight
    if weight.ndim != 2 or not weight.dtype.is_floating_point or layer.merged or layer.disable_adapters:
        allowed = "a linear map in floating point whose adapter is active and not merged"
        raise SpecError(out_of_range("module_name", "chain_rule", allowed, name))
    return layer


@contextmanager
def own_leaf(module: nn.Module, name: str = "weight") -> Iterator[Tensor]:
    """A block in which a parameter of the module is a leaf of its own over the same memory.

    So neither `requires_grad` nor `.grad` of the real one is touched, and a weight tied to another is told apart from it.
    """
    original = getattr(module, name)
    assert isinstance(original, nn.Parameter)
    leaf = nn.Parameter(original.detach())
    setattr(module, name, leaf)
    try:
        yield leaf
    finally:
        setattr(module, name, original)


def loss_of(model: nn.Module, batch: Batch, owner: str) -> Tensor:
    """The model's own loss on a batch, on the model's device.

    Raises:
        SpecError: it gives none, as `owner` was handed no labels.
    """
    device = next(model.parameters()).device
    loss: Tensor | None = getattr(model(**{name: column.to(device) for name, column in batch.items()}), "loss", None)
    if loss is None:
        raise SpecError(out_of_range("batch", owner, "columns with labels, for which the model gives a loss", sorted(batch)))
    return loss


def _difference(measured: Float[Tensor, "m n"], computed: Float[Tensor, "m n"]) -> float:
    larger = max(float(measured.norm()), float(computed.norm()))
    return float((measured - computed).norm()) / larger if larger > 0 else 0.0


def first_gradients(
    peft_model: nn.Module, batches: Iterable[Batch], *, steps: int, learning_rate: float, optimizer: str = "AdamW"
) -> tuple[FirstGradient, ...]:
    """Train the model for its first steps, with the gradients of A and B before each.

    It is no run: no warm-up, no clipping, torch's own defaults of the optimizer. The model is changed in place, in the mode that
    it is in, and its gradients are cleared at the end.

    Args:
        peft_model: a live model with LoRA on it.
        batches: columns of the model's forward, one mapping a step.
        steps: how many, at least 1.
        learning_rate: constant.
        optimizer: a class of torch.optim or bitsandbytes.optim, by name.

    Raises:
        SpecError: an unknown optimizer, too few batches, or a batch without labels.
    """
    chosen: Any = optimizer_class(optimizer)
    if steps < 1:
        raise SpecError(out_of_range("steps", "first_gradients", "at least 1", steps))
    taken = list(islice(batches, steps))
    if len(taken) < steps:
        raise SpecError(out_of_range("batches", "first_gradients", f"at least {steps} batches, one a step", len(taken)))
    update = chosen([p for p in peft_model.parameters() if p.requires_grad], lr=learning_rate)
    update.zero_grad()
    return tuple(_one_step(peft_model, batch, step, update) for step, batch in enumerate(taken, 1))


def _one_step(peft_model: nn.Module, batch: Batch, step: int, update: torch.optim.Optimizer) -> FirstGradient:
    loss = loss_of(peft_model, batch, "first_gradients")
    loss.backward()  # type: ignore[no-untyped-call]
    norms = gradient_norms(peft_model)
    update.step()
    update.zero_grad()
    return FirstGradient(step, float(loss.detach()), norms)
