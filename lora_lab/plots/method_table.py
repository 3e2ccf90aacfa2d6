"""The method bench as a table to read: titles and texts, and nothing of how they are drawn."""

from lora_lab.analysis.method_records import Comparison, MethodRow, MethodTable
from lora_lab.plots.method_captions import budget_label, kept_text, memory_text, rate_text, score_text
from lora_lab.plots.methods import KEPT
from lora_lab.units import count, file_size


def method_rows(table: MethodTable, comparison: Comparison) -> list[dict[str, str]]:
    """A row a method at its chosen budget, best mean first, by title; an empty text where nothing was measured."""
    return [_row(placed.text, placed.row, table) for placed in comparison.order]


def _row(place: str, row: MethodRow, table: MethodTable) -> dict[str, str]:
    kept = {KEPT[row.kept]: kept_text(row)} if row.kept else {}
    return {
        "place": place,
        "method": budget_label(row),
        f"{table.metric.label}, test split": score_text(row, table.metric),
        "adapter params": count(row.adapter_params),
        "file": file_size(row.file_bytes) if row.file_bytes is not None else "",
        "memory": memory_text(row),
        **kept,
        "rate": rate_text(row),
    }
