"""φ(i, j) of every layer and matrix at once, as small maps in one picture, beside those of a control."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lora_lab.analysis.records import Overlap
from lora_lab.plots.matrix_layout import MatrixLayout, matrix_layout
from lora_lab.plots.measures import MATRIX_MEASURES
from lora_lab.plots.theme import PHI_SCALE, figure, nothing_yet, style
from lora_lab.roles import label_of

_MOST = 16  # directions a side of a small map
_ROW_PX, _LEAST_ROW_PX, _HEIGHT_PX, _AROUND_PX = 92, 34, 900, 90


def overlap_grid(records: Mapping[str, Overlap], controls: Mapping[str, Overlap], *, control: str) -> go.Figure:
    """A small map of φ a matrix, layers down and roles across, its mean above chance written on it; the control's beside them.

    Args:
        records: the overlap of every matrix that both adapters adapt, by name.
        controls: of the same matrices, where nothing was learned.
        control: what the control is, as its title.
    """
    drawn = {name: record for name, record in records.items() if record.phi}
    if not drawn:
        return nothing_yet(figure(x="", y=""), "No matrix has directions to compare.")
    layout = matrix_layout(list(drawn))
    fig = make_subplots(rows=1, cols=2, shared_yaxes=True, horizontal_spacing=0.05, column_titles=["measured", control])
    style(fig, height_px=_AROUND_PX + _row_px(len(layout.rows)) * len(layout.rows))
    fig.update_annotations(font_size=12)
    for column, shown in enumerate((drawn, {name: controls[name] for name in drawn}), 1):
        _add(fig, column, shown, layout)
    side, middle = _MOST + 1, (_MOST - 1) / 2
    small = {"size": 11}
    fig.update_xaxes(
        tickvals=[side * i + middle for i in range(len(layout.columns))], ticktext=layout.columns, tickfont=small, ticks=""
    )
    fig.update_yaxes(
        tickvals=[side * i + middle for i in range(len(layout.rows))], ticktext=layout.rows, tickfont=small, showgrid=False
    )
    fig.update_yaxes(autorange="reversed", ticks="")
    return fig.update_layout(margin={"t": 30, "b": 30})


def _row_px(rows: int) -> int:
    """Many layers have low rows."""
    return max(min(_ROW_PX, _HEIGHT_PX // rows), _LEAST_ROW_PX)


def _add(fig: go.Figure, column: int, records: Mapping[str, Overlap], layout: MatrixLayout) -> None:
    side = _MOST + 1
    height, width = (side * len(titles) - 1 for titles in (layout.rows, layout.columns))
    z: list[list[float | None]] = [[None] * width for _ in range(height)]
    told: list[list[str]] = [[""] * width for _ in range(height)]
    for name, record in records.items():
        row, col = layout.places[name]
        _fill(z, told, record, side * row, side * col, name)
        fig.add_annotation(**_number(record, side * row, side * col), row=1, col=column)
    fig.add_trace(
        go.Heatmap(
            z=z,
            text=told,
            zmin=0,
            zmax=1,
            colorscale=PHI_SCALE,
            showscale=column == 1,
            colorbar={
                "thickness": 10,
                "outlinewidth": 0,
                "title": {"text": "φ"},
                "lenmode": "pixels",
                "len": 220,
                "y": 1,
                "yanchor": "top",
            },
            hoverongaps=False,
            hovertemplate="%{text} = %{z:.3f}<extra></extra>",
        ),
        row=1,
        col=column,
    )


def _fill(z: list[list[float | None]], told: list[list[str]], record: Overlap, top: int, left: int, name: str) -> None:
    """One matrix's φ over its whole square, few directions as broad cells."""
    assert record.phi is not None
    i_max, j_max = min(len(record.phi), _MOST), min(len(record.phi[0]), _MOST)
    for y in range(_MOST):
        for x in range(_MOST):
            i, j = y * i_max // _MOST, x * j_max // _MOST
            z[top + y][left + x] = record.phi[i][j]
            told[top + y][left + x] = f"{name}<br>φ({i + 1}, {j + 1})"


def _number(record: Overlap, top: int, left: int) -> dict[str, Any]:
    above = record.mean_above_chance
    return {
        "x": left + _MOST - 1,
        "y": top + _MOST - 1,
        "text": "" if above is None else MATRIX_MEASURES["phi"].text(above),
        "showarrow": False,
        "xanchor": "right",
        "yanchor": "bottom",
        "font": {"size": 10, "color": "#1c1e26"},
        "bgcolor": "rgba(255, 255, 255, 0.78)",
        "borderpad": 1,
    }


def grid_caption(records: Sequence[Overlap], controls: Sequence[Overlap], *, control: str) -> str:
    """The largest and the smallest mean above chance, and what the control reaches."""
    found = [(above, record.name) for record in records if (above := record.mean_above_chance) is not None]
    if not found:
        return "No matrix has cells that could tell an overlap from chance."
    text = MATRIX_MEASURES["phi"].text
    reached = [above for record in controls if (above := record.mean_above_chance) is not None]
    (least, lowest), (most, highest) = min(found), max(found)
    beside = f"; the control, {control}, stays between {text(min(reached))} and {text(max(reached))}" if reached else ""
    return f"φ lies {text(most)} above chance in {label_of(highest)} and {text(least)} in {label_of(lowest)}{beside}."
