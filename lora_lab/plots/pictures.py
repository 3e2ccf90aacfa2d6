"""Small matrices as grey pictures beside each other."""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lora_lab.plots.theme import figure, nothing_yet, style

Grid = Sequence[Sequence[float]]
_MOST_A_ROW = 6
_ROW_PX = 190


def pictures(named: Mapping[str, Grid]) -> go.Figure:
    """Each matrix as a picture under its name, row 0 above, all on one scale of grey: the least value black, the largest white.

    Args:
        named: rows of numbers by what they are called.
    """
    if not named:
        return nothing_yet(figure(x="", y=""), "There is no picture.")
    columns = min(len(named), _MOST_A_ROW)
    rows = -(-len(named) // columns)
    fig = make_subplots(rows=rows, cols=columns, subplot_titles=list(named), horizontal_spacing=0.02, vertical_spacing=0.24 / rows)
    style(fig, height_px=30 + _ROW_PX * rows)
    values = [value for grid in named.values() for row in grid for value in row]
    for i, (name, grid) in enumerate(named.items()):
        place = {"row": i // columns + 1, "col": i % columns + 1}
        fig.add_trace(_picture(name, grid, min(values), max(values)), **place)
        fig.update_yaxes(scaleanchor=f"x{i + 1}" if i else "x", **place)
    fig.update_annotations(font_size=12)
    fig.update_yaxes(autorange="reversed", visible=False, constrain="domain")
    return fig.update_xaxes(visible=False, constrain="domain").update_layout(margin={"l": 10, "r": 10, "t": 34, "b": 6})


def _picture(name: str, grid: Grid, least: float, most: float) -> go.Heatmap:
    return go.Heatmap(
        z=[list(row) for row in grid],
        zmin=least,
        zmax=most,
        colorscale=[[0, "#000000"], [1, "#ffffff"]],
        showscale=False,
        name=name,
        hovertemplate=f"{name}<br>row %{{y}}, column %{{x}}: %{{z:.3g}}<extra></extra>",
    )
