"""The plot of both gradients draws what was measured, marks what a log axis cannot, and its caption claims no more."""

from dataclasses import dataclass

import pytest

from lora_lab import plots
from lora_lab.analysis.records import ChainRule
from lora_lab.plots import PALETTE, GradientLine


@dataclass(frozen=True)
class Step:
    step: int
    grad_norm_a: float | None
    grad_norm_b: float | None


def line(*norms: tuple[float | None, float | None], label: str = "r 4", seed: int = 0, first: int = 1) -> GradientLine:
    return GradientLine(label, tuple(Step(i, a, b) for i, (a, b) in enumerate(norms, first)), seed)


START = line((0.0, 2.0), (0.1, 2.0), (0.3, 2.0), (3.0, 2.5))


def rule(**measured: float) -> ChainRule:
    given = {
        "scaling": 2.0,
        "loss": 1.0,
        "norm_a": 1.0,
        "norm_b": 1.0,
        "grad_norm_w": 3.0,
        "grad_norm_a": 0.25,
        "grad_norm_b": 0.5,
        "difference_a": 1e-7,
        "difference_b": 2e-7,
    }
    return ChainRule(name="fc1", d_out=160, d_in=64, r=4, **{**given, **measured})


def test_each_factor_has_its_colour_and_a_zero_is_a_gap_with_a_mark() -> None:
    a, b, zero = plots.gradient_flow([START]).data
    assert (tuple(a.x), tuple(a.y)) == ((1, 2, 3, 4), (None, 0.1, 0.3, 3.0))
    assert tuple(b.y) == (2.0, 2.0, 2.0, 2.5)
    assert (a.line.color, b.line.color, zero.marker.color) == (PALETTE["A"], PALETTE["B"], PALETTE["A"])
    assert (zero.name, tuple(zero.x), tuple(zero.customdata)) == ("∂L/∂A = 0", (1,), ("r 4",))
    assert not a.connectgaps


def test_what_was_not_measured_is_a_gap_without_a_mark() -> None:
    traces = plots.gradient_flow([line((0.5, 1.0), (None, 1.0), (0.7, 1.0))]).data
    assert [tuple(trace.y) for trace in traces] == [(0.5, None, 0.7), (1.0, 1.0, 1.0)]


def test_axes_are_titled_with_units_and_the_marks_stand_off_the_log_scale() -> None:
    fig = plots.gradient_flow([START])
    assert fig.layout.xaxis.title.text == "optimizer step"
    assert fig.layout.yaxis.title.text == "‖gradient‖_F (nats per unit of weight)"
    assert (fig.layout.yaxis.type, fig.layout.yaxis2.type, fig.layout.yaxis2.visible) == ("log", None, False)
    (zero,) = [trace for trace in fig.data if trace.yaxis == "y2"]
    low, high = fig.layout.yaxis2.range
    assert all(low < y < high for y in zero.y)


def test_runs_keep_their_dash_and_share_one_mark_a_step() -> None:
    other = line((0.0, 1.0), (0.2, 1.0), label="r 8", seed=1)
    fig = plots.gradient_flow([START, other])
    curves = [trace for trace in fig.data if trace.mode == "lines+markers"]
    assert [(trace.line.color, trace.line.dash) for trace in curves] == [
        (PALETTE["A"], "solid"),
        (PALETTE["B"], "solid"),
        (PALETTE["A"], "dash"),
        (PALETTE["B"], "dash"),
    ]
    (zero,) = [trace for trace in fig.data if trace.mode == "markers"]
    assert tuple(zero.customdata) == ("r 4, r 8",)


def test_gradients_that_are_all_zero_are_marks_alone() -> None:
    fig = plots.gradient_flow([line((0.0, 0.0))])
    assert [(trace.name, tuple(trace.x)) for trace in fig.data] == [("∂L/∂A = 0", (1,)), ("∂L/∂B = 0", (1,))]


@pytest.mark.parametrize("lines", [[], [line()], [line((None, None))]], ids=["no run", "no step", "no norm"])
def test_with_nothing_measured_the_plot_says_so_and_the_caption_nothing(lines: list[GradientLine]) -> None:
    fig = plots.gradient_flow(lines)
    assert (len(fig.data), fig.layout.annotations[0].text) == (0, "No gradient of A or B was measured.")
    assert plots.gradient_caption(lines) == ""


ZERO = "At step 1 ∂L/∂A = s·Bᵀ·G is exactly 0, because B = 0, and ‖∂L/∂B‖ is 2; "


@pytest.mark.parametrize(
    ("drawn", "sentence"),
    [
        (START, ZERO + "‖∂L/∂A‖ first is a tenth of ‖∂L/∂B‖ at step 3, and as large as it at step 4."),
        (
            line((0.0, 2.0), (0.3, 2.0)),
            ZERO + "‖∂L/∂A‖ first is a tenth of ‖∂L/∂B‖ at step 2, and stays below it up to step 2.",
        ),
        (
            line((0.0, 2.0), (3.0, 2.0)),
            ZERO + "‖∂L/∂A‖ first is a tenth of ‖∂L/∂B‖ at step 2, and as large as it at the same step.",
        ),
        (line((0.0, 2.0), (0.1, 2.0)), ZERO + "up to step 2 ‖∂L/∂A‖ stays below a tenth of ‖∂L/∂B‖."),
        (line((0.0, 2.0)), ZERO + "up to step 1 ‖∂L/∂A‖ stays below a tenth of ‖∂L/∂B‖."),
        (line((0.0, 0.0), (0.1, 0.1)), "At step 1 ∂L/∂A and ∂L/∂B are both exactly 0."),
        (line((0.5, 1.0), first=30), "At step 30 ‖∂L/∂A‖ is 0.5 and ‖∂L/∂B‖ 1: B is not 0 there."),
    ],
    ids=["both", "tenth", "at once", "neither", "one step", "AdaLoRA", "later"],
)
def test_the_caption_is_computed_and_claims_no_more(drawn: GradientLine, sentence: str) -> None:
    assert plots.gradient_caption([drawn]) == sentence


def test_of_several_runs_each_is_named() -> None:
    caption = plots.gradient_caption([START, line((0.0, 0.0), label="AdaLoRA")])
    assert caption.startswith("r 4: at step 1 ∂L/∂A = s·Bᵀ·G is exactly 0, because B = 0")
    assert caption.endswith("at step 4. AdaLoRA: at step 1 ∂L/∂A and ∂L/∂B are both exactly 0.")


def test_the_rule_is_told_with_its_shapes_and_the_measured_difference() -> None:
    of_b, of_a = plots.chain_rule_caption(rule()).split(". ")
    assert of_b == (
        "∂L/∂B (160 × 4) = s · G (160 × 64) · Aᵀ (64 × 4): autograd's has norm 0.5 and differs from the product by 2.0e-07 of it"
    )
    assert of_a == (
        "∂L/∂A (4 × 64) = s · Bᵀ (4 × 160) · G (160 × 64): autograd's has norm 0.25 and differs from the product by 1.0e-07 of it."
    )


def test_a_gradient_of_zero_has_its_reason_only_where_the_other_factor_is_zero() -> None:
    at_start = plots.chain_rule_caption(rule(norm_b=0.0, grad_norm_a=0.0, difference_a=0.0))
    assert at_start.endswith("G (160 × 64): both sides are exactly 0, because B = 0.")
    assert plots.chain_rule_caption(rule(grad_norm_a=0.0, difference_a=0.0)).endswith("both sides are exactly 0.")


def test_a_faint_run_stands_behind_without_a_name_in_the_legend() -> None:
    steps = [Step(1, 0.5, 1.0), Step(2, 0.7, 1.0)]
    fig = plots.gradient_flow([plots.GradientLine("behind", steps, faint=True), plots.GradientLine("front", steps)])
    shown = {trace.name: (trace.showlegend, trace.opacity) for trace in fig.data}
    assert {opacity for name, (legend, opacity) in shown.items() if "behind" in name and not legend} == {0.3}
    assert {opacity for name, (legend, opacity) in shown.items() if "front" in name and legend} == {1}
