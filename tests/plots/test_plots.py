"""Figures say what the records say; captions are computed from the same numbers."""

import math
from collections.abc import Callable
from itertools import combinations

import plotly.graph_objects as go
import pytest

from lora_lab import plots
from lora_lab.analysis.records import ChainRule, Overlap, Spectrum
from lora_lab.events import EvalEvent, StepEvent
from lora_lab.inference import MergeCost, MergeReport
from lora_lab.plots import CurveLine, SpectrumLine
from lora_lab.specs import METHODS

ZERO = SpectrumLine("r 2 · seed 0", 2, 0, (0.0, 0.0))
ONE = SpectrumLine("r 3 · seed 0", 3, 0, (30.0, 4.0, 0.5))
TWO = SpectrumLine("r 4 · seed 1", 4, 1, (20.0, 2.0, 0.2, 0.0))


def curve(
    label: str = "r 4 · seed 0", *, r: int = 4, seed: int = 0, losses: tuple[float, ...] = (), base: float | None = 0.5
) -> CurveLine:
    steps = tuple(StepEvent(i, loss, 1e-3, 1.0, 0.1 * i) for i, loss in enumerate(losses, 1))
    evals = () if base is None else (EvalEvent(0, base, 1.0, 0.0), EvalEvent(50, base + 0.25, 0.5, 1.0))
    return CurveLine(label, r, seed, steps, evals)


def titles(fig: go.Figure) -> tuple[str, str]:
    return fig.layout.xaxis.title.text, fig.layout.yaxis.title.text


def said(fig: go.Figure) -> list[str]:
    return [annotation.text for annotation in fig.layout.annotations]


def test_spectrum_draws_the_singular_values_and_leaves_zeros_as_gaps() -> None:
    fig = plots.spectrum([ONE, TWO])
    assert [(trace.name, tuple(trace.x), tuple(trace.y)) for trace in fig.data] == [
        (ONE.label, (1, 2, 3), (30.0, 4.0, 0.5)),
        (TWO.label, (1, 2, 3, 4), (20.0, 2.0, 0.2, None)),
    ]
    assert not any(trace.connectgaps for trace in fig.data)


@pytest.mark.parametrize(
    ("draw", "expected"),
    [
        (lambda: plots.spectrum([ONE]), ("direction i, strongest first", "singular value σᵢ of ΔW")),
        (lambda: plots.energy([ONE]), ("directions kept, strongest first", "share of ‖ΔW‖²")),
        (lambda: plots.loss_curves([curve(losses=(1.0,))]), ("optimizer step", "training loss (nats)")),
        (lambda: plots.score_curves([curve()]), ("optimizer step", "accuracy (validation split)")),
    ],
    ids=["spectrum", "energy", "loss", "accuracy"],
)
def test_axes_are_titled_with_their_units(draw: Callable[[], go.Figure], expected: tuple[str, str]) -> None:
    assert titles(draw()) == expected


@pytest.mark.parametrize("smallest", [0.5, 29.0, 30.0])
def test_singular_values_stand_on_a_log_axis(smallest: float) -> None:
    assert plots.spectrum([SpectrumLine("r 2", 2, 0, (30.0, smallest))]).layout.yaxis.type == "log"


def test_spectrum_marks_each_rank_once() -> None:
    fig = plots.spectrum([ONE, TWO, SpectrumLine("r 4 · seed 2", 4, 2, (1.0, 1.0, 1.0, 1.0)), ZERO])
    assert [(line.x0, line.x1, line.line.color) for line in fig.layout.shapes] == [(r, r, plots.rank_colour(r)) for r in (3, 4)]
    assert said(fig) == ["r 3", "r 4"]


def test_energy_is_the_cumulated_share_and_names_its_lines() -> None:
    fig = plots.energy([SpectrumLine("r 3", 3, 0, (3.0, 2.0, 1.0)), TWO])
    assert tuple(fig.data[0].y) == pytest.approx((9 / 14, 13 / 14, 1))
    assert tuple(fig.data[1].y)[-2:] == (1, 1)
    assert [line.y0 for line in fig.layout.shapes] == [0.90, 0.95, 0.99]
    assert [text.strip() for text in said(fig)] == ["90 %", "95 %", "99 %"]


@pytest.mark.parametrize("draw", [plots.spectrum, plots.energy])
def test_a_zero_update_draws_no_line_beside_those_that_learned(draw: Callable[[list[SpectrumLine]], go.Figure]) -> None:
    assert [trace.name for trace in draw([ZERO, ONE]).data] == [ONE.label]


@pytest.mark.parametrize(
    ("fig", "sentence"),
    [
        (plots.spectrum([]), "ΔW is zero: it has no direction yet."),
        (plots.spectrum([ZERO]), "ΔW is zero: it has no direction yet."),
        (plots.energy([ZERO]), "ΔW is zero: it has no direction yet."),
        (plots.loss_curves([]), "The curves begin with the first step."),
        (plots.loss_curves([curve(losses=())]), "The curves begin with the first step."),
        (plots.score_curves([curve(base=None)]), "The score comes before the first step and a few times a run."),
        (
            plots.overlap(Overlap("q", "delta", "in", 64, None, None), first="r 4", second="r 8"),
            "One of the two is zero: it has no direction to compare.",
        ),
    ],
)
def test_a_plot_with_nothing_in_it_says_why(fig: go.Figure, sentence: str) -> None:
    assert (len(fig.data), said(fig)) == (0, [sentence])
    assert (fig.layout.xaxis.visible, fig.layout.yaxis.visible) == (False, False)


def test_loss_curves_draw_the_loss_of_each_step() -> None:
    fig = plots.loss_curves([curve(losses=(2.5, 1.5, 0.75)), curve("other", losses=())])
    assert [(trace.name, tuple(trace.x), tuple(trace.y)) for trace in fig.data] == [("r 4 · seed 0", (1, 2, 3), (2.5, 1.5, 0.75))]


def test_a_long_loss_curve_is_thinned_to_records_of_its_own() -> None:
    losses = tuple(math.exp(-i / 500) for i in range(2000))
    (trace,) = plots.loss_curves([curve(losses=losses)]).data
    assert 100 <= len(trace.x) <= 300
    assert trace.x[0] == 1
    assert all(y == losses[step - 1] for step, y in zip(trace.x, trace.y, strict=True))


def test_score_curves_draw_the_evaluations_and_the_frozen_base() -> None:
    fig = plots.score_curves([curve(base=0.5), curve("r 8 · seed 0", r=8, base=0.5)])
    assert [(tuple(trace.x), tuple(trace.y)) for trace in fig.data] == [((0, 50), (0.5, 0.75))] * 2
    assert [line.y0 for line in fig.layout.shapes] == [0.5]
    assert said(fig) == ["frozen base 50.0 %"]


def channels(colour: str) -> list[int]:
    return [int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(", ")]


def luminance(colour: str) -> float:
    """Source: WCAG 2.1, relative luminance."""
    linear = [c / 3294.6 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in channels(colour)]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("method", METHODS)
def test_every_run_stands_out_on_light_and_dark(method: str) -> None:
    light, dark = luminance("rgb(255, 255, 255)"), luminance("rgb(25, 28, 36)")
    for own in (luminance(plots.run_colour(method, r)) for r in (1, 8, 64)):
        assert (light + 0.05) / (own + 0.05) >= 1.75
        assert (own + 0.05) / (dark + 0.05) >= 1.75


def test_no_two_methods_have_one_colour() -> None:
    colours = {method: channels(plots.run_colour(method, 8)) for method in METHODS}
    assert not [pair for pair in combinations(METHODS, 2) if math.dist(colours[pair[0]], colours[pair[1]]) <= 30]


def test_lora_keeps_its_violet_and_a_method_without_r_has_one_shade() -> None:
    assert [plots.run_colour("lora", r) for r in (1, 8, 64)] == [plots.rank_colour(r) for r in (1, 8, 64)]
    assert len({plots.run_colour("dora", r) for r in (1, 8, 64)}) == 3
    assert len({plots.run_colour("bitfit", r) for r in (1, 8, 64)}) == 1


def test_of_many_runs_a_legend_names_each_configuration_once_and_hides_it_as_a_whole() -> None:
    lines = [
        CurveLine(f"{method} · seed {seed}", 4, seed, (StepEvent(1, 1.0, 1e-3, 1.0, 0.1),), (), method)
        for method in ("lora", "dora", "bitfit", "ia3")
        for seed in (0, 1)
    ]
    few, many = plots.loss_curves(lines[:6]), plots.loss_curves(lines)
    assert [trace.name for trace in few.data] == [line.label for line in lines[:6]]
    assert [trace.name for trace in many.data if trace.showlegend] == ["lora", "dora", "bitfit", "ia3"]
    assert all(trace.legendgroup == trace.name for trace in many.data)
    assert [trace.meta for trace in many.data] == [line.label for line in lines]  # whose run it is stays told
    assert len({trace.line.color for trace in many.data}) == 4


def test_a_long_legend_makes_the_figure_taller() -> None:
    lines = [SpectrumLine(f"r {r} · seed 0", r, 0, (2.0, 1.0)) for r in range(1, 13)]
    assert plots.spectrum(lines).layout.height > plots.spectrum(lines[:6]).layout.height == plots.spectrum(lines[:1]).layout.height


def test_what_rounding_made_of_a_zero_is_a_gap() -> None:
    cut = SpectrumLine("AdaLoRA", 3, 0, (30.0, 1.0, 1e-12), "adalora")
    assert tuple(plots.spectrum([cut]).data[0].y) == (30.0, 1.0, None)


def test_bases_that_differ_are_two_lines_named_apart() -> None:
    fig = plots.score_curves([curve(base=0.15), curve("QLoRA", base=0.13)])
    assert said(fig) == ["frozen base 13.0 %", "frozen base 15.0 %"]
    assert len({annotation.yanchor for annotation in fig.layout.annotations}) == 2


def test_where_a_spectrum_need_not_end_at_r_no_line_says_so() -> None:
    dense = SpectrumLine("DoRA", 2, 0, (3.0, 2.0, 1.0), "dora")
    assert not plots.spectrum([dense]).layout.shapes
    assert len(plots.spectrum([dense, ONE]).layout.shapes) == 1


def test_colour_tells_the_rank_and_dash_the_seed() -> None:
    lines = [curve("a", r=2), curve("b", r=2, seed=1), curve("c", r=16)]
    a, b, c = (trace.line for trace in plots.score_curves(lines).data)
    assert a.color == b.color == plots.rank_colour(2) != c.color
    assert a.dash == c.dash != b.dash


@pytest.mark.parametrize(("smaller", "larger"), [(1, 2), (2, 8), (8, 64)])
def test_a_larger_rank_is_darker(smaller: int, larger: int) -> None:
    def lightness(r: int) -> int:
        return sum(map(int, plots.rank_colour(r).removeprefix("rgb(").removesuffix(")").split(", ")))

    assert lightness(larger) < lightness(smaller)


def phi_record(corner: float, *, dimension: int = 64) -> Overlap:
    """φ of 2 × 3 directions, `corner` at (2, 2)."""
    phi = ((0.9, 0.8, 0.7), (0.6, corner, 0.4))
    chance = tuple(tuple(max(i, j) / dimension for j in (1, 2, 3)) for i in (1, 2))
    return Overlap("layer.q", "delta", "in", dimension, phi, chance)


def test_overlap_draws_phi_and_beside_it_chance_on_one_scale() -> None:
    record = phi_record(0.5)
    fig = plots.overlap(record, first="r 2", second="r 3")
    measured, chance = fig.data
    assert tuple(map(tuple, measured.z)) == record.phi
    assert tuple(map(tuple, chance.z)) == record.chance
    for trace in fig.data:
        assert (tuple(trace.x), tuple(trace.y), trace.zmin, trace.zmax) == ((1, 2, 3), (1, 2), 0, 1)
        assert trace.colorscale == measured.colorscale
    assert said(fig) == ["measured", "chance: max(i, j) / 64"]


def test_overlap_says_whose_directions_each_axis_counts() -> None:
    fig = plots.overlap(phi_record(0.5), first="r 2 · seed 0", second="r 3 · seed 1")
    assert titles(fig) == ("j: directions of r 3 · seed 1", "i: directions of r 2 · seed 0")
    assert fig.layout.xaxis2.title.text == "j: directions of r 3 · seed 1"


def spectrum_record(kept: int | None, *, r: int = 8) -> Spectrum:
    stable, effective = (None, None) if kept is None else (1.26, 2.34)
    norm = 0.0 if kept is None else 1.0
    return Spectrum(
        name="layer.q",
        shape=(64, 64),
        r=r,
        scaling=2.0,
        frobenius=norm,
        spectral=norm,
        singular_values=(norm,) * r,
        numerical_rank=0 if kept is None else r,
        stable_rank=stable,
        effective_rank=effective,
        participation_ratio=effective,
        rank_for_90=kept,
        rank_for_95=kept,
        rank_for_99=kept,
    )


def test_spectrum_caption_counts_the_directions_of_each_update() -> None:
    caption = plots.spectrum_caption(
        [("r 8", spectrum_record(3)), ("r 4", spectrum_record(1, r=4)), ("r 2", spectrum_record(None))]
    )
    assert caption == (
        "r 8: 3 of 8 directions keep 95 % of ‖ΔW‖² (stable rank 1.3, effective rank 2.3). "
        "r 4: 1 of 4 directions keeps 95 % of ‖ΔW‖² (stable rank 1.3, effective rank 2.3). "
        "r 2: ΔW is zero, it has no direction."
    )


def test_a_caption_without_updates_is_empty() -> None:
    assert plots.spectrum_caption([]) == ""


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        # chance at (2, 2): 2/64 = 0.031, sd = sqrt(2·2·2·62·62 / (64²·63·66)) / 2 = 0.021
        (
            phi_record(0.5),
            "φ(2, 2) = 0.50 where chance gives 0.031 ± 0.021: "
            "the leading directions of a and b share 16.0 times as much as chance would give.",
        ),
        (
            phi_record(0.04),
            "φ(2, 2) = 0.04 where chance gives 0.031 ± 0.021: the leading directions of a and b are no closer than random ones.",
        ),
        # 2 of 3 directions: chance 2/3, sd = sqrt(2·2·2·1·1 / (9·2·5)) / 2 = 0.149
        (
            phi_record(0.99, dimension=3),
            "φ(2, 2) = 0.99 where chance gives 0.667 ± 0.149: with 2 of 3 directions on either side an overlap tells nothing.",
        ),
        (
            Overlap("layer.q", "delta", "in", 64, None, None),
            "One of the two is zero: there is no direction to compare.",
        ),
    ],
    ids=["above-chance", "at-chance", "chance-above-a-half", "zero"],
)
def test_overlap_caption_compares_with_chance(record: Overlap, sentence: str) -> None:
    assert plots.overlap_caption(record, first="a", second="b") == sentence


@pytest.mark.parametrize(
    ("best", "base", "ended", "sentence"),
    [
        (0.8249, 0.1, True, "The best run reached 82.5 % on the validation split; the frozen base has 10.0 %."),
        (0.8249, 0.1, False, "The best run has reached 82.5 % on the validation split; the frozen base has 10.0 %."),
        (0.0, 0.0, True, "The best run reached 0.0 % on the validation split; the frozen base has 0.0 %."),
        (None, 0.1, True, ""),
        (0.8, None, True, ""),
    ],
)
def test_learning_caption_names_best_and_base_where_both_were_measured(
    best: float | None, base: float | None, ended: bool, sentence: str
) -> None:
    assert plots.learning_caption(best, base, ended=ended) == sentence


def test_cells_past_half_the_space_are_marked_and_said() -> None:
    phi = tuple(tuple(1.0 for _ in range(4)) for _ in range(4))
    chance = tuple(tuple(max(i, j) / 5 for j in range(1, 5)) for i in range(1, 5))
    full = Overlap("layer.q", "delta", "in", 5, phi, chance)
    small = phi_record(0.5)
    assert full.has_cells_that_tell_nothing
    assert not small.has_cells_that_tell_nothing
    assert plots.overlap(full, first="a", second="b").layout.shapes
    assert not plots.overlap(small, first="a", second="b").layout.shapes


def merge_report(*differences: float | None, unquantized: float | None = None) -> MergeReport:
    names = ("fp32", "bf16", "nf4")
    ways = tuple(MergeCost(name, difference) for name, difference in zip(names, differences, strict=False))
    return MergeReport(256, "accuracy", 0.5, ways, None if unquantized is None else MergeCost("unquantized", unquantized))


@pytest.mark.parametrize(
    ("report", "sentence"),
    [
        (merge_report(4e-7, 1e-3), "Merged in bf16 the logits move by 0.10 %, merged in fp32 by 0.000040 %."),
        (
            merge_report(4.2e-7, 1e-3, 0.0562, unquantized=0.18),
            "Merged back into nf4 as PEFT does the logits move by 5.6 %, merged in fp32 by 0.000042 %. "
            "On the base that was not quantized the same adapter answers 18 % apart.",
        ),
        (merge_report(4e-7, 2e-3, None), "Merged in bf16 the logits move by 0.20 %, merged in fp32 by 0.000040 %."),
    ],
)
def test_merge_caption_says_the_way_that_moves_most_and_least(report: MergeReport, sentence: str) -> None:
    assert plots.merge_caption(report) == sentence


def rule(difference_a: float, difference_b: float) -> ChainRule:
    return ChainRule("q", 8, 4, 2, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, difference_a, difference_b)


def test_rule_caption_takes_the_largest_difference() -> None:
    sentence = "Autograd differs from these products by at most 3.0e-07 of the gradient."
    assert plots.rule_caption([rule(0.0, 1e-8), rule(3e-7, 2e-7)]) == sentence
    assert plots.rule_caption([rule(0.0, 0.0)]) == "Autograd and these products are the same to the bit."
    assert plots.rule_caption([]) == ""


def test_learning_caption_names_the_best_where_methods_are_several() -> None:
    assert plots.learning_caption(0.5, 0.1, ended=True, best_name="DoRA · r 8").startswith(
        "The best run, DoRA · r 8, reached 50.0 %"
    )


def test_half_the_space_is_marked_only_where_the_map_goes_past_it() -> None:
    wide = Overlap("q", "delta", "in", 6, ((1.0,) * 5,) * 2, tuple(tuple(max(i, j) / 6 for j in range(1, 6)) for i in (1, 2)))
    lines = plots.overlap(wide, first="a", second="b").layout.shapes
    assert {(line.x0, line.x1) for line in lines} == {(3.5, 3.5)}  # j goes to 5, i to 2
