"""A map of every adapted matrix as HTML: each cell is a button that carries its number."""

from collections.abc import Mapping
from html import escape

from lora_lab.plots.matrix_layout import matrix_layout
from lora_lab.plots.measures import Measure
from lora_lab.plots.theme import PALETTE


def matrix_map(values: Mapping[str, int | float | None], measure: Measure, *, picked: str) -> str:
    """A measure of every adapted matrix, layers down and roles across; each cell is a button, empty where there is no value."""
    layout = matrix_layout(list(values))
    most = float(max([measure.scale, *(value for value in values.values() if value is not None)])) or 1.0
    at = {place: name for name, place in layout.places.items()}
    head = "".join(f"<th>{escape(column)}</th>" for column in layout.columns)
    body = ""
    for i, row in enumerate(layout.rows):
        cells = "".join(_map_cell(at.get((i, j)), values, most, measure, picked) for j in range(len(layout.columns)))
        body += f"<tr><th>{escape(row)}</th>{cells}</tr>"
    return f'<div class="lab-wide"><table class="lab-map"><tr><th></th>{head}</tr>{body}</table></div>'


def _map_cell(name: str | None, values: Mapping[str, int | float | None], most: float, measure: Measure, picked: str) -> str:
    if name is None:
        return "<td></td>"
    value = values[name]
    share = 0.0 if value is None else min(max(value / most, 0.0), 1.0)
    colour = f"background:color-mix(in srgb, {PALETTE['ΔW']} {round(12 + 80 * share)}%, transparent)"
    ink = "light" if share > 0.85 else ""
    on = " on" if name == picked else ""
    text = "" if value is None else measure.text(value)
    told = f"{name}: {'not to be had' if value is None else repr(value)}"
    return (
        f'<td><button class="lab-cell {ink}{on}" style="{colour}" data-pick="{escape(name)}"'
        f' title="{escape(told)}" aria-pressed="{str(bool(on)).lower()}">{escape(text)}</button></td>'
    )
