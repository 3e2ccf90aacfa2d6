"""A run cut to its strongest directions after training, beside runs that were trained at that rank."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import plotly.graph_objects as go

from lora_lab.metrics import Metric
from lora_lab.plots.metric_axes import hover_text, score_axis
from lora_lab.plots.scores import ScoredCell
from lora_lab.plots.theme import PALETTE, figure, nothing_yet, rank_colour

if TYPE_CHECKING:
    from lora_lab.inference import TruncatedScore  # its package loads torch, which a plot does not need


def truncation_curve(
    cut: "Mapping[str, Sequence[TruncatedScore]]", metric: Metric, *, trained: Iterable[ScoredCell] = ()
) -> go.Figure:
    """The test score by directions kept on a logarithmic axis, a line a run; the runs trained at a rank as points on it.

    Args:
        cut: by the run's label.
        metric: what they are scored by.
        trained: mean ± sd over seeds of the runs of each rank.
    """
    fig = figure(x="rank: directions kept of every ΔW, or trained", y=f"{metric.label} (test split)", height_px=340)
    hover = hover_text(metric)
    lines = {label: [one for one in points if one.score is not None] for label, points in cut.items()}
    if not any(lines.values()):
        return nothing_yet(fig, "No run was cut.")
    for label, points in lines.items():
        fig.add_scatter(
            x=[one.kept for one in points],
            y=[one.score for one in points],
            name=f"{label}, cut after training",
            mode="lines+markers",
            line={"color": PALETTE["ΔW"], "width": 1.8},
            hovertemplate=f"{label} cut to %{{x}}: {hover}<extra></extra>",
        )
    cells = sorted((cell for cell in trained if cell.mean is not None), key=lambda cell: cell.r)
    if cells:
        fig.add_scatter(
            x=[cell.r for cell in cells],
            y=[cell.mean for cell in cells],
            error_y={"type": "data", "array": [cell.sd for cell in cells], "color": PALETTE["W0"], "thickness": 1.2, "width": 4},
            name="trained at that rank",
            mode="markers",
            marker={"size": 10, "symbol": "square", "color": [rank_colour(cell.r) for cell in cells]},
            hovertemplate=f"trained at r %{{x}}: {hover}<extra></extra>",
        )
    ranks = sorted({one.kept for points in lines.values() for one in points} | {cell.r for cell in cells})
    fig.update_xaxes(type="log", tickmode="array", tickvals=ranks, ticktext=[str(r) for r in ranks])
    return score_axis(fig, metric)
