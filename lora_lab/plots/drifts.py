"""When ΔW found the directions that it ends with: φ over training steps."""

from collections.abc import Sequence
from statistics import mean

import plotly.graph_objects as go

from lora_lab.analysis.records import Drift
from lora_lab.plots.theme import PALETTE, figure, nothing_yet, rank_colour, seed_dash
from lora_lab.roles import label_of, layer_of, role_of

_NEARLY = 0.9


def drift_curves(drifts: Sequence[Drift]) -> go.Figure:
    """φ of the leading directions of each ΔW with those at the end, by step; a shade a layer, a dash a role, chance in grey.

    A matrix of which ΔW ends at 0 has no line, and a step at which it was 0 is a gap.
    """
    fig = figure(x="optimizer step", y="φ with the final directions")
    shown = [one for one in drifts if one.k]
    if not shown:
        return nothing_yet(fig, "ΔW is zero: it has no direction to find.")
    roles = list(dict.fromkeys(role_of(one.name) for one in shown))
    layers = sorted({layer_of(one.name) or 0 for one in shown})
    for one in shown:
        place = layers.index(layer_of(one.name) or 0) / max(len(layers) - 1, 1)
        fig.add_scatter(
            x=[point.step for point in one.points],
            y=[point.phi for point in one.points],
            name=label_of(one.name),
            mode="lines+markers",
            marker={"size": 5},
            line={"color": rank_colour(round(64**place)), "dash": seed_dash(roles.index(role_of(one.name))), "width": 1.8},
            hovertemplate=f"{one.name}<br>step %{{x}}: φ({one.k}, {one.k}) = %{{y:.3f}}<extra></extra>",
        )
    fig.add_hline(_chance(shown), line={"color": PALETTE["W0"], "dash": "dash", "width": 1}, annotation_text="chance")
    return fig.update_yaxes(range=[0, 1.03])


def _chance(drifts: Sequence[Drift]) -> float:
    """In the mean over the matrices, at the end."""
    return mean(chance for one in drifts if (chance := one.points[-1].chance) is not None)


def drift_caption(drifts: Sequence[Drift]) -> str:
    """How much of the end is there at the first snapshot, and from which on nearly all of it is, in the mean over the matrices."""
    shown = [one for one in drifts if one.k]
    if not shown:
        return "ΔW is zero: it has no direction to find."
    steps = [point.step for point in shown[0].points]
    known = [[phi for one in shown if (phi := one.points[i].phi) is not None] for i in range(len(steps))]
    phis = [mean(found) if found else None for found in known]  # None where no matrix had a direction yet
    began = next(i for i, phi in enumerate(phis) if phi is not None)
    early = next(i for i in range(len(steps)) if all(phi is not None and phi >= _NEARLY for phi in phis[i:]))
    of = f"{len(shown)} {'matrices' if len(shown) > 1 else 'matrix'}"
    first = f"the leading directions of ΔW at step {steps[began]} have φ = {phis[began]:.2f} with the final ones"
    beside = f"where chance gives {_chance(shown):.3f}"
    when = f"from step {steps[early]} of {steps[-1]} on it is at least {_NEARLY:g}"
    if early == len(steps) - 1:
        when = f"it is below {_NEARLY:g} until the end"
    return f"In the mean over {of}, {first}, {beside}; {when}."
