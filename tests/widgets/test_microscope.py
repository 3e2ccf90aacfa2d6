"""Microscope shows a measure of every matrix, and of the one chosen what Spectrum and Overlap show."""

import re
from collections.abc import Callable

import pytest

import lora_lab as ll
from lora_lab import LabError, LowRank, Run
from lora_lab.analysis import amplification_factor, frobenius_share
from lora_lab.plots.measures import MATRIX_MEASURES

Q, V = "vit.layers.0.attention.q_proj", "vit.layers.3.attention.v_proj"
Runs = tuple[Run, Run, Run]


def cells(widget: object) -> dict[str, str]:
    return dict(re.findall(r'data-pick="([^"]+)".*?>([^<]*)</button>', widget.map.drawn))  # type: ignore[attr-defined]


def test_the_map_is_the_chosen_measure_of_every_matrix(runs: Runs) -> None:
    run, other, _ = runs
    widget = ll.widgets.Microscope(run, beside=other)
    adapter, base, phi = run.adapter(), run.base(), ll.overlap(run.adapter(), other.adapter())
    spectra = ll.spectrum(adapter)
    assert widget.spectra == spectra
    expected = {
        **{name: {one.name: getattr(one, name) for one in spectra} for name in ("frobenius", "stable_rank", "rank_for_95")},
        "share": {name: frobenius_share(name, delta, base.named(name)) for name, delta in adapter.items()},
        "factor": {name: amplification_factor(name, delta, base.named(name)) for name, delta in adapter.items()},
        "phi": {one.name: one.mean_above_chance for one in phi},
    }
    for measure, values in expected.items():
        widget.measure.value = measure
        assert widget.values == values
        assert cells(widget) == {name: MATRIX_MEASURES[measure].text(value) for name, value in values.items()}


def test_a_click_on_the_map_chooses_the_matrix(runs: Runs) -> None:
    widget = ll.widgets.Microscope(runs[0], beside=runs[1])
    widget.map.pick(Q)
    assert widget.matrix.value == Q
    assert re.search(rf'data-pick="{Q}"[^>]*aria-pressed="true"', widget.map.drawn)
    one = next(one for one in widget.spectra if one.name == Q)
    assert list(widget.answer.plot.data[0].y) == list(one.singular_values)
    (phi,) = ll.overlap(runs[0].adapter(), runs[1].adapter(), module=Q)
    assert widget.record == phi
    assert tuple(map(tuple, widget.compared.plot.data[0].z)) == phi.phi


def test_measures_that_cannot_be_had_are_not_offered(by_hand: Callable[..., dict[str, LowRank]]) -> None:
    alone = ll.widgets.Microscope(by_hand())
    assert {value for _, value in alone.measure.options} == {"frobenius", "stable_rank", "effective_rank", "rank_for_95"}
    base = {name: delta.dense() for name, delta in by_hand(1).items()}
    widget = ll.widgets.Microscope(by_hand(), base=base, beside=by_hand(1), measure="factor")
    assert {"share", "factor", "phi"} <= {value for _, value in widget.measure.options}
    assert set(widget.values) == set(base)


def test_a_matrix_that_the_other_does_not_adapt_is_said(
    by_hand: Callable[..., dict[str, LowRank]], text: Callable[[object], str]
) -> None:
    one, other = by_hand(), {"layers.0.q_proj": by_hand(1)["layers.0.q_proj"]}
    widget = ll.widgets.Microscope(one, beside=other)
    assert widget.record is None
    assert "does not adapt this matrix" in text(widget.compared)
    with pytest.raises(LabError, match="beside"):
        widget.figure("overlap")
    widget.matrix.value = "layers.0.q_proj"
    assert widget.record == ll.overlap(one, other)[0]
    assert tuple(map(tuple, widget.figure("overlap").data[0].z)) == widget.record.phi


def test_the_map_as_a_figure_has_the_same_numbers(runs: Runs) -> None:
    widget = ll.widgets.Microscope(runs[0])
    drawn = {value for row in widget.figure("map").data[0].z for value in row if value is not None}
    assert drawn == set(widget.values.values())
    assert [list(t.y) for t in widget.figure().data] == [list(t.y) for t in widget.answer.plot.data]


def test_no_change_has_no_direction(by_hand: Callable[..., dict[str, LowRank]], text: Callable[[object], str]) -> None:
    widget = ll.widgets.Microscope(by_hand(scaling=0.0), measure="stable_rank")
    assert set(widget.values.values()) == {None}
    assert set(cells(widget).values()) == {""}
    assert "no direction" in widget.figure().layout.annotations[0].text
    assert "zero" in text(widget.answer)


@pytest.mark.parametrize("named", [{"measure": "phi"}, {"measure": "nonsense"}, {"matrix": "no.such"}])
def test_what_is_not_there_is_refused(runs: Runs, named: dict[str, str]) -> None:
    with pytest.raises(LabError, match="must be one of"):
        ll.widgets.Microscope(runs[0], **named)
