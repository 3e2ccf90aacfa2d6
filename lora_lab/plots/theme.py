"""One palette and one look, page and notebooks, light and dark: backgrounds are clear and greys stand on both."""

import math

import plotly.graph_objects as go

PALETTE = {"W0": "#8a8f98", "A": "#0f9d8a", "B": "#e07b2a", "ΔW": "#6b4fd8"}
TEXT, GRID = "#757a85", "rgba(128, 132, 142, 0.22)"
PHI_SCALE = [[0.0, "#f3f0fe"], [0.25, "#c9bdf7"], [0.5, "#9f8bef"], [0.75, "#6b4fd8"], [1.0, "#2f1c86"]]
_LIGHT, _DARK = (176, 156, 245), (74, 46, 196)
_DASHES = ("solid", "dash", "dot", "dashdot")


def rank_colour(r: int) -> str:
    """Violet, darker with the rank: r = 1 light, r = 64 and above dark.

    >>> rank_colour(1), rank_colour(64)
    ('rgb(176, 156, 245)', 'rgb(74, 46, 196)')
    """
    share = min(math.log2(max(r, 1)) / 6, 1.0)
    mixed = (round(a + share * (b - a)) for a, b in zip(_LIGHT, _DARK, strict=True))
    return f"rgb({', '.join(map(str, mixed))})"


def seed_dash(seed: int) -> str:
    """A dash pattern a seed."""
    return _DASHES[seed % len(_DASHES)]


def figure(*, x: str, y: str, height_px: int = 300) -> go.Figure:
    """An empty figure in the lab's look, its axes titled with their units."""
    fig = go.Figure()
    style(fig, height_px=height_px)
    fig.update_xaxes(title_text=x)
    fig.update_yaxes(title_text=y)
    return fig


def style(fig: go.Figure, *, height_px: int) -> None:
    """The lab's look for any figure."""
    fig.update_layout(
        template="none",
        height=height_px,
        margin={"l": 58, "r": 18, "t": 14, "b": 46},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "Inter, system-ui, sans-serif", "size": 12, "color": TEXT},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "font": {"size": 11}},
        hoverlabel={"font": {"family": "Inter, system-ui, sans-serif"}},
        uirevision="keep",  # a redraw with new points keeps the reader's zoom
    )
    small = {"size": 12}
    fig.update_xaxes(showgrid=False, zeroline=False, linecolor=GRID, ticks="outside", tickcolor=GRID, title_font=small)
    fig.update_yaxes(gridcolor=GRID, zeroline=False, title_font=small, automargin=True, title_standoff=10)


def nothing_yet(fig: go.Figure, sentence: str) -> go.Figure:
    """An empty plot that says why it is empty."""
    fig.add_annotation(text=sentence, x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False)
    return fig.update_xaxes(visible=False).update_yaxes(visible=False)
