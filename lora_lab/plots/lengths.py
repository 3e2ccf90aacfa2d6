"""How long the rows of a text task are, and what is said of them."""

from itertools import pairwise
from typing import TYPE_CHECKING

import plotly.graph_objects as go

from lora_lab.metrics import METRICS
from lora_lab.plots.theme import TEXT, figure

if TYPE_CHECKING:
    from lora_lab.benches.preview import Preview  # its package loads torch, which a plot does not need

_MOST_LABELS = 20
_CUT = {
    "classification": "what comes after is not read",
    "regression": "what comes after is not read",
    "completion": "the beginning of the prompt is not read",
    "text": "the rest is a row of its own",
}


def lengths(seen: "Preview") -> go.Figure:
    """Training rows by their length in tokens; a line where a row is cut, or an arrow to it where no row comes near."""
    whole = seen.counted_rows == seen.train_rows
    rows = "training rows" if whole else f"of the first {seen.counted_rows:,} training rows"
    fig = figure(x="tokens a row", y=rows, height_px=260)
    fig.add_bar(
        x=[(low + high) / 2 for low, high in pairwise(seen.edges_tokens)],
        y=list(seen.bin_counts),
        width=seen.edges_tokens[1],
        customdata=[f"{low} to {high - 1}" for low, high in pairwise(seen.edges_tokens)],
        marker={"color": TEXT, "opacity": 0.65, "line": {"width": 0}},
        hovertemplate="%{customdata} tokens: %{y:,} rows<extra></extra>",
    )
    fig.update_layout(showlegend=False, margin_t=26)
    return _limit(fig, seen.max_tokens, end=seen.edges_tokens[-1])


def _limit(fig: go.Figure, limit: int, *, end: int) -> go.Figure:
    near = limit <= 2 * end
    said = {"text": f"cut at {limit:,} tokens{'' if near else ' →'}", "font": {"size": 11}, "showarrow": False}
    place = {"xref": "x", "x": limit} if near else {"xref": "paper", "x": 1}
    fig.add_annotation(**said, **place, yref="paper", y=1, xanchor="right", yanchor="bottom")
    if near:
        fig.add_vline(limit, line={"color": TEXT, "dash": "dash", "width": 1})
    return fig.update_xaxes(range=[0, max(end, 1.04 * limit) if near else end])


def lengths_caption(seen: "Preview") -> str:
    """Mean, longest, and how many rows are too long, and what becomes of those."""
    whole = seen.counted_rows == seen.train_rows
    which = "Training rows" if whole else f"The first {seen.counted_rows:,} training rows"
    have = f"have {seen.mean_tokens:.1f} tokens on average, {seen.longest_tokens:,} at most"
    said = f"{which} {have}; a row is cut at {seen.max_tokens:,}"
    if not seen.cut_rows:
        return f"{said}, and none is longer."
    longer = f"{seen.cut_rows:,} of {seen.counted_rows:,} {'is' if seen.cut_rows == 1 else 'are'} longer"
    return f"{said}: {longer}, and {_CUT[seen.task]}."


def rows_sentence(seen: "Preview") -> str:
    """What the rows are, how many there are, and what a run on them is scored by."""
    labels = f" of {len(seen.label_counts)} labels" if seen.label_counts else ""
    task = {"text": "Plain text", "completion": "Completions"}.get(seen.task, seen.task.capitalize())
    scored = f"scored by {METRICS[seen.metric].label}" if seen.metric else "scored by the loss alone"
    sizes = f"{seen.train_rows:,} rows to train on, {seen.validation_rows:,} to validate, {seen.test_rows:,} to test"
    return f"{task}{labels}: {sizes}; {scored}."


def labels_sentence(seen: "Preview") -> str:
    """Training rows a label, the first few of many; nothing where there are no labels."""
    if not seen.label_counts:
        return ""
    told = [f"{label} {n:,}" for label, n in seen.label_counts[:_MOST_LABELS]]
    rest = len(seen.label_counts) - len(told)
    return f"Training rows a label: {', '.join(told)}{f', and {rest} labels more' if rest else ''}."


def shortened(text: str, most: int) -> str:
    """A text on one line, words of its middle left out where it is long: of a prompt the end says what is asked.

    >>> shortened("What is the highest\\nprice?", 50), shortened("one two three four five", 16)
    ('What is the highest price?', 'one … five')
    """
    line = " ".join(text.split())
    half = max(1, (most - 3) // 2)
    if len(line) <= most:
        return line
    head, tail = line[: half + 1].rpartition(" ")[0], line[-half - 1 :].partition(" ")[2]
    return f"{head or line[:half]} … {tail or line[-half:]}"
