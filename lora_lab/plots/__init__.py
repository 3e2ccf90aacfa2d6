"""Records -> plotly Figures, returned and never shown; the sentences that stand under them. No torch, no files."""

from lora_lab.plots.captions import learning_caption, overlap_caption, spectrum_caption
from lora_lab.plots.overlaps import overlap
from lora_lab.plots.spectra import SpectrumLine, energy, spectrum
from lora_lab.plots.theme import PALETTE, rank_colour
from lora_lab.plots.training import CurveLine, accuracy_curves, loss_curves

__all__ = [
    "PALETTE",
    "CurveLine",
    "SpectrumLine",
    "accuracy_curves",
    "energy",
    "learning_caption",
    "loss_curves",
    "overlap",
    "overlap_caption",
    "rank_colour",
    "spectrum",
    "spectrum_caption",
]
