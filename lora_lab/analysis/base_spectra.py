"""The singular vectors of one dense matrix, a base's W or a gradient: all of them, or the leading ones with their error."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lora_lab.analysis.random_subspaces import random_generator
from lora_lab.errors import SpecError, out_of_range

_OVERSAMPLING = 10
_BLOCKS = 6
_SMALL = 512  # at and below this min(d_out, d_in) the whole SVD takes no longer


@dataclass(frozen=True)
class BaseSpectrum:
    """The k leading singular triplets of a matrix of shape (d_out, d_in), strongest first, and how well they were found.

    Attributes:
        u: left singular vectors as columns, orthonormal.
        singular_values: largest first.
        vh: right singular vectors as rows, orthonormal.
        frobenius: ‖W‖_F of the whole matrix.
        residuals: ‖W vᵢ − σᵢ uᵢ‖ of each triplet, while Wᵀ uᵢ = σᵢ vᵢ to rounding. Some singular value of W is within the
            residual of σᵢ; and none of the k largest is above the σᵢ of its place by more than `rest_frobenius`.
    """

    u: Float[Tensor, "d_out k"]
    singular_values: Float[Tensor, " k"]
    vh: Float[Tensor, "k d_in"]
    frobenius: float
    residuals: tuple[float, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """(d_out, d_in) of the matrix."""
        return self.u.shape[0], self.vh.shape[1]

    @property
    def k(self) -> int:
        """How many triplets there are."""
        return len(self.singular_values)

    @property
    def is_complete(self) -> bool:
        """Whether these are all that the matrix has."""
        return self.k == min(self.shape)

    @property
    def spectral(self) -> float:
        """‖W‖_2."""
        return float(self.singular_values[0])

    @property
    def relative_residual(self) -> float:
        """The largest residual as a share of ‖W‖_2; 0 where W = 0."""
        return max(self.residuals) / self.spectral if self.spectral > 0 else 0.0

    @property
    def rest_frobenius(self) -> float:
        """‖W − U Uᵀ W‖_F, what lies outside these directions: an upper bound for every singular value that is not here."""
        return float(max(self.frobenius**2 - float(self.singular_values.square().sum()), 0.0) ** 0.5)


def base_spectrum(w: Float[Tensor, "d_out d_in"], k: int | None = None, *, dtype: torch.dtype = torch.float64) -> BaseSpectrum:
    """The k leading singular triplets of W: from the whole SVD where W is small or k near its size, else as `leading_spectrum`.

    Args:
        w: one dense matrix, in any floating type.
        k: how many, at most min(d_out, d_in), which None stands for.
        dtype: what is computed in: float64, or float32 at half the time and memory.

    Raises:
        SpecError: k is below 1.
    """
    most = min(w.shape)
    k = most if k is None else _checked(k, most)
    if most <= _SMALL or 4 * (k + _OVERSAMPLING) > most:
        return exact_spectrum(w, k, dtype=dtype)
    return leading_spectrum(w, k, dtype=dtype)


def exact_spectrum(w: Float[Tensor, "d_out d_in"], k: int | None = None, *, dtype: torch.dtype = torch.float64) -> BaseSpectrum:
    """The k leading singular triplets of W from its whole SVD, O(d_out · d_in · min(d_out, d_in)): minutes at 4096 × 4096.

    Raises:
        SpecError: k is below 1.
    """
    w = w.detach().to("cpu", dtype)
    k = min(w.shape) if k is None else _checked(k, min(w.shape))
    u, s, vh = (part.contiguous() for part in _cut(torch.linalg.svd(w, full_matrices=False), k))
    return BaseSpectrum(u, s, vh, _norm(w), _sizes(w @ vh.mT - u * s))


def leading_spectrum(
    w: Float[Tensor, "d_out d_in"],
    k: int,
    *,
    tolerance: float = 1e-6,
    products: int = 40,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> BaseSpectrum:
    """The k leading singular triplets of W by randomized block iteration, O(d_out · d_in · k) a product.

    Gaussian combinations of W's columns, k and ten more, span a first basis; what W Wᵀ makes of the leading vectors joins
    it, block by block, and the triplets are the best in the span of all. A basis of six blocks is cut to its best three. It
    ends when every residual is below `tolerance` · σ₁ or after so many products; where the spectrum is flat that is later,
    and the residuals say how near it came.

    Args:
        w: one dense matrix.
        k: how many triplets.
        tolerance: residual to reach, as a share of ‖W‖_2; rounding allows none below 100 times the epsilon of `dtype`.
        products: at most so many times W and Wᵀ are applied to a block.
        seed: of the Gaussian start; the global stream is left alone.
        dtype: what is computed in.

    Raises:
        SpecError: k is not in 1..min(d_out, d_in), or there is no product.

    Source: Halko, Martinsson and Tropp 2011, "Finding structure with randomness", algorithm 4.4; that earlier blocks are
    kept, Musco and Musco 2015, "Randomized block Krylov methods", algorithm 2; the cut, Baglama and Reichel 2005,
    "Augmented implicitly restarted Lanczos bidiagonalization methods".
    """
    if k > min(w.shape):
        raise SpecError(out_of_range("k", "leading_spectrum", f"an int in 1..min(d_out, d_in)={min(w.shape)}", k))
    if products < 1:
        raise SpecError(out_of_range("products", "leading_spectrum", "an int of at least 1", products))
    w, k = w.detach().to("cpu", dtype), _checked(k, min(w.shape))
    block = min(k + _OVERSAMPLING, *w.shape)
    most = min(_BLOCKS * block, *w.shape)
    reached = max(tolerance, 100 * torch.finfo(dtype).eps)
    basis = _range_of(w, block, seed)
    rows = basis.mT @ w
    for left in reversed(range(products)):
        u, s, vh = _best_in(basis, rows, max(most // 2, block))
        residual = (vh[:block] @ w.mT).mT - u[:, :block] * s[:block]
        sizes = _sizes(residual[:, :k])
        if max(sizes) <= reached * float(s[0]) or left == 0 or basis.shape[1] == min(w.shape):
            break
        if basis.shape[1] == most:
            basis, rows = u, s[:, None] * vh
        new = _new_directions(basis, residual[:, : most - basis.shape[1]])
        basis, rows = torch.cat([basis, new], dim=1), torch.cat([rows, new.mT @ w])
    return BaseSpectrum(*_cut((u, s, vh), k), _norm(w), sizes)


def _range_of(w: Tensor, k: int, seed: int) -> Tensor:
    """An orthonormal basis of k Gaussian combinations of W's columns."""
    start = torch.randn(k, w.shape[1], generator=random_generator("leading_spectrum", seed), dtype=torch.float64)
    basis: Tensor = torch.linalg.qr((start.to(w) @ w.mT).mT)[0]
    return basis


def _best_in(basis: Tensor, rows: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The k leading triplets of Q Qᵀ W, from Q and `rows` = Qᵀ W; all that there are where Q has fewer columns."""
    q, triangle = torch.linalg.qr(rows.mT)
    u, s, vh = _cut(torch.linalg.svd(triangle.mT, full_matrices=False), k)
    return basis @ u, s, vh @ q.mT


def _new_directions(basis: Tensor, residual: Tensor) -> Tensor:
    """An orthonormal basis of what the residuals add. Once leaves rounding along the old basis, twice is enough."""
    for _ in range(2):
        residual = torch.linalg.qr(residual - basis @ (basis.mT @ residual))[0]
    return residual


def _cut(triplets: tuple[Tensor, Tensor, Tensor], k: int) -> tuple[Tensor, Tensor, Tensor]:
    u, s, vh = triplets
    return u[:, :k], s[:k], vh[:k]


def _sizes(residual: Tensor) -> tuple[float, ...]:
    return tuple(residual.norm(dim=0).tolist())


def _norm(w: Tensor) -> float:
    return float(torch.linalg.vector_norm(w, dtype=torch.float64))


def _checked(k: int, most: int) -> int:
    if k < 1:
        raise SpecError(out_of_range("k", "base_spectrum", f"an int in 1..min(d_out, d_in)={most}", k))
    return min(k, most)
