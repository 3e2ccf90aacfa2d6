"""The method bench as HTML: the table in order, and every budget behind it."""

from collections.abc import Iterable
from html import escape

from lora_lab.analysis.method_records import Comparison, MethodRow, MethodTable
from lora_lab.plots import run_colour
from lora_lab.plots.method_captions import budget_label, kept_text, memory_text, rate_text, score_text
from lora_lab.plots.methods import KEPT
from lora_lab.specs import METHODS
from lora_lab.units import count, file_size


def methods_table(table: MethodTable, comparison: Comparison) -> str:
    """A row a method at its chosen budget, best mean first, with the places left open to it; every budget folded below."""
    if not table.rows:
        return '<div class="lab-s">A method has its row when every seed has run at one of its learning rates.</div>'
    ordered = _table("method-table", ((placed.text, placed.row) for placed in comparison.order), table)
    if len(table.rows) == len(comparison.order):
        return ordered
    every = _table("budget-table", ((comparison.place(row), row) for row in table.rows), table)
    return f'{ordered}<details class="lab-terms"><summary>Every budget, each at its own best rate</summary>{every}</details>'


def _table(name: str, rows: Iterable[tuple[str, MethodRow]], table: MethodTable) -> str:
    shown = list(rows)
    kept = next((KEPT[row.kept] for row in table.rows if row.kept), "")
    has_head = any(row.head_params for _, row in shown)
    heads = [
        "place",
        "method",
        f"{table.metric.label}, test",
        "adapter params",
        *(["head params"] if has_head else []),
        "file",
        "s/step",
    ]
    heads += ["memory", *([kept] if kept else []), "rate"]
    head = "".join(f"<th>{escape(title)}</th>" for title in heads)
    body = "".join(_row(place, row, table, has_head=has_head, has_kept=bool(kept)) for place, row in shown)
    return f'<div class="lab-wide"><table class="lab-table lab-methods" id="{name}"><tr>{head}</tr>{body}</table></div>'


def _row(place: str, row: MethodRow, table: MethodTable, *, has_head: bool, has_kept: bool) -> str:
    swatch = f'<i class="lab-swatch" style="background:{run_colour(row.method, 8)}"></i>'
    cells = [
        score_text(row, table.metric),
        count(row.adapter_params),
        *([count(row.head_params)] if has_head else []),
        file_size(row.file_bytes) if row.file_bytes is not None else "",
        f"{row.step_s:.3g}" if row.step_s is not None else "",
        memory_text(row),
        *([kept_text(row)] if has_kept else []),
        rate_text(row),
    ]
    tried = "tried " + ", ".join(f"{rate.learning_rate:g}" for rate in row.rates)
    told = "".join(f"<td>{escape(text)}</td>" for text in cells[:-1]) + f'<td title="{tried}">{escape(cells[-1])}</td>'
    return f'<tr><td class="lab-place">{place}</td><td>{swatch}<b>{escape(budget_label(row))}</b></td>{told}</tr>'


def methods_legend(table: MethodTable) -> str:
    """A swatch a method: the plots of many methods have no room for a legend of their own."""
    methods = dict.fromkeys(row.method for row in table.rows)
    items = (f'<span><i style="background:{run_colour(m, 8)}"></i>{escape(METHODS[m].label)}</span>' for m in methods)
    return f'<div class="lab-legend">{"".join(items)}</div>' if methods else ""
