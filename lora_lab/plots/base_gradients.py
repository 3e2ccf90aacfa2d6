"""The first gradient of a base's own matrices: where it is largest, how many directions it has, and whether it was right."""

import math
from collections import defaultdict
from collections.abc import Sequence
from statistics import mean

import plotly.graph_objects as go

from lora_lab.analysis.base_records import WeightGradient
from lora_lab.analysis.gradient_records import By, GradientAdvice, LearnedBeside, TriedAdvice, per_parameter
from lora_lab.analysis.records import LeadingOverlap
from lora_lab.plots.matrix_layout import matrix_layout
from lora_lab.plots.spectra import ROUNDING
from lora_lab.plots.theme import PHI_SCALE, figure, nothing_yet, rank_colour
from lora_lab.roles import label_of
from lora_lab.units import percent

_MOST_LINES = 6
_TOLD = {
    True: "the spread over seeds tells it from the best",
    False: "the spread over seeds does not tell it from the best",
    None: "without a spread over seeds nothing tells it from the best",
}
_BY = {"per_parameter": "per parameter", "in_reach": "within the rank that each can afford"}


def base_gradient_map(advice: GradientAdvice) -> go.Figure:
    """The root mean square of ∂L/∂W by layer and matrix, on a log scale; a matrix without a gradient is a gap.

    A cell of several matrices, such as experts, is the root mean square over all of them.
    """
    fig = figure(x="matrix", y="")
    cells: dict[str, list[WeightGradient]] = defaultdict(list)
    for one in advice.matrices:
        cells[one.name.partition("[")[0]].append(one)
    if not any(one.per_parameter for one in advice.matrices):
        return nothing_yet(fig, "The loss depends on no matrix here.")
    layout = matrix_layout(list(cells))
    values: list[list[float | None]] = [[None] * len(layout.columns) for _ in layout.rows]
    for name, (row, column) in layout.places.items():
        values[row][column] = per_parameter(cells[name]) or None
    fig.add_heatmap(
        z=[[None if value is None else math.log10(value) for value in line] for line in values],
        customdata=values,
        x=layout.columns,
        y=layout.rows,
        colorscale=PHI_SCALE,
        colorbar={"title": {"text": "log₁₀ of<br>‖G‖ per<br>parameter"}, "thickness": 10, "outlinewidth": 0},
        xgap=2,
        ygap=2,
        hoverongaps=False,
        hovertemplate="%{y} · %{x}<br>‖G‖_F / √(d_out · d_in) = %{customdata:.3g}<extra></extra>",
    )
    fig.update_layout(height=110 + 24 * len(layout.rows))
    return fig.update_yaxes(autorange="reversed", showgrid=False, type="category").update_xaxes(type="category")


def base_gradient_spectra(matrices: Sequence[WeightGradient]) -> go.Figure:
    """σᵢ of ∂L/∂W as a share of σ₁ on log scales, of the first six matrices. What rounding made of zeros is left out."""
    fig = figure(x="direction i, strongest first", y="σᵢ / σ₁ of ∂L/∂W")
    shown = [one for one in matrices if one.frobenius > 0][:_MOST_LINES]
    if not shown:
        return nothing_yet(fig, "The gradient is zero: it has no direction.")
    for place, one in enumerate(shown):
        first = one.singular_values[0]
        fig.add_scatter(
            x=list(range(1, len(one.singular_values) + 1)),
            y=[value / first if value > ROUNDING * first else None for value in one.singular_values],
            name=label_of(one.name),
            mode="lines",
            line={"color": rank_colour(2 ** (_MOST_LINES - place)), "width": 1.8},
            hovertemplate=f"{one.name}<br>σ%{{x}} / σ₁ = %{{y:.3g}}<extra></extra>",
        )
    fig.add_vline(shown[0].r, line={"color": rank_colour(shown[0].r), "dash": "dot", "width": 1})
    return fig.update_yaxes(type="log", exponentformat="power").update_xaxes(type="log")


# Words


def gradient_table(advice: GradientAdvice) -> tuple[list[str], list[list[str]]]:
    """The titles, and a row a matrix: how large its gradient is, and how much rank it asks for; empty where it is zero."""
    head = ["matrix", "shape", "‖G‖ per parameter", "stable rank", f"share in r = {advice.r}", f"r for {percent(advice.share, 0)}"]
    rows = [
        [
            one.name,
            f"{one.shape[0]} × {one.shape[1]}",
            f"{one.per_parameter:.3g}",
            "" if one.stable_rank is None else f"{one.stable_rank:.2f}",
            "" if one.share_in_r is None else f"{one.share_in_r:.3f}",
            "" if one.rank_for_share is None else str(one.rank_for_share),
        ]
        for one in advice.matrices
    ]
    return head, rows


def base_gradient_caption(advice: GradientAdvice) -> str:
    """Where the gradient per parameter is largest and least, how many directions it takes, and what it comes through."""
    there = [one for one in advice.matrices if one.per_parameter > 0 and one.share_in_r is not None]
    if not there:
        return "The loss depends on no matrix here."
    first, last = there[0], there[-1]
    largest = f"Per parameter the gradient is largest in {label_of(first.name)} ({first.per_parameter:.2g})"
    times = f", {first.per_parameter / last.per_parameter:.3g} times that of {label_of(last.name)}" if last is not first else ""
    shares = [one.share_in_r for one in there if one.share_in_r is not None]
    followed = f"an update of rank {advice.r} can follow {_span(shares)} of it, matrix by matrix"
    ranks = sorted(one.rank_for_share for one in there if one.rank_for_share is not None)
    span = f"ranks {ranks[0]} to {ranks[-1]}" if ranks and ranks[0] < ranks[-1] else f"rank {ranks[0]}" if ranks else ""
    wanted = f"; {100 * advice.share:g} % takes {span}" if len(ranks) == len(there) else ""
    head = " It comes through a head that has learned nothing yet: another seed draws another." if advice.untrained_head else ""
    return f"{largest}{times}; {followed}{wanted}.{head}"


def _span(shares: Sequence[float]) -> str:
    low, high = (f"{100 * share:.0f} %" for share in (min(shares), max(shares)))
    return low if low == high else f"{low} to {high}"


def learned_beside_caption(record: LearnedBeside, *, run: str) -> str:
    """In how many matrices the gradient had the leading directions of ΔW already, on both sides, beside chance."""
    if not record.overlaps:
        return f"{run[0].upper()}{run[1:]} changed no matrix that the base has a gradient of."
    sides = _side_text(record.told("in"), "input"), _side_text(record.told("out"), "output")
    cosines = [one.descent_cosine for one in record.overlaps if one.descent_cosine is not None]
    cosine = f"; the cosine of ΔW with a step straight down is {mean(cosines):.2f} in the mean" if cosines else ""
    told = f"the gradient had {' and '.join(filter(None, sides))}" if any(sides) else "no overlap can tell anything"
    changed = f"{len(record.overlaps)} matrices" if len(record.overlaps) > 1 else "one matrix"
    return f"Of the {changed} that {run} changed, {told}{cosine}."


def _side_text(overlaps: Sequence[LeadingOverlap], name: str) -> str:
    if not overlaps:
        return ""
    above = sum(one.is_above_chance for one in overlaps)
    phi, chance = (mean(getattr(one, what) for one in overlaps) for what in ("phi", "chance"))
    return f"leading {name} directions of ΔW in {above} (φ {phi:.2f} in the mean, chance {chance:.3f})"


def tried_advice_caption(record: TriedAdvice | None) -> str:
    """Whether the targets that the gradient puts first are those that scored best at equal budget."""
    if record is None:
        return "There are no runs with two choices of targets at one budget to hold that against."
    best = record.best
    metric = record.metric
    cost = f"At {record.adapter_params:,} parameters {best.targets} scores best of {len(record.choices)} choices of targets"
    seeds = f"over {best.seeds} {'seed' if best.seeds == 1 else 'seeds'}"
    spread = "" if best.sd is None else f" ± {metric.text(best.sd)}"
    verdicts = " ".join(_advised(record, by) for by in ("per_parameter", "in_reach"))
    return f"{cost}, {metric.text(best.mean)}{spread} {seeds}. {verdicts}"


def _advised(record: TriedAdvice, by: By) -> str:
    advised, (alike, pairs) = record.advised(by), record.pairs_alike(by)
    begin = f"By the gradient {_BY[by]}"
    orders = f"that orders {alike} of {pairs} {'pair' if pairs == 1 else 'pairs'} of choices as the scores do"
    if record.verdict(by) == "agrees":
        return f"{begin} it comes first too; {orders}."
    first = f"{advised.targets} comes first, which scores {record.metric.text(advised.mean)}"
    return f"{begin} {first}: {_TOLD[advised.is_told_from_best]}; {orders}."
