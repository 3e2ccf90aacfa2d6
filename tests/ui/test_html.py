"""Drawings and tables: to scale, escaped, with gaps where nothing was measured."""

import re

from lora_lab import find_bench
from lora_lab.analysis.records import ChainRule
from lora_lab.geometry import Matrix
from lora_lab.inference import MergeCost, MergeReport
from lora_lab.roles import role_of
from lora_lab.specs import MethodSpec, RunSpec
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
    assert re.search(r"<td>50\.0 % .*?</td><td></td>", table)


def test_every_adapted_matrix_has_a_cell_of_its_own() -> None:
    names = [
        f"{stack}.0.{part}" for stack in ("encoder.block", "decoder.block") for part in ("attn.c_attn", "mlp.c_proj", "q_proj")
    ]
    matrices = [Matrix(name, role_of(name), 0, 4, 4) for name in names]
    drawn = html.norm_map(dict.fromkeys(names, 1.0), matrices, picked=names[0])
    assert sorted(re.findall(r'data-pick="([^"]+)"', drawn)) == sorted(names)


def test_a_matrix_without_a_known_role_is_picked_by_how_its_name_ends() -> None:
    drawing = html.block_drawing([Matrix("h.0.attn.c_attn", "other", 0, 12, 4)], set(), r=1)
    assert 'data-pick="attn.c_attn"' in drawing


def test_a_method_without_rank_is_one_cell_over_all_columns() -> None:
    bitfit = RunSpec(bench="digits", base_sha256="", tuning=MethodSpec(method="bitfit"))
    lora = RunSpec(bench="digits", base_sha256="")
    rows = ((lora, (Cell(0.5, None, 1), Cell(0.6, 0.1, 2))), (bitfit, (Cell(0.7, None, 1),)))
    table = html.rank_table(RankTable((1, 2), rows, 0.1))
    assert re.search(r'<td class="wide" colspan="2">.*?70\.0 %', table)
    alone = html.rank_table(RankTable((), (rows[1],), 0.1))
    assert "<th>no rank</th>" in alone
    assert 'colspan="1"' in alone


def test_a_merge_that_there_is_not_is_said_and_no_number_stands_in() -> None:
    ways = (MergeCost("fp32", 4.2e-7, 0.5), MergeCost("int8", None))
    table = html.merge_table(MergeReport(256, "accuracy", 0.5, ways, None))
    assert "<td>0.000042 %</td><td>50.0 %</td>" in table
    assert "<td>merged back into int8 as PEFT does</td><td>not to be had</td><td></td>" in table


def test_the_chain_rule_stands_with_its_shapes_and_norms() -> None:
    record = ChainRule("layers.3.v_proj", 64, 32, 4, 2.0, 1.0, 1.0, 0.0, 3.0, 0.0, 5.0, 0.0, 1e-7)
    text = re.sub("<[^>]+>", "", html.chain_rule_table([("before the first step", record)]))
    assert "∂L/∂B (64 × 4) = s · G (64 × 32) · Aᵀ (32 × 4)5" in text
    assert "∂L/∂A (4 × 32) = s · Bᵀ (4 × 64) · G (64 × 32)0" in text
    assert "layer 3 · v, s = 2" in text
