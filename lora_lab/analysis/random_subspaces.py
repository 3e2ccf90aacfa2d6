"""Subspaces that have nothing to do with anything: what a measure gives where there is nothing to find."""

import torch
from jaxtyping import Float
from torch import Tensor

from lora_lab.random_key import key_of


def random_generator(*key: object) -> torch.Generator:
    """A random stream of its own for this key; the global one stays where it was."""
    return torch.Generator().manual_seed(key_of(*key))


def random_subspace(dimension: int, k: int, *key: object) -> Float[Tensor, "dimension k"]:
    """An orthonormal basis, as columns, of a uniformly random subspace of R^dimension; the same for the same key.

    The span of Gaussian columns is uniform: their law does not change under rotation.
    """
    generator = random_generator("random_subspace", dimension, k, *key)
    basis: Tensor = torch.linalg.qr(torch.randn(dimension, k, generator=generator, dtype=torch.float64))[0]
    return basis
