"""How far apart are two subspaces? Distances from their principal angles."""

from jaxtyping import Float
from torch import Tensor

from lora_lab.analysis.random_subspaces import random_subspace
from lora_lab.analysis.records import Closeness
from lora_lab.analysis.subspaces import principal_angles


def projection_distance(u: Float[Tensor, "d i"], v: Float[Tensor, "d j"]) -> float:
    """√(p − Σσ²) with σ the cosines of the p = min(i, j) principal angles: the root of Σ sin²; columns orthonormal.

    The paper's Projection Metric: φ = 1 − distance² / p. From 0, where the smaller span lies in the larger, to √p.

    Source: Hu et al. 2021, appendix G; Hamm and Lee 2008, "Grassmann discriminant analysis".
    """
    return float(principal_angles(u, v).sin().norm())


def grassmann_distance(u: Float[Tensor, "d i"], v: Float[Tensor, "d j"]) -> float:
    """√(Σθ²) over the min(i, j) principal angles, in radians: the length of the shortest path between them on the Grassmannian.

    Of two dimensions it is the distance of the smaller span to the nearest subspace of the larger: 0 where it lies in it.
    Columns orthonormal.

    Source: Edelman, Arias and Smith 1998, section 4.3; for two dimensions Ye and Lim 2016, "Schubert varieties and
    distances between subspaces of different dimensions".
    """
    return float(principal_angles(u, v).norm())


def closeness(u: Float[Tensor, "d i"], v: Float[Tensor, "d j"]) -> Closeness | None:
    """Both distances of two subspaces, beside chance; None where one of them has no direction."""
    (d, i), j = u.shape, v.shape[1]
    if i == 0 or j == 0:
        return None
    angles = principal_angles(u, v)
    chance = max(min(i, j) - i * j / d, 0.0) ** 0.5  # E Σσ² = ij / d
    return Closeness(i, j, d, float(angles.sin().norm()), float(angles.norm()), chance, tuple(angles.tolist()))


def control_closeness(i: int, j: int, dimension: int, *key: object) -> Closeness | None:
    """`closeness` of two random subspaces of these dimensions, the same for the same key: what there is by chance."""
    return closeness(random_subspace(dimension, i, *key, "first"), random_subspace(dimension, j, *key, "second"))
