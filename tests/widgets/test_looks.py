"""What the widgets that look at ΔW have in common: two of them do not meet, and none leaves anything behind."""

from collections.abc import Callable

import pytest
import torch
from ipywidgets.widgets.widget import _instances as LIVE

import lora_lab as ll
from lora_lab import LabError, LowRank, Run

Q, V = "vit.layers.0.attention.q_proj", "vit.layers.3.attention.v_proj"
Runs = tuple[Run, Run, Run]
MAKE: dict[str, Callable[..., object]] = {
    "Spectrum": lambda runs, **named: ll.widgets.Spectrum(runs[0], **named),
    "Overlap": lambda runs, **named: ll.widgets.Overlap(runs[0], runs[1], **named),
    "Amplification": lambda runs, **named: ll.widgets.Amplification(runs[0], **named),
    "Microscope": lambda runs, **named: ll.widgets.Microscope(runs[0], **named),
    "Microscope beside": lambda runs, **named: ll.widgets.Microscope(runs[0], beside=runs[1], **named),
    "Merge": lambda runs, **named: ll.widgets.Merge(runs[0], **named),
}
each = pytest.mark.parametrize("name", MAKE)


@each
def test_made_twice_there_are_two_and_each_closes_whole(name: str, runs: Runs) -> None:
    before = len(LIVE)
    one, other = MAKE[name](runs), MAKE[name](runs)
    one.matrix.value = Q  # type: ignore[attr-defined]
    assert other.matrix.value == V  # type: ignore[attr-defined]
    one.close()  # type: ignore[attr-defined]
    other.matrix.value = Q  # type: ignore[attr-defined]
    other.close()  # type: ignore[attr-defined]
    assert len(LIVE) == before


@each
def test_a_matrix_that_there_is_not_is_one_sentence_and_leaves_no_widget(name: str, runs: Runs) -> None:
    before = len(LIVE)
    with pytest.raises(LabError, match=rf"The matrix parameter of {name.split()[0]} must be one of .*{Q}.* Got 'no\.such'\."):
        MAKE[name](runs, matrix="no.such")
    assert len(LIVE) == before


@each
def test_a_run_that_changes_no_matrix_is_said(name: str, runs: Runs, tmp_path: object) -> None:
    biases = ll.train("digits", ll.MethodSpec(method="bitfit"), steps=1, runs=tmp_path)
    with pytest.raises(LabError, match=r"at least one matrix"):
        MAKE[name]((biases, runs[0]))


@pytest.mark.parametrize("widget", ["Amplification", "Merge"])
def test_a_base_of_other_shapes_leaves_no_widget(widget: str, by_hand: Callable[..., dict[str, LowRank]]) -> None:
    before, made = len(LIVE), by_hand()
    with pytest.raises(LabError, match="one shape"):
        getattr(ll.widgets, widget)(made, {name: torch.ones(8, 8) for name in made})
    assert len(LIVE) == before


def test_matrices_of_one_label_are_told_by_their_names() -> None:
    made = {f"{stack}.0.q_proj": LowRank(torch.ones(4, 1), torch.ones(1, 4), 1.0) for stack in ("encoder", "decoder")}
    widget = ll.widgets.Spectrum(made)
    labels = [label for label, _ in widget.matrix.options]
    assert len(set(labels)) == 2
    assert all(name in label for label, name in widget.matrix.options)
