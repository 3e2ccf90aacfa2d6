"""W0, ΔW and W0 + ΔW beside each other, entry by entry."""

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lora_lab.analysis.base_records import Cells, MergedMatrix
from lora_lab.plots.captions import small_share
from lora_lab.plots.theme import style
from lora_lab.roles import label_of

_SIGNS = [[0.0, "#b3541a"], [0.25, "#e9a66f"], [0.5, "#f6f4f8"], [0.75, "#9f8bef"], [1.0, "#3a2499"]]
_PANEL_PX, _LEAST_PX, _AROUND_PX = 250, 90, 76


def merged_matrix(one: MergedMatrix, *, own_scale: bool = False) -> go.Figure:
    """Three maps of one matrix: W0, the part of ΔW that is kept, and their sum; 0 is clear, the signs are two colours.

    Args:
        one: what to draw.
        own_scale: whether ΔW, which is small beside W0, has a scale of its own.
    """
    titles = ["W0", f"ΔW, {one.kept} of {one.rank} directions" if one.rank else "ΔW = 0", "W0 + ΔW"]
    fig = make_subplots(rows=1, cols=3, shared_yaxes=True, horizontal_spacing=0.03, column_titles=titles)
    style(fig, height_px=_height_px(one))
    fig.update_annotations(font_size=12)
    for column, (cells, title) in enumerate(zip((one.base, one.delta, one.merged), titles, strict=True), 1):
        axis = "coloraxis2" if own_scale and column == 2 else "coloraxis"
        fig.add_trace(_map(one, cells, title, axis), row=1, col=column)
    most = _largest(one.base, one.merged) if own_scale else _largest(one.base, one.delta, one.merged)
    scales = {"coloraxis": _scale(most, x=1.0, title="weight")}
    if own_scale:
        scales["coloraxis2"] = _scale(_largest(one.delta), x=1.1, title="ΔW")
    fig.update_xaxes(title_text="input", showgrid=False)
    fig.update_yaxes(autorange="reversed", showgrid=False)
    fig.update_yaxes(title_text=f"{label_of(one.name)}: output", row=1, col=1)
    return fig.update_layout(**scales, margin={"t": 30})


def _height_px(one: MergedMatrix) -> int:
    """A matrix of many rows is tall, one of many columns low."""
    d_out, d_in = one.shape
    return _AROUND_PX + round(min(max(_PANEL_PX * d_out / d_in, _LEAST_PX), 2 * _PANEL_PX))


def _map(one: MergedMatrix, cells: Cells, what: str, axis: str) -> go.Heatmap:
    """Cells at the middle of the entries that they stand for, the first being 1."""
    rows, columns = one.block
    return go.Heatmap(
        z=np.array(cells),  # goes to a browser as it lies in memory: of 65,536 cells each move of a slider draws three
        x0=(columns + 1) / 2,
        dx=columns,
        y0=(rows + 1) / 2,
        dy=rows,
        coloraxis=axis,
        name=what,
        hovertemplate=f"output %{{y}}, input %{{x}}<br>{what}: %{{z:.4g}}<extra></extra>",
    )


def _scale(most: float, *, x: float, title: str) -> dict[str, object]:
    bar = {"thickness": 10, "outlinewidth": 0, "title": {"text": title}, "x": x, "xanchor": "left", "exponentformat": "power"}
    return {"colorscale": _SIGNS, "cmin": -most, "cmax": most, "colorbar": bar}


def _largest(*grids: Cells) -> float:
    """The largest |cell|; 1 where all are 0, as a scale needs a width."""
    return float(max(np.abs(cells).max() for cells in grids)) or 1.0


def _kept(one: MergedMatrix) -> str:
    strongest = "strongest direction" if one.kept == 1 else f"{one.kept} strongest directions"
    return f"the {strongest} of {one.rank} {'holds' if one.kept == 1 else 'hold'}" if one.kept else "no direction holds"


def merged_caption(one: MergedMatrix) -> str:
    """How much of ΔW is kept, and whether cells are means of several entries."""
    rows, columns = one.block
    means = f" A cell is the mean of {rows} × {columns} entries of the {one.shape[0]} × {one.shape[1]}." if one.is_averaged else ""
    if one.norm_share is None:
        return f"ΔW is zero, it has no direction: W0 + ΔW is W0.{means}"
    share = f"{small_share(one.norm_share)} of ‖ΔW‖_F"
    return f"{label_of(one.name)}: {_kept(one)} {share} ({small_share(one.norm_share**2)} of ‖ΔW‖_F²).{means}"
