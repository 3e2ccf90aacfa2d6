"""The paper's figures: ours are computed and never bent, and what the paper prints is read as it stands."""

import json
import re
from typing import Any

import pytest

from lora_lab.budget import find_model, ranks_for_params
from lora_lab.budget import paper as module
from lora_lab.budget.paper import PAPER_JSON, Figure, paper_figures, table_1, table_5, table_6, table_7
from lora_lab.units import difference

LAYERS, D = 96, 12288  # GPT-3
GPT3_PARAMS = 174_604_259_328
BUDGET = 18_874_368
FIGURES = {figure.name: figure for figure in paper_figures()}
RECORDS: list[dict[str, Any]] = json.loads(PAPER_JSON.read_text(encoding="utf-8"))["figures"]


def adapters(n: int, d: int, r: int, *, layer_norms: int = 0) -> int:
    """The paper's |Θ| of adapters."""
    return n * (2 * d * r + r + d) + 2 * layer_norms * d


def lora(matrices: int, d: int, r: int) -> int:
    """The paper's |Θ| of LoRA on square matrices."""
    return 2 * matrices * d * r


BY_HAND = {
    "RoBERTa base, LoRA": lora(2 * 12, 768, 8),
    "RoBERTa large, LoRA": lora(2 * 24, 1024, 8),
    "DeBERTa XXL, LoRA": lora(2 * 48, 1536, 16),
    "GPT-2 M, LoRA": lora(2 * 24, 1024, 4),
    "GPT-2 L, LoRA": lora(2 * 36, 1280, 4),
    "GPT-2 M, Adapter^L of 0.37M": adapters(24, 1024, 6, layer_norms=24),
    "GPT-2 M, Adapter^L of 11.09M": adapters(24, 1024, 224, layer_norms=24),
    "GPT-2 L, Adapter^L of 0.88M": adapters(36, 1280, 8, layer_norms=36),
    "GPT-2 L, Adapter^L of 23.00M": adapters(36, 1280, 248, layer_norms=36),
    "GPT-2 M, FT^Top2": 2 * (12 * 1024**2 + 13 * 1024),
    "GPT-2 L, fine-tuning": 774_030_080,
    "GPT-3, fine-tuning": GPT3_PARAMS,
    "GPT-3, BitFit": LAYERS * 11 * D + D,
    "GPT-3, the budget of Table 5": BUDGET,
    "GPT-3, PrefixEmbed, l_p = 512, l_i = 8": 520 * D,
    "GPT-3, PrefixLayer, l_p = 32, l_i = 4": LAYERS * D * 36,
    "GPT-3, Adapter^H, r = 64": adapters(2 * LAYERS, D, 64),
    "GPT-3, LoRA, r_v = 2": lora(LAYERS, D, 2),
    "GPT-3, LoRA, r_q = r_v = 64": lora(2 * LAYERS, D, 64),
    "GPT-3, LoRA, r_q = r_k = r_v = r_o = 64": lora(4 * LAYERS, D, 64),
    "GPT-3, LoRA + PrefixEmbed, r_q = r_v = 32, l_p = 8, l_i = 4": lora(2 * LAYERS, D, 32) + 12 * D,
    "GPT-3, LoRA + PrefixLayer, r_q = r_v = 8, l_p = 8, l_i = 4": lora(2 * LAYERS, D, 8) + LAYERS * D * 12,
    "GPT-3, memory of full fine-tuning": 8 * GPT3_PARAMS,
    "GPT-3, memory with LoRA": 2 * GPT3_PARAMS,
    "GPT-3, memory that LoRA saves": 3 / 4,
    "GPT-3, checkpoint": 2 * GPT3_PARAMS,
    "GPT-3, LoRA's checkpoint": 2 * BUDGET,
    "GPT-3, checkpoint against LoRA's": GPT3_PARAMS / BUDGET,
    "GPT-3, 100 tasks as 100 models": 100 * 2 * GPT3_PARAMS,
    "GPT-3, 100 tasks as 100 adapters": 2 * GPT3_PARAMS + 100 * 2 * BUDGET,
}


@pytest.mark.parametrize(("name", "expected"), BY_HAND.items(), ids=BY_HAND)
def test_ours_is_what_the_shapes_give_by_hand(name: str, expected: float) -> None:
    assert FIGURES[name].ours == expected


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record["name"])
def test_ours_does_not_follow_what_is_printed(record: dict[str, Any]) -> None:
    other = module._figure({**record, "printed": "1.0M"})
    assert other.ours == FIGURES[record["name"]].ours
    assert other.paper == 10**6


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("175,255.8M", 175_255_800_000),
        ("0.35M", 350_000),
        ("35MB", 35_000_000),
        ("1.2TB", 1_200_000_000_000),
        ("10,000x", 10_000),
        ("2/3", 2 / 3),
    ],
)
def test_what_is_printed_is_read_as_it_stands(text: str, value: float) -> None:
    figure = Figure("", "", text, 1, "parameters", "")
    assert figure.paper == pytest.approx(value, rel=1e-15)
    assert figure.gap == pytest.approx((1 - value) / value, rel=1e-12)


@pytest.mark.parametrize("figure", paper_figures(), ids=lambda figure: figure.name)
def test_the_gap_leads_from_the_papers_to_ours(figure: Figure) -> None:
    assert figure.paper * (1 + figure.gap) == pytest.approx(figure.ours, rel=1e-12)


def test_the_same_digits_are_the_printed_ones_rounded_or_cut() -> None:
    for printed, ours, same in (("18.8M", 18_874_368, True), ("18.9M", 18_874_368, True), ("18.7M", 18_874_368, False)):
        assert Figure("", "", printed, ours, "parameters", "").is_as_printed is same


@pytest.mark.parametrize(
    "name",
    ["GPT-2 M, LoRA", "GPT-2 L, LoRA", "GPT-3, fine-tuning", "GPT-3, PreLayer", "GPT-3, memory of full fine-tuning"],
)
def test_a_figure_that_does_not_follow_from_the_papers_formula_keeps_its_gap(name: str) -> None:
    assert not FIGURES[name].is_as_printed


def test_every_square_lora_count_of_gpt3_but_one_has_the_printed_digits() -> None:
    counts = [figure for name, figure in FIGURES.items() if name.startswith("GPT-3, LoRA, ")]
    assert len(counts) == 10
    assert [f.name for f in counts if not f.is_as_printed] == ["GPT-3, LoRA, r_q = r_k = r_v = r_o = 64"]


def test_every_figure_has_a_name_of_its_own_and_says_where_it_is_from_and_what_it_assumes() -> None:
    assert len(FIGURES) == len(RECORDS)
    for figure in paper_figures():
        assert re.fullmatch(r"(Table \d|section 4\.2|appendix).*", figure.source)
        assert re.fullmatch(r"[^\n]+\.", figure.assumes)
        assert ". " not in figure.assumes


# Tables 5 and 6


def test_the_ranks_of_table_5_are_those_that_its_budget_buys() -> None:
    rows = {row.targets: row.r for row in table_5()}
    assert ranks_for_params(find_model("gpt3-175b").geometry, BUDGET, rows) == rows


def test_every_row_of_table_5_trains_the_same_number() -> None:
    assert {lora(len(row.targets) * LAYERS, D, row.r) for row in table_5()} == {BUDGET}


def test_table_5_reads_as_printed() -> None:
    assert [row.wikisql for row in table_5()] == [0.704, 0.700, 0.730, 0.732, 0.714, 0.737, 0.737]
    assert [row.multinli for row in table_5()] == [0.910, 0.908, 0.910, 0.913, 0.913, 0.913, 0.917]


def test_table_6_has_five_ranks_for_each_choice_and_shares_runs_with_table_5() -> None:
    by_choice: dict[tuple[str, ...], list[int]] = {}
    for row in table_6():
        by_choice.setdefault(row.targets, []).append(row.r)
    assert list(by_choice) == [("q",), ("q", "v"), ("q", "k", "v", "o")]
    assert set(map(tuple, by_choice.values())) == {(1, 2, 4, 8, 64)}
    assert {row for row in table_5() if len(row.targets) > 1} & set(table_6()) == {
        row for row in table_5() if row.targets in (("q", "v"), ("q", "k", "v", "o"))
    }


# Table 1


def test_table_1_reads_as_printed() -> None:
    printed = {(32, 512): ("+2.2 %", "+3.0 %"), (16, 256): ("+5.0 %", "+8.4 %"), (1, 128): ("+20.7 %", "+30.3 %")}
    found = {(one.batch, one.tokens): one for one in table_1()}
    assert found.keys() == printed.keys()
    for shape, ratios in printed.items():
        one = found[shape]
        assert tuple(difference(one.ratio(name) - 1) for name in ("adapter_pfeiffer", "adapter")) == ratios
        assert one.ratio("base") == 1
    assert [one.seconds["base"] for one in table_1()] == [
        pytest.approx(pair) for pair in ((1.4494, 0.0008), (0.338, 0.0006), (0.0198, 0.0027))
    ]


def test_table_7_says_what_section_7_3_reads_from_it() -> None:
    small, large = table_7()
    assert (small.r, large.r) == (4, 64)
    assert small.factor == pytest.approx(21.5, abs=0.15)  # 6.91 / 0.32 in the paper's text
    assert large.factor == pytest.approx(1.9, abs=0.05)
    for one in (small, large):
        assert one.on_random < one.on_delta < one.on_base < one.base_frobenius
        assert one.on_random == pytest.approx(one.r * one.base_frobenius / D, abs=0.02)
