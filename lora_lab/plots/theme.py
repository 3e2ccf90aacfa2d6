"""One palette and one look, page and notebooks, light and dark: backgrounds are clear and greys stand on both."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

import plotly.graph_objects as go

from lora_lab.specs import METHODS

PALETTE = {"W0": "#8a8f98", "A": "#0f9d8a", "B": "#e07b2a", "ΔW": "#6b4fd8"}
TEXT, GRID = "#757a85", "rgba(128, 132, 142, 0.22)"
PHI_SCALE = [[0.0, "#f3f0fe"], [0.25, "#c9bdf7"], [0.5, "#9f8bef"], [0.75, "#6b4fd8"], [1.0, "#2f1c86"]]
_LIGHT, _DARK = (176, 156, 245), (74, 46, 196)
_HUES = {  # LoRA is violet as ΔW is; teal, orange and grey mean A, B and W0, and no method is one of them
    "rslora": "#b44ad0",
    "lora+": "#7d5bb0",
    "dora": "#d8428a",
    "vera": "#2a8fd6",
    "adalora": "#9a3f9e",
    "qlora": "#3d5fe0",
    "lora+prefix": "#5a78a8",
    "lora+preembed": "#3f86a0",
    "ia3": "#c19a00",
    "ln_tuning": "#7d9a1e",
    "bitfit": "#3aa04a",
    "adapter": "#12a0b8",
    "adapter_pfeiffer": "#4f9abf",
    "prefix": "#a0693f",
    "preembed": "#c4905c",
    "prelayer": "#8a5a60",
    "partial": "#e0706a",
    "full": "#c22f3e",
}
_MOST_NAMED = 6  # runs with an entry of their own in a legend
_ENTRIES_A_ROW, _LEGEND_ROW_PX = 3, 22  # where two cards stand beside each other
_DASHES = ("solid", "dash", "dot", "dashdot")


def rank_colour(r: int) -> str:
    """Violet, darker with the rank: r = 1 light, r = 64 and above dark.

    >>> rank_colour(1), rank_colour(64)
    ('rgb(176, 156, 245)', 'rgb(74, 46, 196)')
    """
    share = _share(r)
    return _rgb(a + share * (b - a) for a, b in zip(_LIGHT, _DARK, strict=True))


def run_colour(method: str, r: int) -> str:
    """The colour of a run: LoRA's violet by rank, a hue of its own for every other method.

    Where r means something its shade grows darker with it as LoRA's does; a method without r has one shade.

    >>> run_colour("lora", 1) == rank_colour(1), run_colour("bitfit", 1) == run_colour("bitfit", 64)
    (True, True)
    """
    if method not in _HUES:
        return rank_colour(r)
    hue = tuple(int(_HUES[method][i : i + 2], 16) for i in (1, 3, 5))
    if not METHODS[method].r_is:
        return _rgb(hue)
    share = _share(r)
    towards, weight = ((255, 255, 255), 0.36 * (1 - 2 * share)) if share < 0.5 else ((0, 0, 0), 0.3 * (2 * share - 1))
    return _rgb(a + weight * (b - a) for a, b in zip(hue, towards, strict=True))


def _share(r: int) -> float:
    """Where a rank stands between 1 and 64, both by their logarithm."""
    return min(math.log2(max(r, 1)) / 6, 1.0)


def _rgb(parts: Iterable[int | float]) -> str:
    return f"rgb({', '.join(str(round(part)) for part in parts)})"


@runtime_checkable
class Named(Protocol):
    """A run as a legend names it."""

    @property
    def label(self) -> str: ...
    @property
    def configuration(self) -> str: ...


def legend_entries(lines: Sequence[Named]) -> list[dict[str, Any]]:
    """What plotly needs to name each line: a few runs have an entry each; of many, one stands for all seeds of a configuration.

    An entry shows and hides what it stands for. `meta` is the run's own label in both cases.
    """
    if len(lines) <= _MOST_NAMED:
        return [{"name": line.label, "meta": line.label} for line in lines]
    named: set[str] = set()
    entries = []
    for line in lines:
        first = line.configuration not in named
        named.add(line.configuration)
        entries.append({"name": line.configuration, "meta": line.label, "legendgroup": line.configuration, "showlegend": first})
    return entries


def make_room(fig: go.Figure, entries: Sequence[dict[str, Any]]) -> None:
    """A figure taller by the rows that a long legend takes, so that they are not taken from the plot."""
    named = sum(entry.get("showlegend", True) for entry in entries)
    rows = -(-named // _ENTRIES_A_ROW)
    fig.update_layout(height=fig.layout.height + _LEGEND_ROW_PX * max(0, rows - 2))


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
