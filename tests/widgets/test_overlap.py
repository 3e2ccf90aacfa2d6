"""Overlap shows φ as `ll.overlap` gives it, beside what it is where nothing was learned."""

from collections.abc import Callable
from typing import Any

import pytest

import lora_lab as ll
from lora_lab import LabError, LowRank, Run
from lora_lab.analysis import control_overlap, overlap_of
from lora_lab.plots import overlap_caption
from lora_lab.sweeps.subjects import AT_RANDOM, AT_START
from lora_lab.widgets import pairs

Q, V = "vit.layers.0.attention.q_proj", "vit.layers.3.attention.v_proj"
Runs = tuple[Run, Run, Run]


def panels(widget: object) -> list[tuple[tuple[float, ...], ...]]:
    return [tuple(map(tuple, trace.z)) for trace in widget.answer.plot.data]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("of", "side"), [("delta", "in"), ("delta", "out"), ("a", "in")])
def test_the_maps_are_phi_its_control_and_chance(runs: Runs, of: str, side: str, text: Callable[[object], str]) -> None:
    first, second, _ = runs
    widget = ll.widgets.Overlap(first, second, of=of, side=side, matrix=Q)
    (expected,) = ll.overlap(first.adapter(), second.adapter(), of=of, side=side, module=Q)
    assert widget.record == expected
    assert panels(widget) == [expected.phi, widget.control.phi, expected.chance]
    assert text(widget.answer) == overlap_caption(expected, first="r 4 · seed 0", second="r 4 · seed 1")


def test_the_control_is_a_before_the_first_step_and_random_on_the_output_side(runs: Runs) -> None:
    first, second, _ = runs
    widget = ll.widgets.Overlap(first, second, matrix=Q)
    assert widget.control_name == AT_START
    assert widget.control == overlap_of(Q, first.start()[Q], second.start()[Q], of="a")
    widget.side.value = "out"
    assert widget.control_name == AT_RANDOM
    assert widget.control == control_overlap(widget.record)


def test_controls_moved_from_code_ask_the_core_anew(runs: Runs) -> None:
    first, second = runs[0].adapter(), runs[1].adapter()
    widget = ll.widgets.Overlap(runs[0], runs[1])
    widget.side.value = "out"
    widget.matrix.value = Q
    assert widget.record == ll.overlap(first, second, side="out", module=Q)[0]
    widget.of.value = "a"
    assert (widget.side.value, widget.side.disabled) == ("in", True)
    assert widget.record == ll.overlap(first, second, of="a", module=Q)[0]
    assert panels(widget)[0] == widget.record.phi
    widget.of.value = "delta"
    assert not widget.side.disabled


def test_no_change_has_no_direction(by_hand: Callable[..., dict[str, LowRank]], text: Callable[[object], str]) -> None:
    widget = ll.widgets.Overlap(by_hand(), by_hand(scaling=0.0))
    assert "no direction" in text(widget.answer)
    assert widget.record.phi is None
    assert "no direction" in widget.figure().layout.annotations[0].text


def test_matrices_made_by_hand_have_a_too(by_hand: Callable[..., dict[str, LowRank]]) -> None:
    first, second = by_hand(), by_hand(1)
    widget = ll.widgets.Overlap(first, second, of="a")
    assert widget.record == ll.overlap(first, second, of="a", module="layers.1.q_proj")[0]
    assert widget.control_name == AT_RANDOM


def test_two_that_share_nothing_are_refused(runs: Runs, by_hand: Callable[..., dict[str, LowRank]]) -> None:
    for second in (by_hand(), by_hand(d_in=4)):
        with pytest.raises(LabError, match="They share none"):
            ll.widgets.Overlap(runs[0] if second.keys() else by_hand(), second)
    with pytest.raises(LabError, match="They share none"):
        ll.widgets.Overlap(by_hand(), by_hand(d_in=4))


@pytest.mark.parametrize("named", [{"of": "b"}, {"side": "up"}, {"of": "a", "side": "out"}, {"matrix": "no.such"}])
def test_vectors_that_there_are_not_are_refused(runs: Runs, named: dict[str, str]) -> None:
    with pytest.raises(LabError, match="must be"):
        ll.widgets.Overlap(runs[0], runs[1], **named)


def test_a_of_a_method_that_trains_none_of_its_own_is_refused(runs: Runs, tmp_path: object) -> None:
    full = ll.train("digits", ll.MethodSpec(method="full"), steps=1, runs=tmp_path)
    with pytest.raises(LabError, match="not what was trained"):
        ll.widgets.Overlap(runs[0], full, of="a")
    widget = ll.widgets.Overlap(runs[0], full, matrix=Q)
    assert widget.of.disabled
    shown = panels(widget)
    widget.of.value = "a"
    assert "not what was trained" in widget.refused
    assert panels(widget) == shown


@pytest.mark.parametrize("shown", [ll.widgets.Overlap, lambda one, other: ll.widgets.Microscope(one, beside=other)])
def test_what_is_drawn_is_computed_once(runs: Runs, shown: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, ...]] = []
    for name in ("overlap_of", "control_of"):
        core = getattr(pairs, name)
        monkeypatch.setattr(pairs, name, lambda *a, name=name, core=core, **k: asked.append((name, *a)) or core(*a, **k))
    widget = shown(runs[0], runs[1])
    assert [name for name, *_ in asked] == ["overlap_of", "control_of"]
    first, widget.matrix.value = widget.matrix.value, Q
    widget.matrix.value = first
    assert [name for name, *_ in asked] == ["overlap_of", "control_of"] * 2
