"""The plot of latency draws ratios with their bounds by shape, and its sentences say what can be told."""

from dataclasses import replace

import pytest

from lora_lab import plots
from lora_lab.analysis.timings import (
    Latency,
    LogitDifference,
    LogitDifferences,
    Refusal,
    Shape,
    ShapeTimings,
    Spread,
    Switch,
    Switching,
    Timing,
)
from lora_lab.budget.paper import table_1


def at(median: float, low: float | None = None, high: float | None = None) -> Spread:
    return Spread(20, median, 0.9 * median, 1.1 * median, 0.8 * median, low, high)


def timings(base_s: float, **ratios: Spread) -> tuple[Timing, ...]:
    timed = [Timing(name, at(base_s * ratio.median), ratio) for name, ratio in ratios.items()]
    return (Timing("base", at(base_s), None), *timed)


SHORT = timings(0.0127, merged=at(1.002, 0.99, 1.02), lora=at(1.124, 1.10, 1.16), adapter=at(1.103, 1.08, 1.14))
LONG = timings(0.17, merged=at(0.999, 0.97, 1.01), lora=at(1.3, 0.98, 1.9), adapter=at(1.049, 1.01, 1.11))
RECORD = Latency(
    source="reviews",
    params=22_713_986,
    r=8,
    device="cpu",
    threads=2,
    dtype="float32",
    shapes=(ShapeTimings(Shape(1, 32), SHORT), ShapeTimings(Shape(1, 128), LONG)),
    refused=(Refusal("prefix", "Prefix tuning gives attention past keys and values, and it takes none."),),
)


def test_each_variant_has_its_ratios_with_their_bounds_at_every_shape() -> None:
    merged, lora, adapter, *_ = plots.latency_ratios(RECORD).data
    assert [trace.meta for trace in (merged, lora, adapter)] == ["merged", "lora", "adapter"]
    assert tuple(lora.y) == (1.124, 1.3)
    assert tuple(lora.error_y.array) == pytest.approx((0.036, 0.6))
    assert tuple(lora.error_y.arrayminus) == pytest.approx((0.024, 0.32))
    assert adapter.marker.color == plots.run_colour("adapter", 8)
    assert "12.7 ms" not in lora.customdata[0]
    assert "14.3 ms" in lora.customdata[0]
    assert lora.customdata[0].endswith("1.124 times the base's (99 %: 1.100 to 1.160)")


def test_variants_of_a_shape_stand_beside_each_other_around_its_name() -> None:
    fig = plots.latency_ratios(RECORD, table_1())
    assert [round(float(trace.x[0]), 2) for trace in fig.data[:3]] == [-0.15, 0.0, 0.15]
    assert tuple(fig.layout.xaxis.ticktext) == ("1<br>× 32", "1<br>× 128", "32<br>× 512", "16<br>× 256")
    assert (fig.layout.xaxis.title.text, fig.layout.yaxis.title.text) == ("batch × tokens", "time ÷ the base's time")


def test_the_papers_ratios_are_hollow_and_at_their_own_shapes() -> None:
    pfeiffer, houlsby = plots.latency_ratios(RECORD, table_1()).data[3:]
    assert tuple(houlsby.y) == pytest.approx((1492.2 / 1449.4, 366.3 / 338.0, 25.8 / 19.8))
    assert [round(float(x)) for x in houlsby.x] == [2, 3, 1]
    assert {pfeiffer.marker.symbol, houlsby.marker.symbol} == {"circle-open"}
    assert [pfeiffer.showlegend, houlsby.showlegend] == [True, False]


def test_the_base_is_the_line_at_one() -> None:
    (line,) = plots.latency_ratios(RECORD).layout.shapes
    assert (line.y0, line.y1) == (1, 1)


def test_every_point_is_in_the_plot_and_a_wild_bar_leaves_it() -> None:
    wild = timings(0.01, merged=at(1.0, 0.2, 9.0), lora=at(1.2, 0.3, 15.0))
    low, high = plots.latency_ratios(replace(RECORD, shapes=(ShapeTimings(Shape(1), wild),)), table_1()).layout.yaxis.range
    assert 0.4 < low < 1
    assert 25.8 / 19.8 < high < 2


def test_without_bounds_there_are_no_bars() -> None:
    few = timings(0.01, lora=at(1.2))
    fig = plots.latency_ratios(replace(RECORD, shapes=(ShapeTimings(Shape(4), few),)))
    assert tuple(fig.data[0].error_y.array) == (None,)
    assert tuple(fig.layout.xaxis.ticktext) == ("4",)


def test_nothing_measured_says_so() -> None:
    fig = plots.latency_ratios(replace(RECORD, shapes=()))
    assert fig.layout.annotations[0].text == "Nothing was measured."
    assert plots.latency_caption(replace(RECORD, shapes=())) == ""


def test_the_caption_says_which_can_be_told_and_where_they_surely_cost_most() -> None:
    assert plots.latency_caption(RECORD) == (
        "Merged LoRA cannot be told from the base; LoRA beside the base takes 12 % longer at 1 × 32 (10 % to 16 %); "
        "the Houlsby adapter takes 10 % longer at 1 × 32 (8.0 % to 14 %)."
    )


def test_a_merged_base_that_differs_is_the_machine() -> None:
    told = timings(0.01, merged=at(0.98, 0.97, 0.99), lora=at(1.1, 0.9, 1.2))
    assert plots.latency_caption(replace(RECORD, shapes=(ShapeTimings(Shape(1, 32), told),))) == (
        "LoRA beside the base cannot be told from the base; merged LoRA takes 2.0 % less at 1 × 32 (1.0 % to 3.0 %). "
        "Merged, it is the base's own graph: what shows there is the machine."
    )


def test_of_too_few_rounds_the_caption_says_so() -> None:
    few = timings(0.01, merged=at(1.0), lora=at(2.0))
    caption = plots.latency_caption(replace(RECORD, shapes=(ShapeTimings(Shape(1, 32), few),)))
    assert caption == "With fewer than 8 rounds nothing can be told from the base."


def test_refusals_are_said_once_with_the_name_where_the_reason_lacks_it() -> None:
    assert plots.refusals(RECORD) == ("Prefix tuning gives attention past keys and values, and it takes none.",)
    both = (Refusal("merged", "no q and v."), Refusal("lora", "no q and v."))
    assert plots.refusals(replace(RECORD, refused=both)) == ("LoRA, merged and LoRA, beside the base: no q and v.",)


def test_what_it_says_about_a_gpu_is_of_the_device_that_was_measured() -> None:
    _, growth, limits = plots.on_a_gpu(RECORD)
    assert (
        growth == "From 1 × 32 to 1 × 128 the input grows 4 times and the base's time 13: even a small pass is mostly arithmetic."
    )
    assert limits.endswith("no GPU was measured, so none is given.")
    on_cuda = plots.on_a_gpu(replace(RECORD, device="cuda"))
    assert on_cuda[-1] == "These are times of cuda, not of the paper's card: another card gives another share."


def test_the_time_that_grows_less_than_the_work_is_not_arithmetic() -> None:
    shapes = (ShapeTimings(Shape(64), timings(0.008)), ShapeTimings(Shape(1), timings(0.001)))
    growth = plots.on_a_gpu(replace(RECORD, shapes=shapes))[1]
    assert growth.startswith("From batch 1 to batch 64 the input grows 64 times and the base's time 8: much of a small pass")


def test_logits_are_told_as_shares_of_the_largest() -> None:
    ways = (LogitDifference("fp32", 4e-6, 10.0), LogitDifference("bf16", 0.09, 10.0), LogitDifference("fp16", None, None, "no"))
    assert plots.logits_caption(LogitDifferences("a", "b", ways)) == (
        "Merging moves a logit by at most 0.000040 % in fp32 and 0.90 % in bf16 of the largest one: "
        "the same number, rounded in other places."
    )
    assert plots.logits_caption(LogitDifferences("a", "b", ways[2:])) == ""


def test_switching_is_told_in_seconds_and_bytes() -> None:
    ways = (
        Switch("resident", at(0.0149), 0),
        Switch("adapter file", at(0.0406), 301_520),
        Switch("model file", at(0.0393), 90_868_376),
    )
    record = Switching("reviews", "LoRA", 301_520, 90_868_376, at(0.0114), ways, 100, 9_086_837_600, 121_020_376)
    assert plots.switching_caption(record) == (
        "Another adapter in memory answers after 14.9 ms, one from its file (302 kB) answers after 40.6 ms, another model from its "
        "file (90.9 MB) answers after 39.3 ms; the answer alone takes 11.4 ms. Both files came from the operating system's cache; "
        "from a disk or a network the model is 301 times as many bytes to read. 100 tasks take 9.09 GB as models and 121 MB as one "
        "model with 100 adapters."
    )
