"""How the score depends on the rank, as a table of HTML."""

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from lora_lab.metrics import Metric
from lora_lab.plots.labels import r_meaning, row_label
from lora_lab.plots.theme import run_colour
from lora_lab.specs import RunSpec

if TYPE_CHECKING:
    from lora_lab.sweeps.summary import Cell, RankTable  # its package loads torch, which a table does not need


def rank_table_html(table: "RankTable") -> str:
    """Mean score ± sd over seeds, a row a configuration, a column a rank; the gap where nothing was measured.

    A method without rank has one cell over all columns.
    """
    if not any(cell for _, cells in table.rows for cell in cells):
        return '<div class="lab-s">The first run that ends is the first cell of this table.</div>'
    head = "".join(f"<th>r {r}</th>" for r in table.ranks) or "<th>no rank</th>"
    body = "".join(_rank_row(spec, cells, table) for spec, cells in table.rows)
    return f'<div class="lab-wide"><table class="lab-table" id="rank-table"><tr><th>adapter</th>{head}</tr>{body}</table></div>'


def _rank_row(spec: RunSpec, cells: "Sequence[Cell | None]", table: "RankTable") -> str:
    name, *details = [*row_label(spec, alpha_by_rank=table.alpha_by_rank).split(" · "), *filter(None, [r_meaning(spec)])]
    swatch = f'<i class="lab-swatch" style="background:{run_colour(spec.tuning.method, 8)}"></i>'
    label = f"<td>{swatch}<b>{escape(name)}</b> <small>{escape(' · '.join(details))}</small></td>"
    if spec.tuning.has_r:
        return f"<tr>{label}{''.join(f'<td>{_cell_text(cell, table.metric)}</td>' for cell in cells)}</tr>"
    no_rank = "<small>without a rank:</small> " if table.ranks else ""
    return (
        f'<tr>{label}<td class="wide" colspan="{max(len(table.ranks), 1)}">{no_rank}{_cell_text(cells[0], table.metric)}</td></tr>'
    )


def _cell_text(cell: "Cell | None", metric: Metric) -> str:
    if cell is None:
        return ""
    spread = f" ± {metric.text(cell.sd)}" if cell.sd is not None else ""
    return f'{metric.text(cell.mean)}{spread} <small title="seeds">({cell.seeds})</small>'
