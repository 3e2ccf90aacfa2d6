"""Score against learning rate: which rate each choice of everything else is best at."""

from collections.abc import Sequence
from dataclasses import replace

import plotly.graph_objects as go

from lora_lab.analysis.rate_curves import RateCurve
from lora_lab.plots.labels import configuration_labels
from lora_lab.plots.methods import log_ticks
from lora_lab.plots.metric_axes import hover_text, tick_format
from lora_lab.plots.theme import figure, nothing_yet, run_colour, seed_dash
from lora_lab.specs import unique

_UNNAMED = "all runs"


def score_by_rate(curves: Sequence[RateCurve]) -> go.Figure:
    """The mean on the validation split at every rate, bars the sd over seeds; a line a choice, its best rate a filled point.

    A dash a method, as the hues of LoRA's kin lie close together, and a shade a rank. A rate at which a seed diverged is a gap.
    """
    curves = [curve for curve in curves if curve.best_rate is not None]
    fig = figure(x="learning rate", y="score (validation split)", height_px=380)
    if not curves:
        return nothing_yet(fig, "The first rate that was tried is the first point.")
    metric = curves[0].metric
    fig.update_yaxes(title_text=f"{metric.label} (validation split)", tickformat=tick_format(metric))
    fig.update_xaxes(**log_ticks([rate for curve in curves for rate in curve.rates], lambda rate: f"{rate:g}"))
    methods = unique(curve.spec.tuning.method for curve in curves)
    for curve, label in zip(curves, rate_labels(curves), strict=True):
        colour = run_colour(curve.spec.tuning.method, curve.spec.tuning.r)
        best = [rate == curve.best_rate for rate in curve.rates]
        fig.add_scatter(
            x=curve.rates,
            y=curve.means,
            error_y={"type": "data", "array": curve.sds, "thickness": 1, "width": 3, "visible": any(curve.sds)},
            name=label,
            mode="lines+markers",
            line={"color": colour, "dash": seed_dash(methods.index(curve.spec.tuning.method)), "width": 1.8},
            marker={"size": [11 if b else 7 for b in best], "symbol": ["circle" if b else "circle-open" for b in best]},
            hovertemplate=f"{label}, rate %{{x:g}}: {hover_text(metric)}<extra></extra>",
        )
    return fig


def rate_labels(curves: Sequence[RateCurve]) -> list[str]:
    """What tells each curve from the others, its method and rank first."""
    labels = configuration_labels([replace(curve.spec, learning_rate=1.0) for curve in curves])
    return [label or _UNNAMED for label in labels]


def rate_caption(curves: Sequence[RateCurve]) -> str:
    """The best rate of each choice and its score there; who leads at the lowest rate that all tried, and at the highest."""
    known = [
        (label, curve)
        for label, curve in zip(rate_labels(curves), curves, strict=True)
        if curve.best_rate is not None and curve.best_mean is not None
    ]
    if not known:
        return ""
    own = [f"{label} {curve.metric.text(curve.best_mean or 0.0)} at {curve.best_rate:g}" for label, curve in known]
    said = f"At its own best rate: {', '.join(own)}."
    shared = [rate for rate in known[0][1].rates if all(curve.at(rate) is not None for _, curve in known)]
    if len(known) < 2 or len(shared) < 2:
        return said
    low, high = (max(known, key=lambda one: one[1].metric.sign * (one[1].at(rate) or 0.0))[0] for rate in (shared[0], shared[-1]))
    if low == high:
        return f"{said} {low} leads at {shared[0]:g} and at {shared[-1]:g}."
    return f"{said} At {shared[0]:g} {low} would have won, at {shared[-1]:g} {high}."
