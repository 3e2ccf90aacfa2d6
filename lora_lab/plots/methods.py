"""The method bench drawn: what is paid for what is had, and which learning rate was best."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import plotly.graph_objects as go

from lora_lab.analysis.method_records import MethodRow, MethodTable, front, mean_of, sd_of
from lora_lab.metrics import Metric
from lora_lab.plots.method_captions import budget_label
from lora_lab.plots.metric_axes import hover_text, tick_format
from lora_lab.plots.theme import TEXT, figure, nothing_yet, run_colour
from lora_lab.specs import METHODS
from lora_lab.units import count, file_size

KEPT = {
    "accuracy": "accuracy left on the old task",
    "cosine": "cosine to the base's embeddings",
    "loss": "loss on the fixed text (nats)",
}
_FRONT = "best for the price"
Number = int | float


def _count(value: Number) -> str:
    return count(round(value))


def _size(value: Number) -> str:
    return file_size(round(value))


def _rate(value: Number) -> str:
    return f"{value:g}"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the table as an axis; `more_is_better` is None where neither is."""

    label: str
    value: Callable[[MethodRow], Number | None]
    spread: Callable[[MethodRow], Number | None] = lambda row: None
    log: bool = False
    more_is_better: bool | None = False
    tick_format: str = ""
    text: Callable[[Number], str] = str

    @property
    def sign(self) -> int | None:
        """1 where more is better, -1 where less is, None where neither."""
        return None if self.more_is_better is None else 1 if self.more_is_better else -1


COLUMNS: dict[str, Column] = {
    "score": Column("score (test split)", lambda row: row.mean, lambda row: row.sd, more_is_better=True),
    "trainable_params": Column("trainable parameters", lambda row: row.trainable_params, log=True, text=_count),
    "adapter_params": Column("trainable parameters, head left out", lambda row: row.adapter_params or None, log=True, text=_count),
    "file_bytes": Column("adapter file", lambda row: row.file_bytes, log=True, text=_size),
    "step_s": Column("seconds a step", lambda row: row.step_s),
    "memory_bytes": Column("peak memory, predicted", lambda row: row.memory_bytes, log=True, text=_size),
    "measured_bytes": Column("peak memory, measured", lambda row: row.measured_bytes, log=True, text=_size),
    "after": Column("what it still can", lambda r: mean_of(r.after), lambda r: sd_of(r.after), more_is_better=True),
    "learning_rate": Column("learning rate, chosen", lambda row: row.learning_rate, log=True, more_is_better=None, text=_rate),
}


def column(table: MethodTable, name: str) -> Column:
    """The column as this bench has it: its metric's name, direction and unit, and what its forgetting is measured by."""
    found, kept = COLUMNS[name], next((row.kept for row in table.rows if row.kept), None)
    if name == "score":
        label = f"{table.metric.label} (test split)"
        return replace(found, label=label, more_is_better=table.metric.higher_is_better, tick_format=tick_format(table.metric))
    if name == "after" and kept:
        ticks = ".0%" if kept == "accuracy" else ""
        return replace(found, label=KEPT[kept], more_is_better=kept != "loss", tick_format=ticks)
    return found


def pareto(table: MethodTable, *, x: str = "trainable_params", y: str = "score") -> go.Figure:
    """Two columns against each other: a point a row, a curve a method, and the rows that no other beats on both.

    A row that lacks one of the two is left out. Bars are the standard deviation over seeds. Filled points are the budgets that
    the validation split chose.
    """
    across, up = column(table, x), column(table, y)
    fig = figure(x=across.label, y=up.label, height_px=420)
    for method in dict.fromkeys(row.method for row in table.rows):
        rows = [row for row in table.of(method) if across.value(row) is not None and up.value(row) is not None]
        if rows:
            _curve_of(fig, rows, across, up, table)
    if not fig.data:
        return nothing_yet(fig, f"No row has both {across.label} and {up.label}.")
    _axes(fig, across, up, table)
    _front(fig, table, across, up)
    return fig.update_layout(hovermode="closest")


def _axes(fig: go.Figure, across: Column, up: Column, table: MethodTable) -> None:
    for update, axis in ((fig.update_xaxes, across), (fig.update_yaxes, up)):
        if axis.log:
            known = [value for row in table.rows if (value := axis.value(row)) is not None]
            update(**log_ticks(known, axis.text))
        if axis.tick_format:
            update(tickformat=axis.tick_format)


def log_ticks(values: Sequence[Number], text: Callable[[Number], str]) -> dict[str, Any]:
    """A logarithmic axis with ticks at 1, 2 and 5 times the powers of ten that the values span; over more than two powers, at 1.

    >>> log_ticks([3, 40], str)["ticktext"]
    ['2', '5', '10', '20', '50']
    """
    low, high = min(values), max(values)
    powers = range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 1)
    steps = (1, 2, 5) if high <= 100 * low else (1,)
    ticks = [step * 10**power if power >= 0 else step / 10**-power for power in powers for step in steps]
    near = [tick for tick in ticks if low / 2.5 <= tick <= high * 2.5]
    return {"type": "log", "tickmode": "array", "tickvals": near, "ticktext": [text(tick) for tick in near]}


def _curve_of(fig: go.Figure, rows: list[MethodRow], across: Column, up: Column, table: MethodTable) -> None:
    rows = sorted(rows, key=lambda row: row.trainable_params)
    chosen = {row.name for row in table.chosen()}
    shades = [run_colour(row.method, row.r or 1) for row in rows]
    fig.add_scatter(
        x=[across.value(row) for row in rows],
        y=[up.value(row) for row in rows],
        error_x=_bars([across.spread(row) for row in rows], run_colour(rows[0].method, 8)),
        error_y=_bars([up.spread(row) for row in rows], run_colour(rows[0].method, 8)),
        name=METHODS[rows[0].method].label,
        mode="lines+markers",
        line={"color": run_colour(rows[0].method, 8), "width": 1.3},
        marker={
            "color": shades,
            "line": {"width": 2},
            "size": [11 if row.name in chosen else 8 for row in rows],
            "symbol": ["circle" if row.name in chosen else "circle-open" for row in rows],
        },
        customdata=[budget_label(row) for row in rows],
        hovertemplate="%{customdata}<br>" + f"{across.label} %{{x}}<br>{up.label} %{{y}}<extra></extra>",
    )


def _bars(spreads: list[Number | None], colour: str) -> dict[str, object]:
    if not any(spreads):
        return {"visible": False}
    return {"type": "data", "array": spreads, "thickness": 1, "width": 3, "color": colour}


def _front(fig: go.Figure, table: MethodTable, across: Column, up: Column) -> None:
    """The rows that no other beats on both columns, where both have a better end."""
    if across.sign is None or up.sign is None or across.label == up.label:
        return
    both = [(across.value(row), up.value(row)) for row in table.rows]
    points = front([(x, y) for x, y in both if x is not None and y is not None], x_sign=across.sign, y_sign=up.sign)
    line = {"color": TEXT, "dash": "dot", "width": 1.2, "shape": "hv" if across.sign < 0 else "vh"}
    x, y = ([point[i] for point in points] for i in (0, 1))
    fig.add_scatter(x=x, y=y, name=_FRONT, mode="lines", line=line, hoverinfo="skip")


def rate_curves(table: MethodTable) -> go.Figure:
    """The mean validation score at every learning rate tried: a line a row, the chosen rate a filled point.

    Each method's chosen budget has a name in the legend; its other budgets stand behind, pale. A rate at which a seed
    diverged is a gap.
    """
    metric = table.metric
    fig = figure(x="learning rate", y=f"{metric.label} (validation split)", height_px=360)
    fig.update_xaxes(**log_ticks([rate.learning_rate for row in table.rows for rate in row.rates] or [1.0], _rate))
    named = {row.name for row in table.chosen()}
    for row in sorted(table.rows, key=lambda row: row.name in named):
        if any(rate.validation is not None for rate in row.rates):
            _rate_curve(fig, row, metric, is_named=row.name in named)
    if not fig.data:
        return nothing_yet(fig, "The first rate that every seed has tried is the first point.")
    return fig.update_yaxes(tickformat=tick_format(metric)) if tick_format(metric) else fig


def _rate_curve(fig: go.Figure, row: MethodRow, metric: Metric, *, is_named: bool) -> None:
    rates = [rate.learning_rate for rate in row.rates]
    fig.add_scatter(
        x=rates,
        y=[rate.validation for rate in row.rates],
        name=METHODS[row.method].label,
        legendgroup=row.method,
        showlegend=is_named,
        opacity=1.0 if is_named else 0.3,
        mode="lines+markers",
        connectgaps=False,
        line={"color": run_colour(row.method, row.r or 8), "width": 1.6 if is_named else 1.0},
        marker={
            "size": [9 if rate == row.learning_rate else 5 for rate in rates],
            "symbol": ["circle" if rate == row.learning_rate else "circle-open" for rate in rates],
        },
        hovertemplate=f"{budget_label(row)}, rate %{{x:g}}: {hover_text(metric)}<extra></extra>",
    )
