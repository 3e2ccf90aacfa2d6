"""Records -> plotly Figures, returned and never shown; the sentences that stand under them. No torch, no files."""

from lora_lab.plots.captions import (
    learning_caption,
    merge_caption,
    merge_way,
    overlap_caption,
    rule_caption,
    small_share,
    spectrum_caption,
)
from lora_lab.plots.gradients import GradientLine, chain_rule_caption, gradient_caption, gradient_flow
from lora_lab.plots.labels import labels_of, method_label, r_meaning, row_label
from lora_lab.plots.latency import (
    latency_caption,
    latency_ratios,
    logits_caption,
    on_a_gpu,
    refusals,
    switching_caption,
    variant_label,
)
from lora_lab.plots.lengths import labels_sentence, lengths, lengths_caption, rows_sentence, shortened
from lora_lab.plots.lines import CurveLine, SpectrumLine, curve_lines, spectrum_lines
from lora_lab.plots.overlaps import overlap
from lora_lab.plots.reach import reach_caption, reach_curve
from lora_lab.plots.spectra import energy, spectrum
from lora_lab.plots.theme import PALETTE, rank_colour, run_colour
from lora_lab.plots.training import loss_curves, score_curves

__all__ = [
    "PALETTE",
    "CurveLine",
    "GradientLine",
    "SpectrumLine",
    "chain_rule_caption",
    "curve_lines",
    "energy",
    "gradient_caption",
    "gradient_flow",
    "labels_of",
    "labels_sentence",
    "latency_caption",
    "latency_ratios",
    "learning_caption",
    "lengths",
    "lengths_caption",
    "logits_caption",
    "loss_curves",
    "merge_caption",
    "merge_way",
    "method_label",
    "on_a_gpu",
    "overlap",
    "overlap_caption",
    "r_meaning",
    "rank_colour",
    "reach_caption",
    "reach_curve",
    "refusals",
    "row_label",
    "rows_sentence",
    "rule_caption",
    "run_colour",
    "score_curves",
    "shortened",
    "small_share",
    "spectrum",
    "spectrum_caption",
    "spectrum_lines",
    "switching_caption",
    "variant_label",
]
