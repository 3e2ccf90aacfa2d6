"""Drawings and tables: to scale, escaped, with gaps where nothing was measured."""

import re

from lora_lab import find_bench
from lora_lab.geometry import Matrix
from lora_lab.specs import RunSpec
from lora_lab.sweeps.summary import Cell, RankTable
from lora_lab.ui import html


def test_block_is_drawn_to_scale() -> None:
    geometry = find_bench("digits").geometry()
    drawing = html.block_drawing(geometry.block(), set(), r=4)
    sizes = [(float(w), float(h)) for w, h in re.findall(r'class="w0" [^>]*width="([\d.]+)" height="([\d.]+)"', drawing)]
    per_unit = sizes[0][0] / 64
    assert [(round(w / per_unit), round(h / per_unit)) for w, h in sizes] == [(m.d_in, m.d_out) for m in geometry.block()]


def test_only_targeted_matrices_carry_factors() -> None:
    block = find_bench("digits").geometry().block()
    chosen = {block[0].name, block[2].name}
    drawing = html.block_drawing(block, chosen, r=4)
    assert drawing.count('aria-checked="true"') == 2
    assert drawing.count(html.PALETTE["A"]) == drawing.count(html.PALETTE["B"]) == 2


def test_names_are_escaped() -> None:
    evil = "<img src=x>"
    assert "<img" not in html.norm_map({evil: 1.0}, [Matrix(evil, "other", None, 2, 2)], picked="")
    assert "<img" not in html.runs_table([(evil,)], [""])
    assert "<img" not in html.say(evil)


def test_a_cell_that_was_not_measured_is_empty() -> None:
    table = html.rank_table(RankTable((1, 2), ((RunSpec(bench="digits", base_sha256=""), (Cell(0.5, None, 1), None)),), 0.1))
    assert "<td>50.0 %</td><td></td>" in table
