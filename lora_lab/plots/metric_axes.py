"""How a figure writes the values of a metric: shares in percent, other numbers as they are."""

import plotly.graph_objects as go

from lora_lab.metrics import Metric


def tick_format(metric: Metric, *, other: str = "") -> str:
    """The format of an axis's ticks; `other` where it is no share."""
    return ".0%" if metric.unit == "share" else other


def hover_text(metric: Metric, axis: str = "y") -> str:
    """A value in a hover template.

    >>> from lora_lab.metrics import METRICS
    >>> hover_text(METRICS["accuracy"]), hover_text(METRICS["bleu"])
    ('%{y:.1%}', '%{y:.3g}')
    """
    return f"%{{{axis}:{'.1%' if metric.unit == 'share' else '.3g'}}}"


def score_axis(fig: go.Figure, metric: Metric) -> go.Figure:
    """The vertical axis of scores: all of 0 to 100 % for a share."""
    return fig.update_yaxes(tickformat=tick_format(metric), range=[0, 1.02]) if metric.unit == "share" else fig
