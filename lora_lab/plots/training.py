"""Curves of a sweep under way."""

from collections.abc import Iterable
from typing import Any

import plotly.graph_objects as go

from lora_lab.metrics import METRICS
from lora_lab.plots.lines import CurveLine
from lora_lab.plots.metric_axes import hover_text, score_axis
from lora_lab.plots.theme import PALETTE, figure, legend_entries, make_room, nothing_yet, run_colour, seed_dash

_POINTS = 150  # a curve of more is drawn through every n-th


def loss_curves(lines: Iterable[CurveLine]) -> go.Figure:
    """Training loss of each run; a run of many steps is drawn through about 150 of them."""
    fig = figure(x="optimizer step", y="training loss (nats)")
    lines = [line for line in lines if line.steps]
    entries = legend_entries(lines)
    make_room(fig, entries)
    for line, entry in zip(lines, entries, strict=True):
        steps = (*line.steps[: -1 : max(1, len(line.steps) // _POINTS)], *line.steps[-1:])
        _curve(fig, line, entry, [e.step for e in steps], [e.loss for e in steps], "step %{x}: %{y:.3f} nats")
    return fig if fig.data else nothing_yet(fig, "The curves begin with the first step.")


def score_curves(lines: Iterable[CurveLine]) -> go.Figure:
    """Score of each run on the validation split; at step 0 every run is the frozen base, drawn as a line across."""
    lines = [line for line in lines if line.scores]
    metric = lines[0].metric if lines else METRICS["accuracy"]
    fig = figure(x="optimizer step", y=f"{metric.label} (validation split)")
    hover = hover_text(metric)
    for line, entry in zip(lines, legend_entries(lines), strict=True):
        steps, scores = [step for step, _ in line.scores], [score for _, score in line.scores]
        _curve(fig, line, entry, steps, scores, f"step %{{x}}: {hover}", markers=True)
    if not lines:
        return nothing_yet(fig, "The score comes before the first step and a few times a run.")
    style = {"line": {"color": PALETTE["W0"], "dash": "dash", "width": 1}, "annotation_font_size": 11}
    for i, base in enumerate(sorted({line.scores[0][1] for line in lines})):  # a quantized base has a score of its own
        position = "top right" if i else "bottom right"
        fig.add_hline(base, annotation_text=f"frozen base {metric.text(base)}", annotation_position=position, **style)
    fig.update_layout(showlegend=False)  # the loss curves beside it carry the same one
    return score_axis(fig, metric)


def _curve(
    fig: go.Figure,
    line: CurveLine,
    entry: dict[str, Any],
    x: list[int],
    y: list[float],
    hover: str,
    *,
    markers: bool = False,
) -> None:
    fig.add_scatter(
        x=x,
        y=y,
        **entry,
        mode="lines+markers" if markers else "lines",
        line={"color": run_colour(line.method, line.r), "dash": seed_dash(line.seed), "width": 1.8},
        hovertemplate=f"{line.label}<br>{hover}<extra></extra>",
    )
