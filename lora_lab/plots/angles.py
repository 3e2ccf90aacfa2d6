"""Principal angles between two subspaces, beside those of random ones."""

import math
from collections.abc import Sequence

import plotly.graph_objects as go

from lora_lab.analysis.records import Closeness
from lora_lab.plots.theme import PALETTE, figure, nothing_yet

SIDES = {"in": "input side", "out": "output side"}
_COLOURS = {"in": PALETTE["A"], "out": PALETTE["B"]}  # A reads the input, B writes the output


def angle_lines(sides: Sequence[tuple[str, Closeness | None, Closeness | None]]) -> go.Figure:
    """θ_i in degrees, smallest first, of each side, with those of random subspaces of the same dimensions dashed.

    Args:
        sides: (`in` or `out`, the subspaces measured, two random ones).
    """
    fig = figure(x="principal angle i, smallest first", y="θᵢ (degrees)", height_px=260)
    for side, measured, random in sides:
        for closeness, dash, name in ((measured, "solid", SIDES[side]), (random, "dash", f"random, {SIDES[side]}")):
            if closeness is not None:
                _line(fig, closeness, name, {"color": _COLOURS[side], "dash": dash, "width": 1.8})
    if not fig.data:
        return nothing_yet(fig, "One of the two is zero: it has no direction to compare.")
    fig.update_yaxes(range=[0, 93], dtick=30)
    return fig.update_xaxes(dtick=max(1, max(len(trace.x) for trace in fig.data) // 8))


def _line(fig: go.Figure, closeness: Closeness, name: str, line: dict[str, object]) -> None:
    degrees = [math.degrees(angle) for angle in closeness.angles_rad]
    fig.add_scatter(
        x=list(range(1, len(degrees) + 1)),
        y=degrees,
        name=name,
        mode="lines+markers",
        marker={"size": 5},
        line=line,
        hovertemplate=f"{name}<br>θ%{{x}} = %{{y:.2f}}°<extra></extra>",
    )
