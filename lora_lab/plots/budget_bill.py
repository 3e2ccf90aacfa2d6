"""Where the memory of a step goes, as bars against a card."""

from collections.abc import Mapping

import plotly.graph_objects as go

from lora_lab.budget import PARTS, Card, Ledger
from lora_lab.plots.theme import PALETTE, TEXT, figure
from lora_lab.units import gigabytes

PART_COLOURS = {
    "weights": PALETTE["W0"],
    "adapters": PALETTE["ΔW"],
    "gradients": "#c58be8",
    "optimizer": PALETTE["B"],
    "activations": PALETTE["A"],
    "loss": "#4c8fd6",
}
_ROW_PX, _TOP_PX, _BOTTOM_PX, _LEGEND_PX = 46, 26, 96, 52


def budget_bill(rows: Mapping[str, Ledger], card: Card) -> go.Figure:
    """One stacked bar a row, to one scale; the line is what the card has, and a bar with its hatched end must stay left of it.

    Args:
        rows: the bill of each configuration, by its name, the first on top.
        card: whose bytes are drawn as a line.
    """
    height_px = _ROW_PX * len(rows)
    fig = figure(x="GB at the peak of one step", y="", height_px=_TOP_PX + height_px + _BOTTOM_PX)
    for part in PARTS:
        _pieces(fig, rows, part, part, {"color": PART_COLOURS[part]})
    hatched: dict[str, object] = {"color": "rgba(0,0,0,0)", "line": {"color": PALETTE["W0"], "width": 1}}
    hatched["pattern"] = {"shape": "/", "fgcolor": PALETTE["W0"], "size": 5}
    _pieces(fig, rows, "overhead", "overhead", hatched)
    fig.add_vline(card.memory_bytes / 10**9, line={"color": TEXT, "dash": "dash", "width": 1.5})
    named = {"text": f"{card.name}, {gigabytes(card.memory_bytes)}", "showarrow": False, "font": {"color": TEXT, "size": 11}}
    fig.add_annotation(x=card.memory_bytes / 10**9, y=1, yref="paper", yanchor="bottom", **named)
    fig.update_layout(barmode="stack", bargap=0.35, margin={"t": _TOP_PX, "b": _BOTTOM_PX})
    fig.update_layout(legend={"y": -_LEGEND_PX / height_px, "yanchor": "top", "traceorder": "normal"})
    fig.update_xaxes(showgrid=True, gridcolor="rgba(128, 132, 142, 0.22)", rangemode="tozero")
    return fig.update_yaxes(autorange="reversed", showgrid=False, ticks="")


def _pieces(fig: go.Figure, rows: Mapping[str, Ledger], part: str, name: str, marker: dict[str, object]) -> None:
    sizes = [getattr(ledger, part) for ledger in rows.values()]
    fig.add_bar(
        orientation="h",
        y=list(rows),
        x=[size_bytes / 10**9 for size_bytes in sizes],
        customdata=sizes,
        name=name,
        marker=marker,
        hovertemplate="%{y}<br>" + name + ": %{x:.2f} GB<extra></extra>",
    )
