"""φ(i, j) as a map, and beside it what chance would give."""

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lora_lab.analysis.records import Overlap
from lora_lab.plots.theme import PALETTE, PHI_SCALE, figure, nothing_yet, style

_MOST = 128  # directions a side: what was trained without factors has as many as its matrix is wide


def overlap(
    record: Overlap, *, first: str, second: str, control: Overlap | None = None, control_name: str = "control"
) -> go.Figure:
    """φ of the first i directions of one run and the first j of another, 0 none and 1 all, next to its chance level.

    Args:
        record: of the two.
        first: the one down the side, by its label.
        second: the one along the foot.
        control: as many directions where nothing was learned, drawn between the two.
        control_name: its title.

    Source: Hu et al. 2021, figures 3 and 4.
    """
    if record.phi is None or record.chance is None:
        empty = figure(x=f"j: directions of {second}", y=f"i: directions of {first}", height_px=340)
        return nothing_yet(empty, "One of the two is zero: it has no direction to compare.")
    beside = [(control.phi, control_name)] if control is not None and control.phi is not None else []
    panels = [(record.phi, "measured"), *beside, (record.chance, f"chance: max(i, j) / {record.dimension}")]
    titles = [title for _, title in panels]
    fig = make_subplots(rows=1, cols=len(panels), shared_yaxes=True, horizontal_spacing=0.04, column_titles=titles)
    style(fig, height_px=340)
    fig.update_annotations(font_size=12)
    for column, (grid, title) in enumerate(panels, 1):
        fig.add_trace(_map(grid, title, shows_scale=column == 1), row=1, col=column)
    if record.has_cells_that_tell_nothing:
        _mark_half(fig, record)
    fig.update_xaxes(title_text=f"j: directions of {second}", title_font_size=11, dtick=_tick(min(len(record.phi[0]), _MOST)))
    fig.update_yaxes(autorange="reversed", showgrid=False, dtick=_tick(min(len(record.phi), _MOST)))
    fig.update_yaxes(title_text=f"i: directions of {first}", row=1, col=1)
    return fig.update_layout(margin={"t": 30})


def _mark_half(fig: go.Figure, record: Overlap) -> None:
    """Lines at d / 2 where the map goes on past them: there chance is above one half, and an overlap tells nothing."""
    line = {"color": PALETTE["B"], "dash": "dot", "width": 1.5}
    half = record.dimension / 2 + 0.5
    assert record.phi is not None
    if min(len(record.phi[0]), _MOST) > half:
        fig.add_vline(half, line=line)
    if min(len(record.phi), _MOST) > half:
        fig.add_hline(half, line=line)


def _map(grid: tuple[tuple[float, ...], ...], what: str, *, shows_scale: bool) -> go.Heatmap:
    grid = tuple(row[:_MOST] for row in grid[:_MOST])
    return go.Heatmap(
        z=grid,
        x=list(range(1, len(grid[0]) + 1)),
        y=list(range(1, len(grid) + 1)),
        zmin=0,
        zmax=1,
        colorscale=PHI_SCALE,
        showscale=shows_scale,
        colorbar={"thickness": 10, "outlinewidth": 0, "title": {"text": "φ"}},
        name=what,
        hovertemplate=f"i = %{{y}}, j = %{{x}}<br>{what}: %{{z:.3f}}<extra></extra>",
    )


def _tick(n: int) -> int:
    return next(step for step in (1, 2, 4, 8, 16, 32, 64, n) if n / step <= 8)
