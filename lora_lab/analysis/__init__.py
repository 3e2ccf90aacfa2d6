"""Factors in, numbers out: what a ΔW is made of, and how two of them relate. No files, no models, no pictures."""

from lora_lab.analysis.spectra import (
    Spectrum,
    effective_rank,
    energy_curve,
    rank_for_energy,
    spectrum,
    stable_rank,
)
from lora_lab.analysis.subspaces import (
    Overlap,
    chance_level,
    directions,
    overlap,
    overlap_of,
    principal_angles,
    subspace_similarity,
)

__all__ = [
    "Overlap",
    "Spectrum",
    "chance_level",
    "directions",
    "effective_rank",
    "energy_curve",
    "overlap",
    "overlap_of",
    "principal_angles",
    "rank_for_energy",
    "spectrum",
    "stable_rank",
    "subspace_similarity",
]
