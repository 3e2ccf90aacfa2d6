"""The numbers of a figure as rows, for a table under it or a file."""

from collections.abc import Iterator
from typing import Any

import plotly.graph_objects as go

Row = dict[str, Any]


def figure_rows(fig: go.Figure) -> list[Row]:
    """A row a point that is drawn: its trace where there are several, and its coordinates by the titles of the axes.

    >>> fig = go.Figure(go.Scatter(x=[1, 2], y=[0.5, None])).update_xaxes(title_text="i").update_yaxes(title_text="σ")
    >>> figure_rows(fig)
    [{'i': 1, 'σ': 0.5}]
    """
    traces = [trace for trace in fig.data if trace.showlegend is not False or trace.type == "heatmap"]
    return [
        {**({"of": trace.name} if len(traces) > 1 else {}), **row}
        for trace in traces
        for row in (_cells(fig, trace) if trace.type == "heatmap" else _points(fig, trace))
    ]


def _points(fig: go.Figure, trace: Any) -> Iterator[Row]:
    x, y = (_title(fig, trace, axis) for axis in "xy")
    named = list(zip(*trace.x, strict=True)) if isinstance(trace.x[0], list | tuple) else list(trace.x)
    for place, value in zip(named, trace.y, strict=True):
        if value is not None:
            yield {x: " · ".join(place) if isinstance(place, tuple) else place, y: value}


def _cells(fig: go.Figure, trace: Any) -> Iterator[Row]:
    x, y = (_title(fig, trace, axis) for axis in "xy")
    value = trace.colorbar.title.text or "value"
    for row, cells in zip(trace.y, trace.z, strict=True):
        for column, cell in zip(trace.x, cells, strict=True):
            if cell is not None:
                yield {y: row, x: column, value: cell}


def _title(fig: go.Figure, trace: Any, axis: str) -> str:
    """Of the trace's own axis; of the first one where several share a title."""
    own = getattr(trace, f"{axis}axis") or axis
    first = getattr(fig.layout, f"{axis}axis").title.text
    return getattr(fig.layout, f"{axis}axis{own[1:]}").title.text or first or axis
