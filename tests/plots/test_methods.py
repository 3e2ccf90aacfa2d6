"""The method bench drawn and said, from hand-made rows."""

from dataclasses import replace

import plotly.graph_objects as go
import pytest

from lora_lab.analysis.comparison import compare
from lora_lab.analysis.method_records import MethodRow, MethodTable, RateScore, mean_of
from lora_lab.plots import method_rows, run_colour
from lora_lab.plots.method_captions import budget_label, methods_caption, plan_caption, refused_note, score_text
from lora_lab.plots.methods import COLUMNS, log_ticks, pareto, rate_curves

RATES = (RateScore(1e-3, 0.5, 1.0), RateScore(3e-3, 0.8, 0.5), RateScore(1e-2, None, None, (1,)))


def a_row(method: str, scores: tuple[float | None, ...], *, r: int | None = None, params: int = 1000, **said: object) -> MethodRow:
    defaults = {"validation": mean_of(scores), "rates": RATES, "at_edge": False, "file_bytes": 4 * params, "step_s": 0.01}
    kept = {"kept": "accuracy", "before": (0.97,) * len(scores), "after": (0.2,) * len(scores), "memory_bytes": 7_000_000}
    fixed = {"learning_rate": 3e-3, "seeds": tuple(range(len(scores))), "trainable_params": params, "head_params": 0}
    return MethodRow(method=method, r=r, scores=scores, **{**fixed, **defaults, **kept, **said})


LORA = [
    a_row("lora", (0.80, 0.81, 0.82), r=2, params=2000),
    a_row("lora", (0.86, 0.87, 0.88), r=8, params=8000),
    a_row("lora", (0.84, 0.85, 0.86), r=32, params=32_000),
]
FULL = a_row("full", (0.95, 0.955, 0.96), params=150_000)
BITFIT = a_row("bitfit", (0.40, 0.45, 0.50), params=2500)


def a_table(*rows: MethodRow, metric: str = "accuracy") -> MethodTable:
    return MethodTable("digits:inverted", metric, rows, rows[0].seeds, 249)


def said_of(*rows: MethodRow, metric: str = "accuracy") -> str:
    table = a_table(*rows, metric=metric)
    return methods_caption(table, compare(table))


def traces(fig: go.Figure) -> dict[str, go.Scatter]:
    return {trace.name: trace for trace in fig.data}


def test_a_method_is_a_curve_over_its_budgets_with_its_spread() -> None:
    drawn = traces(pareto(a_table(*LORA[::-1], FULL)))
    assert list(drawn["LoRA"].x) == [2000, 8000, 32_000]
    assert list(drawn["LoRA"].y) == pytest.approx([0.81, 0.87, 0.85])
    assert list(drawn["LoRA"].error_y.array) == pytest.approx([0.01] * 3)
    assert drawn["LoRA"].line.color == run_colour("lora", 8)
    assert list(drawn["LoRA"].marker.symbol) == ["circle-open", "circle", "circle-open"]


def test_the_front_goes_through_what_no_row_beats() -> None:
    front = traces(pareto(a_table(*LORA, FULL, BITFIT)))["best for the price"]
    assert list(front.x) == [2000, 8000, 150_000]


def test_a_column_of_which_less_is_better_turns_the_front_round() -> None:
    rows = [a_row("lora", (2.0, 2.1), params=1000), a_row("full", (1.0, 1.1), params=9000), a_row("dora", (3.0, 3.1), params=9500)]
    front = traces(pareto(a_table(*rows, metric="loss")))["best for the price"]
    assert list(front.x) == [1000, 9000]


def test_the_learning_rate_has_no_better_end_and_no_front() -> None:
    assert "best for the price" not in traces(pareto(a_table(*LORA, FULL), x="learning_rate"))


@pytest.mark.parametrize("x", list(COLUMNS))
@pytest.mark.parametrize("y", ["score", "after", "file_bytes"])
def test_any_two_columns_can_be_drawn(x: str, y: str) -> None:
    fig = pareto(a_table(*LORA, FULL, BITFIT), x=x, y=y)
    empty = x == "measured_bytes"  # no GPU was there: a sentence, and no stand-in number
    assert bool(fig.data) is not empty
    assert bool(fig.layout.annotations) is empty
    assert fig.layout.xaxis.title.text
    assert fig.layout.yaxis.title.text


def test_what_was_not_measured_is_left_out() -> None:
    table = a_table(replace(LORA[0], step_s=None), LORA[1], replace(FULL, step_s=None))
    drawn = traces(pareto(table, x="step_s"))
    assert list(drawn["LoRA"].x) == [0.01]
    assert "Full fine-tuning" not in drawn


def test_axes_are_named_by_the_bench_s_own_metric_and_forgetting() -> None:
    fig = pareto(a_table(*(replace(row, kept="loss") for row in LORA), metric="bleu"), x="after")
    assert fig.layout.yaxis.title.text == "BLEU (test split)"
    assert fig.layout.xaxis.title.text == "loss on the fixed text (nats)"


def test_ticks_of_a_logarithmic_axis_lie_at_what_people_count_in() -> None:
    ticks = log_ticks([2048, 152_000], str)
    assert ticks["tickvals"] == [1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000, 200_000]
    assert log_ticks([1e-4, 1.0], str)["tickvals"] == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1.0])


def test_rate_curves_show_the_validation_score_and_a_gap_where_a_seed_diverged() -> None:
    drawn = traces(rate_curves(a_table(LORA[0])))["LoRA"]
    assert list(drawn.x) == [1e-3, 3e-3, 1e-2]
    assert list(drawn.y) == [0.5, 0.8, None]
    assert list(drawn.marker.symbol) == ["circle-open", "circle", "circle-open"]


def test_every_share_is_read_in_percent() -> None:
    for metric, wanted in (("accuracy", ": %{y:.1%}<"), ("execution_accuracy", ": %{y:.1%}<"), ("bleu", ": %{y:.3g}<")):
        assert wanted in traces(rate_curves(a_table(LORA[0], metric=metric)))["LoRA"].hovertemplate


def test_a_bench_without_rows_is_a_sentence() -> None:
    empty = MethodTable("digits", "accuracy", ())
    for fig in (pareto(empty), rate_curves(empty)):
        assert not fig.data
        assert fig.layout.annotations[0].text
    assert methods_caption(empty, compare(empty)) == "No method has a place yet."


def test_it_says_who_leads_and_what_lora_loses() -> None:
    sentence = said_of(*LORA, FULL, BITFIT)
    assert sentence.startswith(
        "Full fine-tuning has the best mean, 95.5 % ± 0.5 % accuracy over 3 seeds, and the spread over seeds"
    )
    assert "LoRA r 8 loses to full fine-tuning by 8.5 ± " in sentence
    assert " points." in sentence


def test_what_is_told_alone_but_not_among_all_pairs_is_said_so() -> None:
    many = ("dora", "vera", "ia3", "bitfit", "ln_tuning", "adapter", "partial", "rslora")
    others = [a_row(m, (0.5 + i / 30, 0.52 + i / 30, 0.54 + i / 30)) for i, m in enumerate(many)]
    rows = [a_row("lora", (0.88, 0.90, 0.92), r=8), a_row("full", (0.93, 0.95, 0.97)), *others]
    pair = compare(a_table(*rows)).lora_and_full
    assert pair is not None
    assert pair.is_told_alone
    assert not pair.is_told
    assert f"asked as one question (p = {pair.p:.2g}); among all 45 pairs it is not told." in said_of(*rows)


def test_a_method_with_rates_to_try_has_no_place_and_is_judged_by_nothing() -> None:
    table = replace(a_table(*LORA, FULL, BITFIT), unsettled=("full",))
    comparison = compare(table)
    assert [(placed.row.method, placed.text) for placed in comparison.order] == [("lora", "1"), ("bitfit", "2"), ("full", "")]
    assert comparison.lora_and_full is None
    sentence = methods_caption(table, comparison)
    assert sentence.startswith("LoRA r 8 has the best mean")
    assert "Full fine-tuning still has rates to try, and no place before." in sentence


def test_it_says_where_lora_wins() -> None:
    sentence = said_of(a_row("lora", (0.95, 0.955, 0.96), r=8), a_row("full", (0.80, 0.81, 0.82)), BITFIT)
    assert "LoRA r 8 beats full fine-tuning by 14.5 ± " in sentence


def test_it_says_where_nothing_can_be_told() -> None:
    sentence = said_of(a_row("lora", (0.80, 0.85, 0.90), r=8), a_row("full", (0.82, 0.85, 0.91)))
    assert "nothing can be told" in sentence
    assert "Nothing here tells LoRA r 8 from full fine-tuning: they are 1.0 ± " in sentence


def test_it_names_whom_the_leader_is_not_told_from() -> None:
    near = a_row("partial", (0.94, 0.95, 0.96), r=4)
    assert "the spread over seeds does not tell it from Top layers 4." in said_of(FULL, near, BITFIT)


def test_one_seed_tells_nothing() -> None:
    sentence = said_of(a_row("lora", (0.8,), r=8), a_row("full", (0.9,)))
    assert "without a spread over seeds nothing can be told" in sentence
    assert "One seed does not tell LoRA r 8 from full fine-tuning." in sentence


def test_it_says_which_rates_lie_at_the_edge() -> None:
    assert "LoRA r 8 still lies at the edge of the rates tried" in said_of(a_row("lora", (0.8, 0.81), r=8, at_edge=True), FULL)
    assert "no method's rate lies at the edge" in said_of(*LORA, FULL)


def test_a_budget_beyond_the_best_that_is_worse_is_said() -> None:
    prefix = [
        a_row("prefix", (level, level + 0.01, level - 0.01), r=r, params=100 * r) for r, level in ((2, 0.6), (8, 0.7), (32, 0.4))
    ]
    assert "Prefix tuning tokens 32 is 30.0 ± " in said_of(*prefix, FULL)
    assert "more parameters do not help it" not in said_of(*LORA[:2], FULL)


def test_a_method_that_diverged_is_said_and_has_no_number() -> None:
    broken = a_row("dora", (0.9, None, 0.9), r=8, diverged=(1,))
    assert score_text(broken, a_table(broken).metric) == "diverged"
    assert "DoRA r 8 diverged at every rate tried and has no place." in said_of(broken, *LORA, FULL)


@pytest.mark.parametrize(
    ("row", "label"),
    [(LORA[0], "LoRA r 2"), (a_row("adapter", (0.5,), r=8), "Adapter (Houlsby) width 8"), (BITFIT, "BitFit")],
)
def test_a_row_is_named_by_what_its_r_is(row: MethodRow, label: str) -> None:
    assert budget_label(row) == label


def test_a_plan_says_how_many_runs_and_how_long() -> None:
    said = plan_caption(34, 3, 3, runs=306, kept=24, left_s=600.0)
    assert "306 runs, 24 of them in the store already" in said
    assert "about 10 min 0 s" in said
    assert "No grid of rates wants another." in plan_caption(1, 3, 3, runs=9, kept=9, left_s=None)


def test_a_reason_is_said_once() -> None:
    assert refused_note({"prefix": "No keys.", "lora+prefix": "No keys."}) == "Without Prefix tuning and LoRA with prefix: No keys."


def test_the_table_to_read_has_a_row_a_method_in_order_with_what_it_costs_and_what_it_keeps() -> None:
    table = a_table(*LORA, FULL, BITFIT)
    rows = method_rows(table, compare(table))
    assert [row["method"] for row in rows] == ["Full fine-tuning", "LoRA r 8", "BitFit"]
    assert rows[1]["accuracy, test split"] == "87.0 % ± 1.0 %"
    assert (rows[1]["adapter params"], rows[1]["file"]) == ("8 k", "32 kB")
    assert rows[1]["accuracy left on the old task"] == "20.0 % ± 0.0 %"
    assert rows[1]["rate"] == "0.003"
