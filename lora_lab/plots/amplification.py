"""ΔW beside the W that it changes: what it amplifies, where it lies in W, and which directions of W + ΔW are new."""

from collections.abc import Sequence

import plotly.graph_objects as go

from lora_lab.analysis.base_records import Amplification, Intruders, Location
from lora_lab.budget.paper import PaperAmplification
from lora_lab.plots.angles import SIDES
from lora_lab.plots.section7 import projections
from lora_lab.plots.theme import GRID, PALETTE, PHI_SCALE, figure, nothing_yet
from lora_lab.roles import label_of


def amplification(one: Amplification, paper: Sequence[PaperAmplification]) -> go.Figure:
    """‖UᵀWVᵀ‖_F with U and V from ΔW, from W and at random, beside what the paper found in its W.

    Source: Hu et al. 2021, table 7.
    """
    ours = (f"here, {one.directions} directions<br>{label_of(one.name)}", one.on_delta, one.on_base, one.on_random)
    theirs = [(f"paper, r = {p.r}<br>{p.matrix}", p.on_delta, p.on_base, p.on_random) for p in paper]
    rows = [ours, *theirs]
    return projections(rows).update_xaxes(range=[-0.5, len(rows) - 0.5]).update_layout(margin={"b": 52})


def direction_cosines(cosines: Sequence[Sequence[float]], intruders: Intruders) -> go.Figure:
    """|cos| of direction i of W + ΔW with direction j of W; the rows of intruders are marked.

    Source: Shuttleworth et al. 2024, figure 1.
    """
    fig = figure(x="direction j of W", y="direction i of W + ΔW", height_px=400)
    if not cosines:
        return nothing_yet(fig, "W has no direction.")
    fig.add_heatmap(
        z=[list(row) for row in cosines],
        x=list(range(1, len(cosines[0]) + 1)),
        y=list(range(1, len(cosines) + 1)),
        zmin=0,
        zmax=1,
        colorscale=PHI_SCALE,
        colorbar={"thickness": 10, "outlinewidth": 0, "title": {"text": "|cos|"}},
        hovertemplate="i = %{y}, j = %{x}<br>|cos| = %{z:.3f}<extra></extra>",
    )
    new = [i for i, cosine in enumerate(intruders.cosines, 1) if cosine < intruders.threshold]
    fig.add_scatter(
        x=[0] * len(new),
        y=new,
        mode="markers",
        marker={"symbol": "triangle-right", "size": 9, "color": PALETTE["B"]},
        hovertemplate="direction %{y} is an intruder<extra></extra>",
        showlegend=False,
    )
    fig.update_yaxes(autorange="reversed", showgrid=False)
    return fig.update_xaxes(range=[-0.7, len(cosines[0]) + 0.5])


def intruder_curve(intruders: Intruders) -> go.Figure:
    """How many of the leading directions are intruders at every threshold, the one chosen marked."""
    fig = figure(x="threshold of |cos|", y=f"intruders among {intruders.k}", height_px=400)
    edges = sorted(intruders.cosines)
    fig.add_scatter(
        x=[0.0, *edges, 1.0],
        y=[0, *range(1, len(edges) + 1), len(edges)],
        mode="lines",
        line={"shape": "hv", "color": PALETTE["ΔW"], "width": 1.8},
        hovertemplate="%{y} below %{x:.3f}<extra></extra>",
    )
    fig.add_vline(intruders.threshold, line={"color": PALETTE["B"], "dash": "dot", "width": 1.5})
    fig.update_xaxes(range=[0, 1.01])
    return fig.update_yaxes(range=[0, intruders.k + 0.5], dtick=max(1, intruders.k // 5))


def location_bars(location: Location) -> go.Figure:
    """The share of ‖ΔW‖² in each band of W's directions, either side, beside the share that chance gives."""
    fig = figure(x="directions of W", y="share of ‖ΔW‖²", height_px=300)
    bands = [band for band in location.bands if band.share is not None]
    if not bands:
        return nothing_yet(fig, "ΔW is zero: it lies nowhere.")
    places = [[SIDES[band.side] for band in bands], [f"{band.name} {band.first}–{band.last}" for band in bands]]
    for name, values, colour in (
        ("ΔW", [band.share for band in bands], PALETTE["ΔW"]),
        ("chance", [band.chance for band in bands], PALETTE["W0"]),
    ):
        fig.add_bar(
            x=places, y=values, name=name, marker={"color": colour}, hovertemplate=f"%{{x}}<br>{name} %{{y:.2%}}<extra></extra>"
        )
    fig.update_yaxes(tickformat=".0%", rangemode="tozero")
    fig.update_xaxes(dividercolor=GRID)
    return fig.update_layout(barmode="group", bargap=0.35, margin={"b": 64})
