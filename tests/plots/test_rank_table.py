"""Scores by rank, in a table."""

import re

from lora_lab.plots.rank_table import rank_table_html
from lora_lab.specs import MethodSpec, RunSpec
from lora_lab.sweeps.summary import Cell, RankTable


def test_a_cell_that_was_not_measured_is_empty() -> None:
    table = rank_table_html(RankTable((1, 2), ((RunSpec(bench="digits", base_sha256=""), (Cell(0.5, None, 1), None)),), 0.1))
    assert re.search(r"<td>50\.0 % .*?</td><td></td>", table)


def test_a_method_without_rank_is_one_cell_over_all_columns() -> None:
    bitfit = RunSpec(bench="digits", base_sha256="", tuning=MethodSpec(method="bitfit"))
    lora = RunSpec(bench="digits", base_sha256="")
    rows = ((lora, (Cell(0.5, None, 1), Cell(0.6, 0.1, 2))), (bitfit, (Cell(0.7, None, 1),)))
    table = rank_table_html(RankTable((1, 2), rows, 0.1))
    assert re.search(r'<td class="wide" colspan="2">.*?70\.0 %', table)
    alone = rank_table_html(RankTable((), (rows[1],), 0.1))
    assert "<th>no rank</th>" in alone
    assert 'colspan="1"' in alone
