"""Records -> plotly Figures, returned and never shown; the sentences that stand under them. No torch, no files."""

from lora_lab.plots.base_gradients import (
    base_gradient_caption,
    base_gradient_map,
    base_gradient_spectra,
    learned_beside_caption,
    tried_advice_caption,
)
from lora_lab.plots.captions import (
    learning_caption,
    merge_caption,
    merge_way,
    overlap_caption,
    rule_caption,
    small_share,
    spectrum_caption,
)
from lora_lab.plots.drifts import drift_caption, drift_curves
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
from lora_lab.plots.leader_captions import ranking_caption
from lora_lab.plots.lengths import labels_sentence, lengths, lengths_caption, rows_sentence, shortened
from lora_lab.plots.lines import CurveLine, SpectrumLine, curve_lines, spectrum_lines
from lora_lab.plots.merged_matrices import merged_caption, merged_matrix
from lora_lab.plots.method_captions import methods_caption, refused_note
from lora_lab.plots.method_table import method_rows
from lora_lab.plots.methods import pareto
from lora_lab.plots.overlaps import overlap
from lora_lab.plots.pictures import pictures
from lora_lab.plots.rates import rate_caption, rate_labels, score_by_rate
from lora_lab.plots.reach import reach_caption, reach_curve
from lora_lab.plots.scores import ScoredCell, scores_by_rank, scores_by_targets
from lora_lab.plots.spectra import energy, spectrum
from lora_lab.plots.theme import PALETTE, rank_colour, run_colour
from lora_lab.plots.training import loss_curves, score_curves
from lora_lab.plots.truncation import truncation_curve

__all__ = [
    "PALETTE",
    "CurveLine",
    "GradientLine",
    "ScoredCell",
    "SpectrumLine",
    "base_gradient_caption",
    "base_gradient_map",
    "base_gradient_spectra",
    "chain_rule_caption",
    "curve_lines",
    "drift_caption",
    "drift_curves",
    "energy",
    "gradient_caption",
    "gradient_flow",
    "labels_of",
    "labels_sentence",
    "latency_caption",
    "latency_ratios",
    "learned_beside_caption",
    "learning_caption",
    "lengths",
    "lengths_caption",
    "logits_caption",
    "loss_curves",
    "merge_caption",
    "merge_way",
    "merged_caption",
    "merged_matrix",
    "method_label",
    "method_rows",
    "methods_caption",
    "on_a_gpu",
    "overlap",
    "overlap_caption",
    "pareto",
    "pictures",
    "r_meaning",
    "rank_colour",
    "ranking_caption",
    "rate_caption",
    "rate_labels",
    "reach_caption",
    "reach_curve",
    "refusals",
    "refused_note",
    "row_label",
    "rows_sentence",
    "rule_caption",
    "run_colour",
    "score_by_rate",
    "score_curves",
    "scores_by_rank",
    "scores_by_targets",
    "shortened",
    "small_share",
    "spectrum",
    "spectrum_caption",
    "spectrum_lines",
    "switching_caption",
    "tried_advice_caption",
    "truncation_curve",
    "variant_label",
]
