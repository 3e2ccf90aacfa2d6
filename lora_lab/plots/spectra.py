"""Singular values of ΔW."""

import math
from collections.abc import Iterable
from itertools import accumulate
from typing import Any

import plotly.graph_objects as go

from lora_lab.analysis.records import NoiseEdges
from lora_lab.plots.lines import SpectrumLine
from lora_lab.plots.theme import PALETTE, TEXT, figure, legend_entries, make_room, nothing_yet, run_colour, seed_dash

_ENDS_AT_R = ("lora", "rslora", "lora+", "qlora", "lora+prefix", "lora+preembed", "vera", "adalora")  # DoRA scales all of W0 too

_SIGMA = "singular value σᵢ of ΔW"
ROUNDING = 1e-7  # float32's: AdaLoRA cuts directions to zero, and a singular value of one is this small a share of the largest


def spectrum(lines: Iterable[SpectrumLine], *, noise: NoiseEdges | None = None, noise_of: str = "") -> go.Figure:
    """σ_i against i on a log scale, each run's rank marked where its spectrum must end.

    Zeros are left out, and what rounding made of them.

    Args:
        lines: one a run.
        noise: where the singular values of random matrices with the norm of one of them would lie.
        noise_of: which of them, by its label.
    """
    lines = [line for line in lines if any(line.singular_values)]
    fig = figure(x="direction i, strongest first", y=_SIGMA)
    if not lines:
        return nothing_yet(fig, "ΔW is zero: it has no direction yet.")
    entries = legend_entries(lines)
    make_room(fig, entries)
    for line, entry in zip(lines, entries, strict=True):
        least = ROUNDING * max(line.singular_values)
        values = [s if s > least else None for s in line.singular_values]
        _line(fig, line, entry, values, "σ%{x} = %{y:.4g}")
    ends = {line.r: line.method for line in lines[::-1] if line.method in _ENDS_AT_R}
    most = max(len(line.singular_values) for line in lines)
    for r in sorted(ends):
        side = "left" if r <= most / 8 else "right"  # beside the axis there is no room
        fig.add_vline(r, line={"color": run_colour(ends[r], r), "dash": "dot", "width": 1})
        fig.add_annotation(x=r, y=1, yref="paper", text=f"r {r}", showarrow=False, xanchor=side, font={"color": TEXT, "size": 11})
    fig.update_yaxes(type="log", exponentformat="power", dtick=1 if _decades(lines) > 2 else "D2")
    if noise is not None:
        _mark_noise(fig, noise, noise_of, most)
    return _count_directions(fig, lines)


def _mark_noise(fig: go.Figure, noise: NoiseEdges, of: str, most: int) -> None:
    """The edges as lines over all directions, with their values on hover."""
    for value, name, dash, what in _noise_levels(noise):
        fig.add_scatter(
            x=[0.5, *range(1, most + 1), most + 0.5],
            y=[value] * (most + 2),
            mode="lines",
            name=name,
            showlegend=bool(name),
            legendgroup=f"noise {dash}",
            line={"color": PALETTE["W0"], "dash": dash, "width": 1.2},
            hovertemplate=f"{what} with the norm of {of}: %{{y:.4g}}<extra></extra>",
        )


def _noise_levels(noise: NoiseEdges) -> list[tuple[float, str, str, str]]:
    """(singular value, its name in the legend, its dash, what it is); a product whose least one goes to 0 has no lower edge."""
    levels = [
        (noise.product_upper, "random B A", "dash", "largest σ of a product of random factors"),
        (noise.product_lower, "", "dash", "smallest σ of a product of random factors"),
        (noise.dense_upper, "random matrix", "dot", "largest σ of a random matrix"),
    ]
    return [level for level in levels if level[0] > ROUNDING * noise.product_upper]


def noise_rows(of: str, noise: NoiseEdges | None) -> list[dict[str, Any]]:
    """The edges as rows beside those of the spectrum."""
    levels = _noise_levels(noise) if noise else []
    return [{"of": f"{what} with the norm of {of}", _SIGMA: value} for value, _, _, what in levels]


def energy(lines: Iterable[SpectrumLine]) -> go.Figure:
    """Share of ‖ΔW‖² in the first i directions, with lines at 90, 95 and 99 %."""
    lines = [line for line in lines if any(line.singular_values)]
    fig = figure(x="directions kept, strongest first", y="share of ‖ΔW‖²")
    if not lines:
        return nothing_yet(fig, "ΔW is zero: it has no direction yet.")
    entries = legend_entries(lines)
    make_room(fig, entries)
    for line, entry in zip(lines, entries, strict=True):
        sums = list(accumulate(s * s for s in line.singular_values))
        _line(fig, line, entry, [s / sums[-1] for s in sums], "%{x} directions keep %{y:.1%}")
    for share, anchor in ((0.90, "top"), (0.95, "middle"), (0.99, "bottom")):  # they lie closer than their texts are high
        fig.add_hline(share, line={"color": PALETTE["W0"], "dash": "dash", "width": 1})
        beside = {"xref": "paper", "xanchor": "left", "yanchor": anchor, "showarrow": False, "font": {"color": TEXT, "size": 10}}
        fig.add_annotation(x=1.0, y=share, text=f" {100 * share:.0f} %", **beside)
    fig.update_layout(margin={"r": 40})
    fig.update_yaxes(tickformat=".0%", range=[0, 1.03])
    return _count_directions(fig, lines)


def _line(fig: go.Figure, line: SpectrumLine, entry: dict[str, Any], y: list[float | None] | list[float], hover: str) -> None:
    fig.add_scatter(
        x=list(range(1, len(y) + 1)),
        y=y,
        **entry,
        mode="lines+markers",
        marker={"size": 6},
        line={"color": run_colour(line.method, line.r), "dash": seed_dash(line.seed), "width": 1.8},
        hovertemplate=f"{line.label}<br>{hover}<extra></extra>",
    )


def _decades(lines: list[SpectrumLine]) -> float:
    positive = [s for line in lines for s in line.singular_values if s > ROUNDING * max(line.singular_values)]
    return math.log10(max(positive) / min(positive))


def _count_directions(fig: go.Figure, lines: list[SpectrumLine]) -> go.Figure:
    most = max(len(line.singular_values) for line in lines)
    step = next(s for s in (1, 2, 4, 8, 16, 32, 64, 128) if most / s <= 16 or s == 128)
    return fig.update_xaxes(range=[0.5, most + 0.5], tick0=step if step > 1 else 1, dtick=step)
