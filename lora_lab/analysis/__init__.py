"""Factors in, numbers out: what a ΔW is made of, and how two of them relate. No files, no models, no pictures.

The records are plain; the functions, which compute with torch, load when they are first used.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "Overlap": "records",
    "Spectrum": "records",
    "chance_level": "chance",
    "chance_sd": "chance",
    "directions": "subspaces",
    "effective_rank": "spectra",
    "energy_curve": "spectra",
    "overlap": "subspaces",
    "overlap_of": "subspaces",
    "principal_angles": "subspaces",
    "rank_for_energy": "spectra",
    "spectrum": "spectra",
    "stable_rank": "spectra",
    "subspace_similarity": "subspaces",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"lora_lab.analysis.{_HOME[name]}"), name)
    raise AttributeError(f"module 'lora_lab.analysis' has no attribute {name!r}")
