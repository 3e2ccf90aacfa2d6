"""Amplification shows what `ll.amplification` and `ll.intruders` give, beside the paper's Table 7."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import lora_lab as ll
from lora_lab import LabError, LowRank, Run
from lora_lab.analysis.effects_on_base import effect_on_base
from lora_lab.budget.paper import table_7
from lora_lab.plots.look_captions import amplification_caption, intruder_caption, location_caption

Q, V = "vit.layers.0.attention.q_proj", "vit.layers.3.attention.v_proj"
Runs = tuple[Run, Run, Run]


def base_of(made: dict[str, LowRank]) -> dict[str, Tensor]:
    draws = torch.Generator().manual_seed(9)
    return {name: torch.randn(*delta.shape, generator=draws) for name, delta in made.items()}


def test_the_record_is_the_cores_and_follows_the_menu(runs: Runs, text: Callable[[object], str]) -> None:
    run = runs[0]
    widget = ll.widgets.Amplification(run)
    expected = {one.name: one for one in ll.amplification(run.adapter(), run.base())}
    for matrix in (V, Q):
        widget.matrix.value = matrix
        assert widget.record == expected[matrix]
        assert text(widget.amplified) == amplification_caption(expected[matrix], table_7()[0])


def test_ours_stands_beside_the_papers(runs: Runs, text: Callable[[object], str]) -> None:
    widget = ll.widgets.Amplification(runs[0])
    one, paper = widget.record, table_7()
    on_delta, on_base, on_random = widget.amplified.plot.data
    assert list(on_delta.y) == [one.on_delta, *(p.on_delta for p in paper)]
    assert list(on_base.y) == [one.on_base, *(p.on_base for p in paper)]
    assert list(on_random.y) == [one.on_random, *(p.on_random for p in paper)]
    table = text(widget.amplified.children[-1].value)
    assert f"{one.factor:.4g}" in table
    assert "21.59" in table  # 6.91 / 0.32, of the paper's W_q at r = 4


def test_the_threshold_judges_the_same_directions_anew(runs: Runs, text: Callable[[object], str]) -> None:
    run = runs[0]
    widget = ll.widgets.Amplification(run, matrix=Q)
    for threshold in (0.5, 0.9, 1.0):
        widget.threshold.value = threshold
        expected = next(one for one in ll.intruders(run.adapter(), run.base(), threshold=threshold) if one.name == Q)
        assert widget.intruders.count == expected.count
        assert widget.intruders.cosines == pytest.approx(expected.cosines, abs=1e-9)
        assert text(widget.intruded) == intruder_caption(widget.intruders)
        assert widget.intruded.plot.layout.shapes[0].x0 == threshold


def test_location_is_the_cores(runs: Runs, text: Callable[[object], str]) -> None:
    run = runs[0]
    widget = ll.widgets.Amplification(run, matrix=Q)
    location = effect_on_base(Q, run.adapter()[Q], run.base().named(Q)).location
    assert widget.effect.location == location
    assert text(widget.located) == location_caption(location)
    assert list(widget.located.plot.data[0].y) == [band.share for band in location.bands]


@pytest.mark.parametrize("drawn", ["amplification", "directions", "intruders", "location"])
def test_the_figures_are_those_that_are_shown(runs: Runs, drawn: str) -> None:
    widget = ll.widgets.Amplification(runs[0])
    answers = {"amplification": widget.amplified, "directions": widget.directed, "intruders": widget.intruded}
    shown = {**answers, "location": widget.located}[drawn].plot
    assert [numbers(trace) for trace in shown.data] == [numbers(trace) for trace in widget.figure(drawn).data]
    assert any(numbers(trace) for trace in shown.data)


def numbers(trace: object) -> list[object]:
    """What a trace draws, row by row."""
    is_map = trace.type == "heatmap"  # type: ignore[attr-defined]
    return [value for row in trace.z for value in row] if is_map else list(trace.y)  # type: ignore[attr-defined]


def test_of_a_large_matrix_singular_vectors_wait_for_the_button(
    by_hand: Callable[..., dict[str, LowRank]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lora_lab.widgets.amplification.WHOLE", 7)  # of 8 singular values there are more
    made = by_hand()
    widget = ll.widgets.Amplification(made, base_of(made))
    assert widget.effect is widget.intruders is None
    assert widget.record == ll.amplification(made, widget.base)[1]
    assert "wait for the button" in widget.figure("intruders").layout.annotations[0].text
    widget.compare.click()
    assert widget.effect is not None
    assert widget.record == ll.amplification(made, widget.base)[1]
    assert len(widget.directed.plot.data[0].z) > 0


def test_no_change_amplifies_nothing(by_hand: Callable[..., dict[str, LowRank]], text: Callable[[object], str]) -> None:
    made = by_hand(scaling=0.0)
    widget = ll.widgets.Amplification(made, base_of(made))
    assert widget.record.factor is None
    assert "ΔW is zero" in text(widget.amplified)
    assert widget.amplified.plot.data[0].y[0] is None
    assert widget.intruders.count == 0
    assert "lies nowhere" in text(widget.located)


def test_the_base_is_asked_for_where_nobody_knows_it(by_hand: Callable[..., dict[str, LowRank]]) -> None:
    made = by_hand()
    with pytest.raises(LabError, match=r"base under .* must be given"):
        ll.widgets.Amplification(made)
    with pytest.raises(LabError, match="Got none called"):
        ll.widgets.Amplification(made, {"layers.0.q_proj": torch.ones(12, 8)})
    with pytest.raises(LabError, match="one shape"):
        ll.widgets.Amplification(made, {name: torch.ones(8, 8) for name in made})


@pytest.mark.parametrize("threshold", [0.0, 1.5])
def test_a_threshold_out_of_range_is_refused(runs: Runs, threshold: float) -> None:
    with pytest.raises(LabError, match=f"threshold.*Got {threshold}"):
        ll.widgets.Amplification(runs[0], threshold=threshold)
