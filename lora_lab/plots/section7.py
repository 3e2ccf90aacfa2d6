"""The figures of the paper's section 7, for every layer and matrix."""

from collections.abc import Callable, Mapping, Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lora_lab.analysis.records import Overlap
from lora_lab.plots.matrix_layout import matrix_layout
from lora_lab.plots.theme import GRID, PALETTE, PHI_SCALE, TEXT, figure, nothing_yet, style
from lora_lab.roles import label_of

_MOST = 128  # cells a side of one map
_PANEL_PX = 290


def phi_panels(panels: Sequence[tuple[str, Overlap]]) -> go.Figure:
    """φ(i, j) of one matrix in several pairs of runs beside each other, on one scale, the chance level in the hover.

    Source: Hu et al. 2021, figures 3 and 4.
    """
    drawn = [(title, one) for title, one in panels if one.phi is not None]
    if not drawn:
        return nothing_yet(figure(x="j", y="i"), "Neither has a direction: ΔW is zero.")
    fig = make_subplots(rows=1, cols=len(drawn), horizontal_spacing=0.07, subplot_titles=[title for title, _ in drawn])
    style(fig, height_px=_PANEL_PX)
    for column, (_, one) in enumerate(drawn, 1):
        fig.add_trace(_map(one, _MOST, shows_scale=column == len(drawn)), row=1, col=column)
    fig.update_annotations(font_size=12)
    fig.update_xaxes(title_text="j")
    fig.update_yaxes(autorange="reversed", showgrid=False)
    fig.update_yaxes(title_text=f"{label_of(drawn[0][1].name)}: i", row=1, col=1)
    return fig.update_layout(margin={"t": 34})


def measure_map(
    values: Mapping[str, int | float | None],
    *,
    title: str,
    text: Callable[[float], str] = "{:.2f}".format,
    middle: float | None = None,
) -> go.Figure:
    """One number of every matrix: layers down, roles across; a gap where it was not measured.

    Args:
        values: by module name.
        title: what the number is.
        text: the number as it is written.
        middle: what colours turn round, as chance; none where they only grow.
    """
    if not values:
        return nothing_yet(figure(x="", y=""), "No matrix was measured.")
    layout = matrix_layout(list(values))
    grid: list[list[float | None]] = [[None] * len(layout.columns) for _ in layout.rows]
    for name, value in values.items():
        row, column = layout.places[name]
        grid[row][column] = value
    texts = [["" if value is None else text(value) for value in row] for row in grid]
    scale = PHI_SCALE if middle is None else [[0, PALETTE["W0"]], [0.5, "#f3f0fe"], [1, PHI_SCALE[-1][1]]]
    shown = go.Heatmap(
        z=grid,
        x=layout.columns,
        y=layout.rows,
        text=texts,
        texttemplate="%{text}",
        colorscale=scale,
        zmid=middle,
        xgap=3,
        ygap=3,
        colorbar={"thickness": 10, "outlinewidth": 0, "title": {"text": title.replace(" ", "<br>")}},
        hovertemplate="%{y}, %{x}<br>" + title + " %{z:.4g}<extra></extra>",
    )
    fig = figure(x="", y="", height_px=90 + 26 * len(layout.rows))
    fig.add_trace(shown)
    fig.update_yaxes(autorange="reversed", showgrid=False, ticks="")
    return fig.update_xaxes(side="top", ticks="").update_layout(margin={"t": 40, "b": 10})


def projections(rows: Sequence[tuple[str, float | None, float | None, float | None]]) -> go.Figure:
    """‖UᵀWVᵀ‖_F on ΔW's, on W's and on random directions of each matrix, on a logarithmic axis.

    Args:
        rows: (title, on ΔW's, on W's own, on random ones); None is a gap.

    Source: Hu et al. 2021, table 7.
    """
    fig = figure(x="", y="‖UᵀWVᵀ‖_F", height_px=320)
    titles = [title for title, *_ in rows]
    kinds = (("ΔW's directions", PALETTE["ΔW"], 1), ("W's own top directions", PALETTE["W0"], 2), ("random directions", TEXT, 3))
    for label, colour, column in kinds:
        marker = {"color": colour, "size": 8, "symbol": "circle-open" if column == 3 else "circle"}
        y = [row[column] for row in rows]
        hover = "%{x}<br>" + label + ": %{y:.4g}<extra></extra>"
        fig.add_scatter(x=titles, y=y, mode="markers", name=label, marker=marker, hovertemplate=hover)
    return fig.update_yaxes(type="log", gridcolor=GRID)


def _map(one: Overlap, most: int, *, shows_scale: bool) -> go.Heatmap:
    """At most so many rows and columns, spread evenly, the first and the last among them."""
    assert one.phi is not None
    assert one.chance is not None
    rows, columns = _spread(len(one.phi), most), _spread(len(one.phi[0]), most)
    said = "i = %{y}, j = %{x}<br>φ = %{z:.3f}, chance %{customdata:.3f}"
    return go.Heatmap(
        z=[[round(one.phi[i][j], 4) for j in columns] for i in rows],
        customdata=[[round(one.chance[i][j], 4) for j in columns] for i in rows],
        x=[str(j + 1) for j in columns] if len(columns) < len(one.phi[0]) else [j + 1 for j in columns],
        y=[str(i + 1) for i in rows] if len(rows) < len(one.phi) else [i + 1 for i in rows],
        zmin=0,
        zmax=1,
        colorscale=PHI_SCALE,
        showscale=shows_scale,
        colorbar={"thickness": 10, "outlinewidth": 0, "title": {"text": "φ"}},
        hovertemplate=f"{label_of(one.name)}<br>{said}<extra></extra>",
    )


def _spread(n: int, most: int) -> list[int]:
    if n <= most:
        return list(range(n))
    return sorted({round(k * (n - 1) / (most - 1)) for k in range(most)})
