"""Runs as lines over their settings: which choices the good ones have in common."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from lora_lab.metrics import Metric
from lora_lab.plots.metric_axes import tick_format
from lora_lab.plots.theme import TEXT, figure, nothing_yet, rank_colour

_NAMES = {
    "target_modules": "targets",
    "lora_alpha": "α",
    "learning_rate": "learning rate",
    "init_lora_weights": "start",
    "layers_to_transform": "layers",
    "batch_size": "batch",
    "lora_dropout": "dropout",
}


def parallel_coordinates(rows: Sequence[Mapping[str, Any]], scores: Sequence[float | None], metric: Metric) -> go.Figure:
    """A line a run through its settings to its score, coloured by that; axes are the settings in which runs differ.

    The choices on an axis stand at equal distances, numbers by size; a setting that a method has no use for is the lowest. Drag
    along an axis to see only the runs that pass there. A run without a score has no line.

    Args:
        rows: the settings of each run, by name.
        scores: one a run, on the validation split.
        metric: what they are.
    """
    scored = [(row, score) for row, score in zip(rows, scores, strict=True) if score is not None]
    fig = figure(x="", y="")
    names = [name for name in dict(rows[0]) if len({_key(row[name]) for row, _ in scored}) > 1] if scored else []
    if not names:
        return nothing_yet(fig, "Lines come when two runs that differ have a score.")
    values = [score for _, score in scored]
    axes = [_axis(_NAMES.get(name, name), [row[name] for row, _ in scored]) for name in names]
    axes.append({"label": metric.label, "values": values, "tickformat": tick_format(metric, other=".3g")})
    scale = [[0, rank_colour(1)], [1, rank_colour(64)]]
    line = {"color": values, "colorscale": scale, "reversescale": not metric.higher_is_better}
    font = {"color": TEXT, "size": 12}
    fig.add_parcoords(dimensions=axes, line=line, labelfont=font, tickfont=font, rangefont={**font, "size": 1})
    return fig.update_layout(margin={"l": 70, "r": 60, "t": 50, "b": 30})


def _axis(label: str, values: Sequence[Any]) -> dict[str, Any]:
    choices = sorted(dict.fromkeys(values), key=_key)
    return {
        "label": label,
        "values": [choices.index(value) for value in values],
        "tickvals": list(range(len(choices))),
        "ticktext": ["none" if choice is None else _text(choice) for choice in choices],
        "range": [-0.2, len(choices) - 0.8],
    }


def _key(value: Any) -> tuple[int, Any]:
    """Missing first, then numbers by size, then texts."""
    return (0, 0) if value is None else (2, value) if isinstance(value, str) else (1, value)


def _text(choice: Any) -> str:
    return choice.replace(",", ", ") if isinstance(choice, str) else f"{choice:g}"
