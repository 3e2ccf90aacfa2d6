"""Which model takes which method: each cell of the matrix tried whole on a tiny random model, on the CPU."""

from lora_lab.support.claims import CLOSE, INT8_ROUNDING, Cell, check_cell
from lora_lab.support.rows import ROWS, Row
from lora_lab.support.table import SUPPORT_JSON, SUPPORT_MD, as_json, as_markdown, support_table

__all__ = [
    "CLOSE",
    "INT8_ROUNDING",
    "ROWS",
    "SUPPORT_JSON",
    "SUPPORT_MD",
    "Cell",
    "Row",
    "as_json",
    "as_markdown",
    "check_cell",
    "support_table",
]
