"""LowRank: ΔW = scaling · B A, kept as its factors. Nothing here builds the (d_out, d_in) matrix but `dense`."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from lora_lab.errors import AdapterError, SpecError, out_of_range

SvdMethod = Literal["qr", "gram"]


@dataclass(frozen=True)
class LowRank:
    """ΔW = scaling · lora_b @ lora_a, of shape (d_out, d_in), as three small things.

    All arithmetic is float64 on the CPU: the factors are small, and a spectrum that spans many decades needs it.

    Source: Hu et al. 2021, equation 3.

    >>> delta = LowRank(torch.tensor([[3.0], [4.0]]), torch.tensor([[1.0, 0.0, 0.0]]), 2.0)
    >>> delta.shape, delta.frobenius()
    ((2, 3), 10.0)
    """

    lora_b: Float[Tensor, "d_out r"]
    lora_a: Float[Tensor, "r d_in"]
    scaling: float

    def __post_init__(self) -> None:
        if self.lora_b.ndim != 2 or self.lora_a.ndim != 2 or self.lora_b.shape[1] != self.lora_a.shape[0]:
            shapes = f"{tuple(self.lora_b.shape)} and {tuple(self.lora_a.shape)}"
            raise AdapterError(f"lora_b must be (d_out, r) and lora_a (r, d_in) with one r. Got {shapes}.")
        if self.r < 1:
            raise AdapterError(f"The r of LowRank must be at least 1. Got {self.r}.")

    @classmethod
    def of_dense(cls, delta: Float[Tensor, "d_out d_in"]) -> "LowRank":
        """A dense change as an exact factorisation of full rank: ΔW itself beside the smaller identity.

        It is no saving: it keeps d_out · d_in numbers and min(d_out, d_in)² more, and every analysis costs what the dense
        one does, O(d_out · d_in · min(d_out, d_in)). For methods whose change has no small rank (DoRA, IA³, full).

        >>> LowRank.of_dense(torch.ones(2, 3)).r
        2
        """
        d_out, d_in = delta.shape
        identity = torch.eye(min(d_out, d_in), dtype=delta.dtype, device=delta.device)
        return cls(identity, delta, 1.0) if d_out <= d_in else cls(delta, identity, 1.0)

    @property
    def shape(self) -> tuple[int, int]:
        """(d_out, d_in) of ΔW."""
        return self.lora_b.shape[0], self.lora_a.shape[1]

    @property
    def r(self) -> int:
        """The rank that was configured; what was learned may use less."""
        return self.lora_a.shape[0]

    @property
    def params(self) -> int:
        """The numbers that are kept: r · (d_out + d_in)."""
        return self.lora_b.numel() + self.lora_a.numel()

    @property
    def compression(self) -> float:
        """How many times fewer they are than the d_out · d_in of ΔW itself; below 1 where the factors take more.

        >>> LowRank(torch.zeros(1000, 4), torch.zeros(4, 1000), 1.0).compression
        125.0
        """
        return math.prod(self.shape) / self.params

    @property
    def _factors(self) -> tuple[Tensor, Tensor]:
        """Not kept: of all matrices of a large adapter they would take four times the room of its file in bf16."""
        return self.lora_b.detach().to("cpu", torch.float64), self.lora_a.detach().to("cpu", torch.float64)

    def dense(self) -> Float[Tensor, "d_out d_in"]:
        """ΔW itself: for tests and pictures of small matrices, never for analysis."""
        b, a = self._factors
        return self.scaling * (b @ a)

    def __matmul__(self, x: Float[Tensor, "d_in n"]) -> Float[Tensor, "d_out n"]:
        """ΔW @ x in O((d_out + d_in) r n)."""
        b, a = self._factors
        return self.scaling * (b @ (a @ x.to(a)))

    def __sub__(self, other: "LowRank") -> "LowRank":
        """ΔW − ΔW', of rank r + r', by stacking the factors; nothing is rounded where both have one scaling.

        Raises:
            AdapterError: the two have different shapes.
        """
        if self.shape != other.shape:
            raise AdapterError(f"Both ΔW of a difference need one shape. Got {self.shape} and {other.shape}.")
        one = self.scaling == other.scaling
        b1, b2 = (delta.lora_b if one else delta.scaling * delta.lora_b for delta in (self, other))
        lora_a = torch.cat([self.lora_a, other.lora_a])
        return LowRank(torch.cat([b1, -b2], dim=1), lora_a, self.scaling if one else 1.0)

    def inner(self, other: "LowRank") -> float:
        """⟨ΔW, ΔW'⟩ = tr(ΔWᵀ ΔW'), from r × r' products only.

        Raises:
            AdapterError: the two have different shapes.
        """
        if self.shape != other.shape:
            raise AdapterError(f"Both ΔW of an inner product need one shape. Got {self.shape} and {other.shape}.")
        (b1, a1), (b2, a2) = self._factors, other._factors
        return float(self.scaling * other.scaling * ((b1.mT @ b2) * (a1 @ a2.mT)).sum())

    def frobenius(self) -> float:
        """‖ΔW‖_F."""
        return float(max(self.inner(self), 0.0) ** 0.5)

    def svd(self, method: SvdMethod = "qr") -> tuple[Float[Tensor, "d_out k"], Float[Tensor, " k"], Float[Tensor, "k d_in"]]:
        """Thin SVD of ΔW, k = min(d_out, d_in, r), singular values largest first.

        `qr`: QR of both factors, SVD of the r × r core; accurate for every singular value. `gram`: eigenvectors of the
        r × r Gram matrices; fewer passes over the factors, but squaring loses values below about 1e-8 of the largest,
        so it serves live views. Where ΔW = 0 the vectors are arbitrary: ask `numerical_rank` first.

        Returns:
            u (d_out, k) with orthonormal columns, singular_values (k,), vh (k, d_in) with orthonormal rows; float64.
        """
        return self._svd_qr() if method == "qr" else self._svd_gram()

    def compact_svd(self) -> tuple[Float[Tensor, "d_out k"], Float[Tensor, " k"], Float[Tensor, "k d_in"]]:
        """`svd` without the directions that the rounding of the stored factors may have made: k = `numerical_rank`."""
        u, s, vh = self._svd_qr()
        k = self._rank_of(s)
        return u[:, :k], s[:k], vh[:k]

    def truncated(self, k: int) -> "LowRank":
        """The k strongest directions of ΔW: of all matrices of rank k the nearest to it, in either norm.

        Raises:
            SpecError: k is not in 1..min(d_out, d_in, r).

        Source: Eckart and Young 1936, "The approximation of one matrix by another of lower rank".

        >>> LowRank(torch.eye(2), torch.tensor([[3.0, 0.0], [0.0, 4.0]]), 1.0).truncated(1).dense().tolist()
        [[0.0, 0.0], [0.0, 4.0]]
        """
        u, s, vh = self._svd_qr()
        if not 1 <= k <= len(s):
            raise SpecError(out_of_range("k", "truncated", f"an int in 1..{len(s)}", k))
        return LowRank(u[:, :k] * s[:k], vh[:k], 1.0)

    def _svd_qr(self) -> tuple[Tensor, Tensor, Tensor]:
        b, a = self._factors
        q_b, r_b = torch.linalg.qr(b)
        q_a, r_a = torch.linalg.qr(a.mT)
        u, s, vh = torch.linalg.svd(self.scaling * (r_b @ r_a.mT), full_matrices=False)
        return q_b @ u, s, vh @ q_a.mT

    def _svd_gram(self) -> tuple[Tensor, Tensor, Tensor]:
        """ΔW = B̂ (Λ_b V_bᵀ V_a Λ_a) Âᵀ with B̂ = B V_b / Λ_b orthonormal where Λ_b > 0, and A likewise."""
        b, a = self._factors
        b_hat, core_b = _orthonormal_by_gram(b)
        a_hat, core_a = _orthonormal_by_gram(a.mT)
        u, s, vh = torch.linalg.svd(self.scaling * (core_b @ core_a.mT), full_matrices=False)
        k = min(*self.shape, self.r)
        return (b_hat @ u)[:, :k], s[:k], (vh @ a_hat.mT)[:k]

    @cached_property
    def singular_values(self) -> Float[Tensor, " k"]:
        """Singular values of ΔW, largest first, k = min(d_out, d_in, r)."""
        b, a = self._factors
        r_b, r_a = (torch.linalg.qr(x, mode="r")[1] for x in (b, a.mT))
        values: Tensor = torch.linalg.svdvals(self.scaling * (r_b @ r_a.mT))
        return values

    def spectral(self) -> float:
        """‖ΔW‖_2, the largest singular value."""
        return float(self.singular_values[0])

    @cached_property
    def numerical_rank(self) -> int:
        """How many singular values stand above the rounding of the stored factors; 0 where ΔW = 0.

        Directions past this rank are noise and enter no overlap.
        """
        return self._rank_of(self.singular_values)

    def _rank_of(self, s: Float[Tensor, " k"]) -> int:
        stored = self.lora_a.dtype if self.lora_a.dtype.is_floating_point else torch.float32
        # Rounding A and B moves ΔW by about sqrt(r) · eps · ‖ΔW‖, whatever d is; float64 itself moves it where the terms of
        # a difference cancel.
        b, a = self._factors
        computed = abs(self.scaling) * torch.finfo(torch.float64).eps * float(b.norm() * a.norm())
        tolerance = self.r**0.5 * (torch.finfo(stored).eps * float(s[0]) + computed)
        return int((s > tolerance).sum())


def stacked_singular_values(
    lora_b: Float[Tensor, "n d_out r"], lora_a: Float[Tensor, "n r d_in"], scaling: Float[Tensor, " n"]
) -> Float[Tensor, "n r"]:
    """Singular values of many ΔW of one shape at once, largest first, as `svd("gram")` has them; past min(d_out, d_in) zeros.

    With BᵀB = V Λ Vᵀ they are the roots of the eigenvalues of (V √Λ)ᵀ A Aᵀ (V √Λ): values below about 1e-8 of the largest
    are lost.
    """
    b, a = lora_b.double(), lora_a.double()
    values, vectors = torch.linalg.eigh(b.mT @ b)
    core = vectors * values.clamp_min(0).sqrt()[:, None, :]
    squares = torch.linalg.eigvalsh(core.mT @ (a @ a.mT) @ core).flip(1)
    found: Tensor = squares.clamp_min(0).sqrt() * scaling.double().abs()[:, None]
    return found


def _orthonormal_by_gram(x: Float[Tensor, "d r"]) -> tuple[Tensor, Tensor]:
    """x = q @ core from the eigenvectors of xᵀx; columns of q for vanishing directions are zero, not noise."""
    values, vectors = torch.linalg.eigh(x.mT @ x)
    lengths = values.clamp_min(0).sqrt()
    keep = lengths > lengths.max() * torch.finfo(x.dtype).eps ** 0.5
    inverse = torch.where(keep, 1 / lengths.where(keep, 1.0), 0.0)
    return x @ vectors * inverse, (vectors * lengths * keep).mT
