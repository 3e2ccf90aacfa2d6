"""Scores over seeds: by rank, as Table 6 of the paper has them, and by choice of matrices, as Table 5 does."""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

import plotly.graph_objects as go

from lora_lab.metrics import Metric
from lora_lab.plots.metric_axes import hover_text, score_axis
from lora_lab.plots.theme import PALETTE, figure, nothing_yet, rank_colour, seed_dash

_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star")
_NOTHING = "Scores come when a run has ended."


@runtime_checkable
class ScoredCell(Protocol):
    """A choice of targets at a rank with a score a seed; None where one is missing."""

    @property
    def targets(self) -> str: ...
    @property
    def r(self) -> int: ...
    @property
    def scores(self) -> Sequence[float | None]: ...
    @property
    def mean(self) -> float | None: ...
    @property
    def sd(self) -> float | None: ...


def scores_by_rank(cells: Iterable[ScoredCell], metric: Metric, *, base: float | None = None) -> go.Figure:
    """Mean ± sd over seeds against r on a logarithmic axis, a line a choice of targets; every seed is a faint point.

    Args:
        cells: of one metric.
        metric: what they are scored by.
        base: what the frozen base scores, drawn as a line across.

    Source: Hu et al. 2021, table 6.
    """
    cells = [cell for cell in cells if cell.mean is not None]
    fig = figure(x="rank r", y=f"{metric.label} (test split)", height_px=340)
    if not cells:
        return nothing_yet(fig, _NOTHING)
    for i, targets in enumerate(dict.fromkeys(cell.targets for cell in cells)):
        line = sorted((cell for cell in cells if cell.targets == targets), key=lambda cell: cell.r)
        style = {"symbol": _SYMBOLS[i % len(_SYMBOLS)], "dash": seed_dash(i)}
        _points(fig, line, [cell.r for cell in line], metric, name=targets.replace(",", ", "), **style)
    ranks = sorted({cell.r for cell in cells})
    fig.update_xaxes(type="log", tickmode="array", tickvals=ranks, ticktext=[str(r) for r in ranks])
    return _finished(fig, metric, base)


def scores_by_targets(cells: Iterable[ScoredCell], metric: Metric, *, base: float | None = None) -> go.Figure:
    """Mean ± sd over seeds of each choice of targets, with the rank that it has; every seed is a faint point.

    Source: Hu et al. 2021, table 5.
    """
    cells = [cell for cell in cells if cell.mean is not None]
    fig = figure(x="matrices adapted, and their rank", y=f"{metric.label} (test split)", height_px=340)
    if not cells:
        return nothing_yet(fig, _NOTHING)
    _points(fig, cells, [f"{cell.targets.replace(',', ' ')} · r {cell.r}" for cell in cells], metric, name="mean ± sd", dash=None)
    return _finished(fig, metric, base).update_layout(showlegend=False)


def _points(
    fig: go.Figure,
    cells: Sequence[ScoredCell],
    x: Sequence[Any],
    metric: Metric,
    *,
    name: str,
    dash: str | None,
    symbol: str = "circle",
) -> None:
    """The means with their spread, and behind them every seed."""
    colours = [rank_colour(cell.r) for cell in cells]
    seeds = [(place, score, colour) for cell, place, colour in zip(cells, x, colours, strict=True) for score in cell.scores]
    fig.add_scatter(
        x=[place for place, _, _ in seeds],
        y=[score for _, score, _ in seeds],
        mode="markers",
        marker={"size": 5, "color": [colour for _, _, colour in seeds]},
        opacity=0.45,
        legendgroup=name,
        showlegend=False,
        hovertemplate=f"{name}, %{{x}}: one seed has {hover_text(metric)}<extra></extra>",
    )
    fig.add_scatter(
        x=list(x),
        y=[cell.mean for cell in cells],
        error_y={"type": "data", "array": [cell.sd for cell in cells], "color": PALETTE["W0"], "thickness": 1.2, "width": 4},
        name=name,
        legendgroup=name,
        mode="markers" if dash is None else "lines+markers",
        marker={"size": 10, "symbol": symbol, "color": colours},
        line={"color": PALETTE["W0"], "dash": dash, "width": 1.4},
        hovertemplate=f"{name}, %{{x}}: {hover_text(metric)}<extra></extra>",
    )


def _finished(fig: go.Figure, metric: Metric, base: float | None) -> go.Figure:
    if base is not None:
        line = {"color": PALETTE["W0"], "dash": "dash", "width": 1}
        fig.add_hline(base, line=line, annotation_text=f"frozen base {metric.text(base)}", annotation_font_size=11)
    return score_axis(fig, metric)
