"""What φ is for subspaces that have nothing to do with each other."""


def chance_level(i: int, j: int, dimension: int) -> float:
    """E φ for two independent uniform subspaces of dimensions i and j in R^d: max(i, j) / d.

    E‖uᵀv‖²_F = ij/d by symmetry, over min(i, j).

    >>> chance_level(8, 64, 512)
    0.125
    """
    return max(i, j) / dimension


def chance_sd(i: int, j: int, dimension: int) -> float:
    """The standard deviation of φ for two independent uniform subspaces; d at least 2.

    Var‖uᵀv‖²_F = 2ij(d - i)(d - j) / (d²(d - 1)(d + 2)): the variance of tr(PQ) for a fixed and a Haar-random projection.

    >>> chance_sd(64, 3, 64)
    0.0
    """
    d = dimension
    variance = 2 * i * j * (d - i) * (d - j) / (d**2 * (d - 1) * (d + 2))
    return float(variance**0.5 / min(i, j))
