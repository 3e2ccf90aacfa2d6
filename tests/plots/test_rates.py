"""Score against rate, drawn and said from hand-made curves."""

import pytest

import lora_lab as ll
from lora_lab.analysis.rate_curves import RateCurve
from lora_lab.plots import rate_caption, rate_labels, run_colour, score_by_rate
from lora_lab.specs import RunSpec

RATES = (0.001, 0.01, 0.1)


def a_curve(method: str, r: int, means: tuple[float | None, ...], *, metric: str = "accuracy") -> RateCurve:
    spec = RunSpec(bench="digits", base_sha256="", tuning=ll.MethodSpec(method=method, r=r), learning_rate=RATES[0])
    return RateCurve(metric, spec, RATES[: len(means)], means, tuple(None if mean is None else 0.01 for mean in means))


LORA, RSLORA = a_curve("lora", 8, (0.3, 0.6, 0.9)), a_curve("rslora", 8, (0.5, 0.8, None))


def test_a_choice_is_a_line_in_its_colour_with_its_best_rate_filled_and_a_gap_where_it_diverged() -> None:
    lora, rslora = score_by_rate([LORA, RSLORA]).data
    assert (list(lora.x), list(lora.y), list(lora.error_y.array)) == ([0.001, 0.01, 0.1], [0.3, 0.6, 0.9], [0.01] * 3)
    assert list(lora.marker.symbol) == ["circle-open", "circle-open", "circle"]
    assert list(rslora.y) == [0.5, 0.8, None]
    assert list(rslora.marker.symbol) == ["circle-open", "circle", "circle-open"]
    assert rslora.line.color == run_colour("rslora", 8)


def test_methods_differ_in_their_dash_and_ranks_do_not() -> None:
    more = a_curve("lora", 32, (0.3, 0.6, 0.9))
    first, second, other = (trace.line.dash for trace in score_by_rate([LORA, more, RSLORA]).data)
    assert first == second != other


def test_axes_say_what_they_are_and_rates_stand_by_their_logarithm() -> None:
    fig = score_by_rate([LORA])
    assert fig.layout.xaxis.type == "log"
    assert (fig.layout.xaxis.title.text, fig.layout.yaxis.title.text) == ("learning rate", "accuracy (validation split)")
    assert score_by_rate([a_curve("lora", 8, (2.0,), metric="loss")]).layout.yaxis.title.text == "loss (nats) (validation split)"


def test_labels_name_what_differs_and_never_the_rate() -> None:
    assert rate_labels([LORA, RSLORA]) == ["LoRA · r 8", "rsLoRA · r 8"]
    assert rate_labels([a_curve("lora", 2, (0.1,)), LORA]) == ["r 2", "r 8"]


def test_the_sentence_says_each_best_rate_and_whether_the_winner_depends_on_the_rate() -> None:
    turned = a_curve("rslora", 8, (0.5, 0.8, 0.2))
    said = rate_caption([LORA, turned])
    assert "LoRA · r 8 90.0 % at 0.1, rsLoRA · r 8 80.0 % at 0.01" in said
    assert said.endswith("At 0.001 rsLoRA · r 8 would have won, at 0.1 LoRA · r 8.")
    assert rate_caption([LORA, a_curve("lora", 2, (0.1, 0.1, 0.1))]).endswith("r 8 leads at 0.001 and at 0.1.")


@pytest.mark.parametrize("curves", [[], [a_curve("lora", 8, (None, None))]], ids=["no run", "all diverged"])
def test_where_nothing_was_measured_nothing_is_drawn_or_said(curves: list[RateCurve]) -> None:
    fig = score_by_rate(curves)
    assert not fig.data
    assert "first point" in fig.layout.annotations[0].text
    assert rate_caption(curves) == ""
