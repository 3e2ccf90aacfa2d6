"""What the seeds' spread supports: against scipy's own tests, by hand, and by what must not change anything."""

import math
from dataclasses import replace
from itertools import combinations
from statistics import mean

import numpy as np
import pytest
from scipy import stats

from lora_lab.analysis.comparison import Prior, compare, difference, holm, order, prior_of
from lora_lab.analysis.method_records import Difference, MethodRow, MethodTable, RateScore, front, mean_of, sd_of

TIGHT, WIDE = (0.90, 0.91, 0.92), (0.60, 0.70, 0.80)


def a_row(method: str, scores: tuple[float | None, ...], *, r: int | None = None, **fields: object) -> MethodRow:
    """A row whose validation score is its test score, unless said otherwise."""
    defaults = {"validation": mean_of(scores), "trainable_params": 1000 * (r or 1), "head_params": 0}
    return MethodRow(
        method=method,
        r=r,
        learning_rate=1e-3,
        rates=(RateScore(1e-3, mean_of(scores), None),),
        at_edge=False,
        seeds=tuple(range(len(scores))),
        scores=scores,
        **{**defaults, **fields},
    )


def a_table(*rows: MethodRow, metric: str = "accuracy") -> MethodTable:
    return MethodTable("digits", metric, rows, rows[0].seeds)


def drawn(rng: np.random.Generator, level: float, sd: float, n: int = 3) -> tuple[float, ...]:
    return tuple(rng.normal(level, sd, n).tolist())


@pytest.mark.parametrize(("first", "second"), [(TIGHT, WIDE), (TIGHT, (0.5, 0.6)), ((0.1, 0.2, 0.4, 0.3), WIDE)])
def test_two_rows_are_judged_as_welch_does(first: tuple[float, ...], second: tuple[float, ...]) -> None:
    found = difference(a_row("lora", first), a_row("full", second), Prior())
    welch = stats.ttest_ind(first, second, equal_var=False)
    assert found.p == pytest.approx(welch.pvalue)
    assert found.difference == pytest.approx(np.mean(first) - np.mean(second))
    low, high = welch.confidence_interval(0.95)
    assert found.half_width == pytest.approx((high - low) / 2)


def test_with_two_rows_nothing_is_borrowed() -> None:
    pair = compare(a_table(a_row("lora", TIGHT), a_row("full", WIDE))).pairs[0]
    assert pair.p == pytest.approx(stats.ttest_ind(TIGHT, WIDE, equal_var=False).pvalue)


def test_rows_of_one_spread_are_judged_as_if_it_were_known_from_all() -> None:
    """Variances that agree better than chance would have them: the t-test of a pooled variance, as ANOVA has it."""
    rows = [a_row(name, (level - 0.01, level, level + 0.01)) for name, level in (("lora", 0.5), ("full", 0.52), ("dora", 0.9))]
    pair = compare(a_table(*rows)).pairs[0]
    prior = prior_of([(1e-4, 2.0)] * 3)
    assert math.isinf(prior.df)
    df, error = 6, math.sqrt(prior.variance * 2 / 3)
    # two rows of 6 degrees of freedom each: Welch and Satterthwaite give 12
    assert pair.p == pytest.approx(2 * stats.t.sf(0.02 / error, 2 * df))


def test_the_prior_finds_what_variances_were_drawn_from() -> None:
    """s² = s0² · F(d, d0) is what the prior says of variances; drawn so, it is found again. With 7 seeds none is near the floor."""
    rng = np.random.default_rng(0)
    variances = 4e-4 * rng.f(6, 8, size=20_000)
    prior = prior_of([(float(s2), 6.0) for s2 in variances])
    assert prior.variance == pytest.approx(4e-4, rel=0.05)
    assert prior.df == pytest.approx(8, rel=0.1)


def test_methods_of_one_mean_are_rarely_told_apart() -> None:
    """Holm keeps the chance of any false word at 5 %: of 200 benches of 8 equal methods, about 10, and not 40."""
    rng = np.random.default_rng(1)
    names = ("lora", "full", "dora", "vera", "ia3", "bitfit", "adapter", "partial")
    wrong = 0
    for _ in range(200):
        sds = 0.02 * np.exp(rng.normal(0, 0.4, 8))
        rows = [a_row(name, drawn(rng, 0.8, sd)) for name, sd in zip(names, sds, strict=True)]
        wrong += any(pair.is_told for pair in compare(a_table(*rows)).pairs)
    assert wrong <= 20


def test_methods_far_apart_are_told_apart_even_with_three_seeds() -> None:
    rng = np.random.default_rng(2)
    names = ("lora", "full", "dora", "vera", "ia3", "bitfit", "adapter", "partial")
    rows = [a_row(name, drawn(rng, 0.2 + 0.1 * i, 0.01 + 0.002 * i)) for i, name in enumerate(names)]
    assert [placed.text for placed in compare(a_table(*rows)).order] == [str(i) for i in range(1, 9)]


def test_holm_by_hand_and_never_below_the_p_itself() -> None:
    pairs = [Difference(("a", i), ("b", i), 0.1, 0.1, p, None) for i, p in enumerate([0.01, 0.04, 0.03, None])]
    # three p-values, sorted .01 .03 .04: 3·.01, max(.03, 2·.03), max(.06, 1·.04)
    assert [pair.holm for pair in holm(pairs)] == [pytest.approx(0.03), pytest.approx(0.06), pytest.approx(0.06), None]


def test_a_place_spans_what_is_not_told_apart() -> None:
    a, b, c = (a_row(name, (level,) * 2) for name, level in (("lora", 0.9), ("full", 0.8), ("dora", 0.5)))
    told = [Difference(x.name, y.name, x.mean - y.mean, 0.0, 0.0, 0.0) for x, y in ((a, c), (b, c))]
    unsure = Difference(b.name, a.name, -0.1, 0.2, 0.4, 0.4)
    placed = order([c, b, a], [*told, unsure], sign=1)
    assert [(one.row.method, one.text) for one in placed] == [("lora", "1–2"), ("full", "1–2"), ("dora", "3")]


def test_lower_is_better_where_the_metric_says_so() -> None:
    low, high = a_row("lora", (1.0, 1.01, 1.02)), a_row("full", (3.0, 3.01, 3.02))
    comparison = compare(a_table(high, low, metric="loss"))
    assert [placed.row.method for placed in comparison.order] == ["lora", "full"]
    assert [placed.text for placed in comparison.order] == ["1", "2"]


def test_nothing_is_told_of_one_seed() -> None:
    comparison = compare(a_table(a_row("lora", (0.5,)), a_row("full", (0.9,))))
    assert [placed.text for placed in comparison.order] == ["1–2", "1–2"]
    assert comparison.lora_and_full is not None
    assert (comparison.lora_and_full.difference, comparison.lora_and_full.p) == (pytest.approx(-0.4), None)


@pytest.mark.parametrize(("other", "p"), [(0.9, 1.0), (0.8, 0.0)])
def test_without_any_spread_only_different_means_are_told_apart(other: float, p: float) -> None:
    found = difference(a_row("lora", (0.9, 0.9, 0.9)), a_row("full", (other,) * 3), Prior())
    assert (found.p, found.half_width) == (p, 0.0)


def test_a_row_of_no_spread_borrows_it_from_the_others() -> None:
    rows = [a_row("lora", (0.9, 0.9, 0.9)), a_row("full", TIGHT), a_row("dora", WIDE), a_row("ia3", (0.7, 0.72, 0.71))]
    pair = compare(a_table(*rows)).pairs[0]
    assert pair.p is not None
    assert pair.p > 0


def test_one_row_whose_scores_round_to_the_same_does_not_undo_what_the_others_have_in_common() -> None:
    """As on the inverted digits, where rsLoRA gave one accuracy three times: IA³ and full fine-tuning are 19 points apart."""
    rows = [
        a_row(name, (level - sd, level, level + sd))
        for name, level, sd in (
            ("partial", 0.949, 0.012),
            ("full", 0.942, 0.005),
            ("lora", 0.888, 0.02),
            ("dora", 0.885, 0.029),
            ("vera", 0.849, 0.028),
            ("ia3", 0.751, 0.014),
            ("bitfit", 0.466, 0.029),
        )
    ]
    same = a_row("rslora", (0.916,) * 3)
    comparison = compare(a_table(same, *rows))
    assert comparison.between(rows[1], rows[5]).is_told  # type: ignore[union-attr]
    assert comparison.between(rows[5], rows[6]).is_told  # type: ignore[union-attr]
    assert not comparison.between(rows[0], rows[1]).is_told  # type: ignore[union-attr]


def test_a_diverged_seed_takes_the_place_and_is_compared_with_nothing() -> None:
    comparison = compare(a_table(a_row("lora", TIGHT), a_row("full", (0.99, None, 0.99), diverged=(1,))))
    assert [(placed.row.method, placed.text) for placed in comparison.order] == [("lora", "1"), ("full", "")]
    assert comparison.pairs[0].p is None


def test_seeds_in_another_order_and_another_unit_change_no_verdict() -> None:
    rng = np.random.default_rng(3)
    rows = [a_row(name, drawn(rng, level, 0.02)) for name, level in (("lora", 0.8), ("full", 0.86), ("dora", 0.81), ("ia3", 0.5))]
    plain = compare(a_table(*rows))

    def changed(change: object) -> list[tuple[float | None, float | None]]:
        table = a_table(*(replace(row, scores=tuple(change(row.scores))) for row in rows))  # type: ignore[operator]
        return [(pair.p, pair.holm) for pair in compare(table).pairs]

    wanted = [(pytest.approx(pair.p), pytest.approx(pair.holm)) for pair in plain.pairs]
    assert changed(lambda scores: scores[::-1]) == wanted
    assert changed(lambda scores: [s + 3.0 for s in scores]) == wanted
    assert changed(lambda scores: [100 * s for s in scores]) == wanted


def test_rows_in_another_order_have_the_same_places() -> None:
    rng = np.random.default_rng(4)
    rows = [a_row(name, drawn(rng, level, 0.02)) for name, level in (("lora", 0.8), ("full", 0.9), ("dora", 0.81), ("ia3", 0.5))]
    places = {placed.row.method: placed.text for placed in compare(a_table(*rows)).order}
    assert {placed.row.method: placed.text for placed in compare(a_table(*rows[::-1])).order} == places


def test_the_budget_is_chosen_by_validation_and_not_by_test() -> None:
    small = a_row("lora", (0.9, 0.91, 0.92), r=2, validation=0.5)
    large = a_row("lora", (0.7, 0.71, 0.72), r=8, validation=0.6)
    (placed, _) = compare(a_table(small, large, a_row("full", (0.6, 0.61, 0.62)))).order
    assert placed.row.r == 8


def test_of_equal_validation_scores_the_lower_loss_is_chosen() -> None:
    rows = [a_row("lora", TIGHT, r=r, validation=0.5, validation_loss=loss) for r, loss in ((2, 1.0), (8, 0.4), (32, 0.9))]
    assert a_table(*rows).chosen()[0].r == 8


def test_lora_and_full_is_lora_less_full() -> None:
    pair = compare(a_table(a_row("full", TIGHT), a_row("lora", WIDE))).lora_and_full
    assert pair is not None
    assert (pair.first[0], pair.second[0]) == ("lora", "full")
    assert pair.difference == pytest.approx(mean(WIDE) - mean(TIGHT))


def test_a_curve_falls_only_where_the_spread_supports_it() -> None:
    sharp = [a_row("prefix", (level, level + 0.01, level - 0.01), r=r) for r, level in ((2, 0.7), (8, 0.8), (32, 0.5))]
    flat = [a_row("lora", (level, level + 0.08, level - 0.08), r=r) for r, level in ((2, 0.7), (8, 0.73), (32, 0.72))]
    falls = {curve.method: curve.falls for curve in compare(a_table(*sharp, *flat)).curves}
    assert falls == {"prefix": True, "lora": False}


def test_the_front_is_what_no_other_point_beats() -> None:
    rng = np.random.default_rng(5)
    points = [(float(x), float(y)) for x, y in rng.integers(0, 12, size=(60, 2))]
    for x_sign, y_sign in ((-1, 1), (1, 1), (-1, -1), (1, -1)):

        def beats(p: tuple[float, float], q: tuple[float, float], signs: tuple[int, int] = (x_sign, y_sign)) -> bool:
            better = [sign * (a - b) for sign, a, b in zip(signs, p, q, strict=True)]
            return min(better) >= 0 and max(better) > 0

        wanted = {q for q in points if not any(beats(p, q) for p in points)}
        assert set(front(points, x_sign=x_sign, y_sign=y_sign)) == wanted


def test_every_pair_is_reckoned_once() -> None:
    rows = [a_row(name, TIGHT) for name in ("lora", "full", "dora")]
    comparison = compare(a_table(*rows))
    assert len(comparison.pairs) == len(list(combinations(rows, 2)))
    assert comparison.between(rows[2], rows[0]) == comparison.between(rows[0], rows[2])
    assert comparison.between(rows[0], rows[0]) is None


def test_a_mean_of_what_is_left_is_no_mean() -> None:
    assert (mean_of([0.5, None]), sd_of([0.5, None, 0.7]), sd_of([0.5])) == (None, None, None)
