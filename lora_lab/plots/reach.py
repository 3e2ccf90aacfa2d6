"""How far LoRA reaches, rank by rank, until nothing of a full-rank change is left."""

import math

import plotly.graph_objects as go

from lora_lab.analysis.records import Reach, ReachPoint
from lora_lab.plots.theme import PALETTE, TEXT, figure, nothing_yet, rank_colour

_NOTHING = 1e-5  # of what the change does: what is left below it is the optimizer's rounding


def reach_curve(record: Reach) -> go.Figure:
    """What is left of a known change by rank, both on log scales: trained s·B·A as points, the best matrix of that rank as a line.

    Where the best leaves nothing, a log scale has no place for it and the line ends.
    """
    fig = figure(x="rank r", y="‖(s·B·A − Δ*) X‖ / ‖Δ* X‖")
    if not record.points:
        return nothing_yet(fig, "No rank was fitted.")
    ranks = [point.r for point in record.points]
    fig.add_scatter(
        x=ranks,
        y=[point.best_error or None for point in record.points],
        name="best of rank r (Eckart–Young)",
        mode="lines",
        line={"color": PALETTE["W0"], "width": 1.8},
        hovertemplate="r %{x}: the best of that rank leaves %{y:.3g}<extra></extra>",
    )
    fig.add_scatter(
        x=ranks,
        y=[point.error or None for point in record.points],
        name="s·B·A as trained",
        mode="markers",
        marker={"size": 9, "color": [rank_colour(r) for r in ranks]},
        customdata=[_hover(point) for point in record.points],
        hovertemplate="%{customdata}<extra></extra>",
    )
    _mark_full(fig, record.max_r)
    fig.update_yaxes(type="log", exponentformat="power")
    return fig.update_xaxes(type="log", tickmode="array", tickvals=ranks, ticktext=[str(r) for r in ranks])


def _hover(point: ReachPoint) -> str:
    lines = (
        f"r {point.r}: {point.params:,} parameters",
        f"left of what Δ* does to the matrix's outputs: {point.error:.3g} (best {point.best_error:.3g})",
        f"to the held-out logits: {point.logits_error:.3g}",
    )
    return "<br>".join(lines)


def _mark_full(fig: go.Figure, max_r: int) -> None:
    fig.add_vline(max_r, line={"color": PALETTE["W0"], "dash": "dot", "width": 1})
    fig.add_annotation(
        x=math.log10(max_r),  # plotly takes an annotation's place on a log axis as its logarithm, a line's as it is
        y=1,
        yref="paper",
        text=f"r = min(d_out, d_in) = {max_r}",
        showarrow=False,
        xanchor="right",
        yanchor="top",
        font={"color": TEXT, "size": 11},
    )


def reach_caption(record: Reach) -> str:
    """What is left of the change at the middle rank, and at r = min(d_out, d_in)."""
    below = [point for point in record.points if point.r < record.max_r]
    parts = []
    if below:
        point = below[len(below) // 2]
        leaves, best = _share(point.error), _share(point.best_error)
        parts.append(f"at r = {point.r} LoRA leaves {leaves} of what Δ* does to the outputs, the best matrix of that rank {best}")
    if record.full is not None:
        parts.append(_at_full(record, record.full))
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _at_full(record: Reach, full: ReachPoint) -> str:
    (d_out, d_in), size = record.shape, record.matrix_params
    left = f"nothing is left ({_share(full.error)})" if full.error < _NOTHING else f"{_share(full.error)} is left"
    trains = f"r(d_in + d_out) = {full.params:,} parameters where the matrix has d_in · d_out = {size:,}"
    return f"at r = min({d_out}, {d_in}) = {full.r} {left}, and LoRA trains {trains}"


def _share(error: float) -> str:
    return "0" if error == 0 else f"{100 * error:.3g} %" if error >= 1e-3 else f"{error:.1e}"
