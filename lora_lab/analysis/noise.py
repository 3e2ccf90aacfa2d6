"""What random-matrix theory expects of a ΔW in which nothing was learned."""

import math

import numpy as np

from lora_lab.analysis.records import NoiseEdges, Spectrum


def marchenko_pastur_edges(entry_sd: float, d_out: int, d_in: int) -> tuple[float, float]:
    """The least and the largest singular value of a (d_out, d_in) matrix of independent entries: sd · |√d_out ∓ √d_in|.

    The limit for large sizes of one ratio, whatever the entries' distribution with that standard deviation; a finite one
    strays from it by about d^(−2/3) of its size.

    Source: Marchenko and Pastur 1967; that the largest goes there, Geman 1980.

    >>> marchenko_pastur_edges(0.5, 16, 4)
    (1.0, 3.0)
    """
    return entry_sd * abs(math.sqrt(d_out) - math.sqrt(d_in)), entry_sd * (math.sqrt(d_out) + math.sqrt(d_in))


def product_edges(entry_sd: float, d_out: int, r: int, d_in: int) -> tuple[float, float]:
    """The least singular value other than 0 and the largest of B A, B (d_out, r) and A (r, d_in) of independent entries.

    Their squares are sd² · x(z) at the stationary points z of x(z) = (z + d_out)(z + r)(z + d_in) / z next to 0: free
    multiplicative convolution of two Marchenko–Pastur laws, x being the inverse of its moment function. A limit for large
    sizes, of which r = 1 has none: there it is about how far the one singular value strays.

    Args:
        entry_sd: the product of the standard deviations of the entries of B and of A.
        d_out: rows of B.
        r: what the two share.
        d_in: columns of A.

    Source: Burda et al. 2010, "Eigenvalues and singular values of products of rectangular Gaussian random matrices",
    for the equation.

    >>> [round(x / 4, 4) for x in product_edges(1.0, 4, 4, 4)]  # square: the Fuss-Catalan edge, √(27 / 4)
    [0.0, 2.5981]
    """
    sizes = (d_out, r, d_in)
    _, low, high = sorted(np.roots([2, sum(sizes), 0, -math.prod(sizes)]).real.tolist())
    lower, upper = (math.prod(z + n for n in sizes) / z for z in (low, high))
    return entry_sd * math.sqrt(max(lower, 0.0)), entry_sd * math.sqrt(upper)


def noise_edges(frobenius: float, *, d_out: int, d_in: int, r: int) -> NoiseEdges | None:
    """The edges of random matrices whose norm is expected to be ‖ΔW‖_F; None for ΔW = 0.

    The dense one spreads it over d_out · d_in independent entries. A ΔW of low rank has to be above that edge, trained or
    not; the product B A of two random factors of rank r is what stands beside it: what lies above its upper edge, or below
    its lower one, is no accident of the factors' draw.

    Args:
        frobenius: ‖ΔW‖_F.
        d_out: rows of ΔW.
        d_in: its columns.
        r: the rank that was configured.

    Source: as of `marchenko_pastur_edges` and `product_edges`.
    """
    if frobenius == 0:
        return None
    entry_sd = frobenius / math.sqrt(d_out * d_in)
    dense = marchenko_pastur_edges(entry_sd, d_out, d_in)
    # E‖BA‖_F² = sd² · r · d_out · d_in
    return NoiseEdges(entry_sd, *dense, *product_edges(entry_sd / math.sqrt(r), d_out, r, d_in))


def noise_of(one: Spectrum) -> NoiseEdges | None:
    """The edges of random matrices of the shape, the rank and the norm of one ΔW; None where it has no direction."""
    d_out, d_in = one.shape
    return noise_edges(one.frobenius, d_out=d_out, d_in=d_in, r=one.r) if one.numerical_rank else None
