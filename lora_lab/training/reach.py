"""How far LoRA of rank r reaches: a known full-rank change of a matrix, fitted by s·B·A on the inputs that it really gets."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from lora_lab.analysis.records import Reach, ReachPoint
from lora_lab.benches import Bench, Split, find_bench
from lora_lab.benches.digits import VARIANTS
from lora_lab.errors import SpecError, out_of_range
from lora_lab.lowrank import LowRank
from lora_lab.training.devices import pinned_threads, threads_for

CHANGE_SHARE = 0.1  # ‖Δ*‖_F / ‖W0‖_F
_SCALING = 1.0  # lora_alpha = r, so that ranks differ in nothing else
_ITERATIONS = (500, 200)
_HISTORY = 10
_FLOOR = 1e-8  # of the largest: a direction of A below it is not scaled up

Descent = tuple[Tensor, Tensor, int]  # both factors, and how many gradients it took


@dataclass(frozen=True)
class Inputs:
    """What n inputs x (d_in) of a matrix are, as far as their outputs go: C = Σ x xᵀ / n = Vᵀ S² V on the k dimensions they span.

    ‖M X‖_F² / n = ‖M Vᵀ S‖_F² for every M (d_out, d_in), so that n inputs become k columns.
    """

    count: int
    scales: Float[Tensor, " k"]  # S
    directions: Float[Tensor, "k d_in"]  # V, orthonormal rows

    @property
    def root(self) -> Float[Tensor, "d_in k"]:
        """Vᵀ S: root @ root.T = C."""
        return self.directions.mT * self.scales


def inputs_of(x: Float[Tensor, "n d_in"]) -> Inputs:
    """The inputs' second moment by an SVD, without squaring; dimensions below the rounding of x are left out."""
    triangle = torch.linalg.qr(x.double(), mode="r").R
    _, s, vh = torch.linalg.svd(triangle / math.sqrt(len(x)), full_matrices=False)
    kept = s > s[0] * max(x.shape) * torch.finfo(torch.float64).eps
    return Inputs(len(x), s[kept], vh[kept])


def best_error(change: Float[Tensor, "d_out d_in"], inputs: Inputs, r: int) -> float:
    """The least ‖(M - Δ*) X‖_F / ‖Δ* X‖_F over all M of rank r.

    With C = R Rᵀ, ‖(M - Δ*) X‖_F² / n = ‖M R - Δ* R‖_F². M R has rank r at most, and every N of that rank is some M R, as R has
    full column rank: the least over M is the least over N, and by Eckart and Young the singular values of Δ* R past the r-th
    are what is left.

    Source: Eckart and Young 1936, "The approximation of one matrix by another of lower rank".
    """
    squares = torch.linalg.svdvals(change @ inputs.root).square()
    return math.sqrt(float(squares[r:].sum()) / float(squares.sum()))


def error_of(delta: LowRank, change: Float[Tensor, "d_out d_in"], inputs: Inputs) -> float:
    """‖(s·B·A - Δ*) X‖_F / ‖Δ* X‖_F."""
    wanted = change @ inputs.root
    return float((delta @ inputs.root - wanted).norm() / wanted.norm())


def fit(change: Float[Tensor, "d_out d_in"], inputs: Inputs, *, r: int, seed: int = 0) -> tuple[LowRank, int]:
    """Train A and B from LoRA's start (B = 0, A Kaiming uniform) until s·B·A does to the inputs what Δ* does.

    Full-batch L-BFGS on ‖(s·B·A - Δ*) X‖_F² / ‖Δ* X‖_F² in float64. Activations are far from white (a few directions hold nearly
    all of C), and a gradient in A's own coordinates crawls along the rest; so the optimizer moves P = A Vᵀ S, which is A in
    coordinates in which the inputs are white, and at last B L and L⁻¹ P for an L that makes the shorter of the two orthonormal,
    which finishes r = min(d_out, d_in). s·B·A and its start are the same in all of these. Where the inputs do not span the
    space, A keeps its start outside of their span: no gradient tells it there.

    Returns:
        the fitted update, and how many times loss and gradient were computed.
    """
    d_out, d_in = change.shape
    wanted = change @ inputs.root
    start = torch.empty(r, d_in, dtype=torch.float64)
    nn.init.kaiming_uniform_(start, a=math.sqrt(5), generator=torch.Generator().manual_seed(seed * 1_000_003 + r))
    b, p = torch.zeros(d_out, r, dtype=torch.float64), start @ inputs.root
    b, p, first = _descend(b, p, wanted, _ITERATIONS[0])
    if d_out < p.shape[1]:
        p_t, b_t, second = _polish(p.mT, b.mT, wanted.mT)
        b, p = b_t.mT, p_t.mT
    else:
        b, p, second = _polish(b, p, wanted)
    v_in = inputs.directions
    a = start - start @ v_in.mT @ v_in + p / inputs.scales @ v_in
    return LowRank(b, a, _SCALING), first + second


def _polish(b: Float[Tensor, "d r"], p: Float[Tensor, "r k"], wanted: Float[Tensor, "d k"]) -> Descent:
    """Descend in b·L and L⁻¹·p with L⁻¹·p orthonormal: where r = k, b is then a least squares of condition 1. Back from L after."""
    u, s, v = torch.linalg.svd(p, full_matrices=False)
    kept = s > _FLOOR * s[0]
    gauge = (u * s)[:, kept]  # L
    b, p, evaluations = _descend(b @ gauge, v[kept], wanted, _ITERATIONS[1])
    return b @ (u / s)[:, kept].mT, gauge @ p, evaluations


def _descend(b: Float[Tensor, "d r"], p: Float[Tensor, "r k"], wanted: Float[Tensor, "d k"], iterations: int) -> Descent:
    """L-BFGS on ‖s·b·p - wanted‖² / ‖wanted‖²."""
    b, p = b.clone().requires_grad_(), p.clone().requires_grad_()
    whole, evaluations = wanted.square().sum(), 0
    optimizer = torch.optim.LBFGS(
        [b, p],
        max_iter=iterations,
        max_eval=10 * iterations,
        history_size=_HISTORY,
        tolerance_grad=1e-14,
        tolerance_change=1e-15,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        nonlocal evaluations
        evaluations += 1
        optimizer.zero_grad()
        loss: Tensor = (_SCALING * b @ p - wanted).square().sum() / whole
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return b.detach(), p.detach(), evaluations


def reach(
    bench_name: str = "digits",
    *,
    matrix: str = "vit.layers.1.attention.q_proj",
    ranks: Sequence[int] | None = None,
    seed: int = 0,
) -> Reach:
    """Fit a known Gaussian change Δ* of one matrix with s·B·A of growing rank, and see what is left of it.

    Δ* has full rank and a tenth of ‖W0‖_F. It is fitted to the matrix's inputs over the bench's training split; the model with
    W0 + s·B·A is then compared with the one with W0 + Δ* on the held-out split. All in float64. Errors are measured on outputs:
    where the inputs span less than d_in dimensions (`activations_rank`), Δ* is told by them on their span alone, and s·B·A of
    rank `activations_rank` already does the same.

    Args:
        bench_name: digits or one of its variants.
        matrix: a linear map of the base, by its module path.
        ranks: in 1..min(d_out, d_in); if None 1, 2, 4, … and min(d_out, d_in).
        seed: draws Δ* and the start of A.

    Raises:
        SpecError: no such bench, matrix or rank.
    """
    if bench_name not in VARIANTS:
        raise SpecError(out_of_range("bench_name", "reach", f"one of {', '.join(VARIANTS)}", bench_name))
    bench = find_bench(bench_name)
    with pinned_threads(threads_for(bench.defaults.threads)):
        return _reach(bench, matrix, ranks, seed)


def known_change(weight: Float[Tensor, "d_out d_in"], *, seed: int = 0) -> Float[Tensor, "d_out d_in"]:
    """Δ*: Gaussian, so of full rank, with a tenth of the weight's Frobenius norm; float64."""
    drawn = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    drawn *= CHANGE_SHARE * float(weight.double().norm()) / float(drawn.norm())
    return drawn


def _reach(bench: Bench, matrix: str, ranks: Sequence[int] | None, seed: int) -> Reach:
    model = bench.build().double()
    weight = _weight(model, matrix)
    chosen = _checked(ranks, max_r=min(weight.shape))
    training, held_out, _ = bench.splits()
    inputs = inputs_of(_activations(model, matrix, training))
    change = known_change(weight, seed=seed)
    answers = _Answers(model, matrix, held_out, change)
    return Reach(
        bench=bench.name,
        matrix=matrix,
        shape=(weight.shape[0], weight.shape[1]),
        seed=seed,
        change_share=CHANGE_SHARE,
        change_singular_values=tuple(torch.linalg.svdvals(change).tolist()),
        activations=inputs.count,
        activations_rank=len(inputs.scales),
        logits_change=answers.change,
        points=tuple(_point(change, inputs, answers, r, seed) for r in chosen),
    )


def _point(change: Tensor, inputs: Inputs, answers: "_Answers", r: int, seed: int) -> ReachPoint:
    delta, evaluations = fit(change, inputs, r=r, seed=seed)
    return ReachPoint(
        r=r,
        params=delta.params,
        error=error_of(delta, change, inputs),
        best_error=best_error(change, inputs, r),
        logits_error=answers.error_of(delta.dense()),
        evaluations=evaluations,
    )


def _weight(model: nn.Module, matrix: str) -> Float[Tensor, "d_out d_in"]:
    module = dict(model.named_modules()).get(matrix)
    if not isinstance(module, nn.Linear):
        raise SpecError(out_of_range("matrix", "reach", "a linear map of the base, by its module path", matrix))
    return module.weight.detach()


def _checked(ranks: Sequence[int] | None, *, max_r: int) -> tuple[int, ...]:
    """The ranks in order, each once."""
    if ranks is None:
        return (*(2**i for i in range(max_r.bit_length()) if 2**i < max_r), max_r)
    wrong = [r for r in ranks if not 1 <= r <= max_r]
    if wrong or not ranks:
        raise SpecError(out_of_range("ranks", "reach", f"ints in 1..min(d_out, d_in)={max_r}", wrong[0] if wrong else ranks))
    return tuple(sorted(set(ranks)))


@torch.no_grad()
def _activations(model: nn.Module, matrix: str, split: Split) -> Float[Tensor, "n d_in"]:
    """Every input that the matrix gets on the split, one row a token."""
    seen: list[Tensor] = []
    hook = model.get_submodule(matrix).register_forward_pre_hook(lambda _module, given: seen.append(given[0].flatten(0, -2)))
    try:
        model(pixel_values=split.columns["pixel_values"].double())
    finally:
        hook.remove()
    return torch.cat(seen)


class _Answers:
    """The model's logits on held-out images, with its one matrix changed."""

    def __init__(self, model: nn.Module, matrix: str, split: Split, change: Tensor) -> None:
        self._model, self._name = model, f"{matrix}.weight"
        self._images = split.columns["pixel_values"].double()
        base = self._logits(torch.zeros_like(change))
        self._wanted = self._logits(change)
        self._moved = float((self._wanted - base).norm())
        self.change = self._moved / float(base.norm())

    def error_of(self, delta: Float[Tensor, "d_out d_in"]) -> float:
        """How far the logits with W0 + ΔW are from those with W0 + Δ*, as a share of how far Δ* moved them."""
        return float((self._logits(delta) - self._wanted).norm()) / self._moved

    @torch.no_grad()
    def _logits(self, delta: Float[Tensor, "d_out d_in"]) -> Float[Tensor, "n classes"]:
        weight = self._model.get_parameter(self._name)
        logits: Tensor = functional_call(self._model, {self._name: weight + delta}, (self._images,)).logits
        return logits
