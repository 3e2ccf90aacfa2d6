"""Spectrum shows the singular values that `ll.spectrum` gives, of the matrix that its menu names."""

from collections.abc import Callable
from itertools import accumulate

import pytest
import torch
from ipywidgets.widgets.widget import _instances as LIVE

import lora_lab as ll
from lora_lab import LabError, LowRank, Run
from lora_lab.analysis.noise import noise_of
from lora_lab.errors import AdapterError
from lora_lab.plots import spectrum_caption
from lora_lab.plots.look_captions import noise_caption

Q, V = "vit.layers.0.attention.q_proj", "vit.layers.3.attention.v_proj"
Runs = tuple[Run, Run, Run]


def of(run: Run, matrix: str) -> object:
    return next(one for one in ll.spectrum(run.adapter()) if one.name == matrix)


def drawn(widget: object, name: str) -> list[float]:
    trace = next(trace for trace in widget.answer.plot.data if trace.name == name)  # type: ignore[attr-defined]
    return [value for value in trace.y if value is not None]


def test_what_is_drawn_is_what_the_core_gives_and_follows_the_menu(runs: Runs) -> None:
    widget = ll.widgets.Spectrum(*runs)
    assert widget.matrix.value == V
    for matrix in (V, Q):
        widget.matrix.value = matrix
        assert widget.spectra == tuple(of(run, matrix) for run in runs)
        for label, one in zip(("r 4 · seed 0", "r 4 · seed 1", "r 2 · seed 0"), widget.spectra, strict=True):
            assert drawn(widget, label) == list(one.singular_values)
    assert widget.runs == runs


def test_the_toggle_shows_the_energy_under_its_own_question(runs: Runs, text: Callable[[object], str]) -> None:
    widget = ll.widgets.Spectrum(runs[0], matrix=Q)
    one = of(runs[0], Q)
    assert text(widget.answer) == noise_caption("r 4 · seed 0", one, noise_of(one))  # type: ignore[arg-type]
    widget.view.value = "energy"
    energies = [s * s for s in one.singular_values]  # type: ignore[attr-defined]
    assert drawn(widget, "r 4 · seed 0") == pytest.approx([part / sum(energies) for part in accumulate(energies)])
    assert text(widget.answer) == spectrum_caption([("r 4 · seed 0", one)])  # type: ignore[list-item]
    assert "How few would do?" in widget.answer.children[0].value


def test_the_figure_is_the_one_that_is_shown(runs: Runs) -> None:
    widget = ll.widgets.Spectrum(*runs)
    for view in ("sigma", "energy"):
        widget.view.value = view
        shown, exported = widget.answer.plot, widget.figure()
        assert [list(trace.y) for trace in shown.data] == [list(trace.y) for trace in exported.data]
        assert shown.layout.yaxis.title.text == exported.layout.yaxis.title.text
    assert widget.figure("sigma").layout.yaxis.title.text.startswith("singular value")


def test_matrices_made_by_hand_are_shown(by_hand: Callable[..., dict[str, LowRank]]) -> None:
    made = by_hand()
    widget = ll.widgets.Spectrum(made)
    expected = torch.linalg.svdvals(made["layers.1.q_proj"].dense())[:3]
    assert drawn(widget, "ΔW") == pytest.approx(expected.tolist())


def test_a_folder_and_an_id_are_shown_as_their_run(runs: Runs) -> None:
    run = runs[0]
    sources = (run, run.run_id, str(run.folder), run.adapter_dir)
    shown = [ll.widgets.Spectrum(source, runs=run.folder.parent).spectra for source in sources]
    assert shown == [shown[0]] * len(sources)


def test_no_change_has_no_direction(by_hand: Callable[..., dict[str, LowRank]], text: Callable[[object], str]) -> None:
    widget = ll.widgets.Spectrum(by_hand(scaling=0.0))
    assert "no direction" in widget.figure().layout.annotations[0].text
    widget.view.value = "energy"
    assert "no direction" in text(widget.answer)
    assert widget.spectra[0].stable_rank is None


def test_an_adapter_without_the_matrix_is_left_out_of_its_picture(runs: Runs, by_hand: Callable[..., dict[str, LowRank]]) -> None:
    widget = ll.widgets.Spectrum(runs[0], by_hand())
    assert len(widget.spectra) == 1
    widget.matrix.value = "layers.0.q_proj"
    assert widget.spectra[0].r == 3
    assert widget.answer.plot.data[0].name == "ΔW"


def test_adapters_are_shown_first_where_all_have_the_matrix(by_hand: Callable[..., dict[str, LowRank]]) -> None:
    wide = by_hand()
    narrow = {"layers.0.q_proj": by_hand(1)["layers.0.q_proj"]}
    assert ll.widgets.Spectrum(wide, narrow).matrix.value == "layers.0.q_proj"


def test_arguments_that_show_nothing_are_one_sentence_and_leave_no_widget(runs: Runs) -> None:
    before = len(LIVE)
    for subjects, named in (((), {}), ((runs[0],), {"matrix": "no.such"}), (({},), {}), (("nowhere/at/all",), {})):
        with pytest.raises(LabError, match="must"):
            ll.widgets.Spectrum(*subjects, **named)
    assert len(LIVE) == before


@pytest.mark.parametrize("source", ["a" * 300, "~nosuchuser/x"])
def test_a_name_that_no_disk_can_have_is_refused_in_one_sentence(source: str) -> None:
    with pytest.raises(AdapterError, match=r"must be a folder, a file or a Hub id that exists\. Got "):
        ll.widgets.Spectrum(source)
