"""∂L/∂W of every matrix of a base with nothing on it: what an update of any of them would follow at the first step."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lora_lab.errors import SpecError, out_of_range
from lora_lab.geometry import Matrix
from lora_lab.live_geometry import read_geometry
from lora_lab.training.gradients import Batch, loss_of, own_leaf
from lora_lab.training.modes import in_eval_mode


def base_gradients(model: nn.Module, batches: Iterable[Batch]) -> dict[str, Float[Tensor, "d_out d_in"]]:
    """The mean over the batches of ∂L/∂W of every linear matrix but a head's, one forward and backward a batch.

    In eval mode; the model is left as it was: weights, gradients, what requires gradients, modes. A weight that is tied to another
    is told apart from it, and a matrix that the loss does not depend on has a gradient of 0. In memory there is one float32 of
    every weight on the CPU, and one gradient at a time besides.

    Args:
        model: a base in floating point, on any device.
        batches: columns of the model's forward, `labels` among them; of one size, as each counts alike.

    Returns:
        by module path, (d_out, d_in), in nats per unit of weight; the experts of a parameter as `<parameter>[i]`.

    Raises:
        SpecError: no batch, one without labels, or a weight that is quantized.
    """
    matrices, count = _matrices(model), 0
    with ExitStack() as stack:
        stack.enter_context(in_eval_mode(model))
        stack.enter_context(torch.enable_grad())
        leaves = [stack.enter_context(own_leaf(*_place(model, matrix))) for matrix in matrices]
        sums = [_summed(leaf) for leaf in leaves]
        for batch in batches:
            torch.autograd.backward(loss_of(model, batch, "base_gradients"), inputs=leaves)
            count += 1
    if count == 0:
        raise SpecError(out_of_range("batches", "base_gradients", "at least one batch", count))
    pairs = zip(matrices, sums, strict=True)
    return {name: mean for matrix, total in pairs for name, mean in _oriented(model, matrix, total.div_(count))}


def _matrices(model: nn.Module) -> list[Matrix]:
    matrices = [matrix for matrix in read_geometry(model).matrices if matrix.role != "head"]
    for matrix in matrices:
        owner, name = _place(model, matrix)
        if not getattr(owner, name).dtype.is_floating_point:
            raise SpecError(out_of_range("model", "base_gradients", "in floating point, not quantized", matrix.name))
    return matrices


def _place(model: nn.Module, matrix: Matrix) -> tuple[nn.Module, str]:
    """The module that holds the weight, and what it calls it."""
    if matrix.kind != "experts":
        return model.get_submodule(matrix.name), "weight"
    owner, _, name = matrix.name.rpartition(".")
    return model.get_submodule(owner), name


def _summed(leaf: Tensor) -> Tensor:
    """What the gradients of the leaf are added to, each as soon as it is there, so that no two lie in memory."""
    total = torch.zeros(leaf.shape)

    def take(found: Tensor) -> None:
        assert found.grad is not None
        total.add_(found.grad.to("cpu", torch.float32))
        found.grad = None

    leaf.register_post_accumulate_grad_hook(take)  # type: ignore[no-untyped-call]
    return total


def _oriented(model: nn.Module, matrix: Matrix, gradient: Tensor) -> Iterator[tuple[str, Float[Tensor, "d_out d_in"]]]:
    if matrix.kind != "experts":
        yield matrix.name, gradient.mT if matrix.kind == "conv1d" else gradient
        return
    owner, _ = _place(model, matrix)
    stack = gradient.mT if getattr(owner, "is_transposed", False) else gradient
    yield from ((f"{matrix.name}[{i}]", expert) for i, expert in enumerate(stack))
