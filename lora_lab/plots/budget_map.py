"""What a rank on a choice of matrices costs, as a map with the line of equal budget."""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from lora_lab.plots.theme import PALETTE, PHI_SCALE, style

_LINES = ((PALETTE["B"], "solid"), (PALETTE["A"], "dash"))


def budget_map(
    values: Sequence[Sequence[int]],
    texts: Sequence[Sequence[str]],
    *,
    rows: Sequence[str],
    ranks: Sequence[int],
    lines: Mapping[str, int],
) -> go.Figure:
    """A cell for each choice of targets (rows) and rank (columns), coloured by its place among all costs.

    Args:
        values: what each cell costs, more than 0; the colour is its place among them.
        texts: the cost as people read it.
        rows: the choices of targets.
        ranks: the ranks.
        lines: budgets by name; a line runs right of the last cell of each row that costs no more.
    """
    fig = go.Figure(_cells(values, texts, rows, [f"r {r}" for r in ranks]))
    style(fig, height_px=64 + 34 * len(rows))
    fig.update_layout(margin={"l": 10, "r": 18, "t": 42, "b": 8})
    fig.update_xaxes(side="top", ticks="", linecolor="rgba(0,0,0,0)")
    fig.update_yaxes(autorange="reversed", showgrid=False, ticks="")
    for (name, most), (colour, dash) in zip(lines.items(), _LINES, strict=False):
        x, y = _staircase([[value <= most for value in row] for row in values], len(ranks))
        line = {"color": colour, "width": 2.5, "dash": dash}
        fig.add_scatter(x=x, y=y, mode="lines", line=line, name=name, hoverinfo="name", xaxis="x2", yaxis="y2")
    hidden = {"visible": False, "overlaying": "x", "range": [0, len(ranks)], "fixedrange": True}
    fig.update_layout(
        xaxis2=hidden,
        yaxis2={**hidden, "overlaying": "y", "range": [len(rows), 0]},
        showlegend=True,
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1.02 + 26 / (34 * len(rows)), "yanchor": "bottom"},
    )
    return fig


def _cells(
    values: Sequence[Sequence[int]], texts: Sequence[Sequence[str]], rows: Sequence[str], columns: Sequence[str]
) -> go.Heatmap:
    """A cell's shade is its place among all costs: costs of many sizes stay apart."""
    order = sorted({value for row in values for value in row})
    return go.Heatmap(
        z=[[order.index(value) / max(len(order) - 1, 1) for value in row] for row in values],
        x=list(columns),
        y=list(rows),
        text=[list(row) for row in texts],
        customdata=[list(row) for row in values],
        texttemplate="%{text}",
        textfont={"size": 11},
        hovertemplate="%{y}, %{x}<br>%{customdata:,}<extra></extra>",
        colorscale=PHI_SCALE,
        showscale=False,
        xgap=2,
        ygap=2,
    )


def _staircase(within: Sequence[Sequence[bool]], columns: int) -> tuple[list[int], list[int]]:
    """The border after the last cell of each row that is within, as one line down the map."""
    x: list[int] = []
    y: list[int] = []
    for i, row in enumerate(within):
        edge = next((j for j, inside in enumerate(row) if not inside), columns)
        x += [edge, edge]
        y += [i, i + 1]
    return x, y
