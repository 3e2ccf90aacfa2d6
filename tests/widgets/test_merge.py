"""Merge shows W0, the best part of ΔW, and their sum."""

from base64 import b64decode
from collections.abc import Callable

import numpy as np
import pytest
import torch

import lora_lab as ll
from lora_lab import LabError, LowRank, Run
from lora_lab.analysis import merged_matrix
from lora_lab.plots.merged_matrices import merged_caption

Q, V = "vit.layers.0.attention.q_proj", "vit.layers.3.attention.v_proj"
Runs = tuple[Run, Run, Run]


def maps(widget: object) -> list[np.ndarray]:  # type: ignore[type-arg]
    """What went to the front end, as it lies in memory."""
    sent = [trace.z for trace in widget.answer.plot.data]  # type: ignore[attr-defined]
    shapes = [[int(side) for side in z["shape"].split(",")] for z in sent]
    return [np.frombuffer(b64decode(z["bdata"]), z["dtype"]).reshape(shape) for z, shape in zip(sent, shapes, strict=True)]


def test_the_slider_cuts_delta_to_its_strongest_directions(runs: Runs, text: Callable[[object], str]) -> None:
    run = runs[0]
    delta, w = run.adapter()[V], run.base().named(V)
    widget = ll.widgets.Merge(run)
    assert (widget.kept.min, widget.kept.max, widget.kept.value) == (0, 4, 4)
    u, s, vh = np.linalg.svd(delta.dense().numpy())
    for kept in (4, 2, 1, 0):
        widget.kept.value = kept
        base, change, merged = maps(widget)
        np.testing.assert_array_equal(base, w.double().numpy())
        np.testing.assert_allclose(change, (u[:, :kept] * s[:kept]) @ vh[:kept], atol=1e-6)
        np.testing.assert_allclose(merged, base + change, atol=1e-12)
        assert widget.record == merged_matrix(V, delta, w, kept=kept)
        assert text(widget.answer) == merged_caption(widget.record)


def test_the_whole_sum_is_what_merging_writes(runs: Runs) -> None:
    run = runs[0]
    widget = ll.widgets.Merge(run, matrix=Q)
    expected = run.base().named(Q).double() + run.adapter()[Q].dense()
    np.testing.assert_allclose(maps(widget)[2], expected.numpy(), atol=1e-12)


def test_another_matrix_begins_with_all_its_directions(by_hand: Callable[..., dict[str, LowRank]]) -> None:
    made = {**by_hand(), "layers.2.q_proj": by_hand(1, r=2)["layers.0.q_proj"]}
    base = {name: torch.zeros(12, 8) for name in made}
    widget = ll.widgets.Merge(made, base, kept=1)
    assert (widget.matrix.value, widget.kept.max, widget.kept.value) == ("layers.2.q_proj", 2, 1)
    widget.matrix.value = "layers.0.q_proj"
    assert (widget.kept.max, widget.kept.value, widget.record.kept) == (3, 3, 3)
    widget.matrix.value = "layers.2.q_proj"
    assert (widget.kept.max, widget.kept.value, widget.record.kept) == (2, 2, 2)


def test_no_change_leaves_w0_and_says_so(by_hand: Callable[..., dict[str, LowRank]], text: Callable[[object], str]) -> None:
    made = by_hand(scaling=0.0)
    widget = ll.widgets.Merge(made, {name: torch.ones(12, 8) for name in made})
    assert widget.kept.disabled
    assert "no direction" in text(widget.answer)
    base, change, merged = maps(widget)
    assert not change.any()
    assert (merged == base).all()


def test_a_large_matrix_is_shown_in_means_and_says_so(
    by_hand: Callable[..., dict[str, LowRank]], text: Callable[[object], str]
) -> None:
    made = by_hand(d_out=600, d_in=300)
    widget = ll.widgets.Merge(made, {name: torch.ones(600, 300) for name in made})
    assert maps(widget)[0].shape == (200, 150)
    assert "mean of 3 × 2 entries of the 600 × 300" in text(widget.answer)


def test_a_scale_of_its_own_is_drawn_where_it_is_asked_for(runs: Runs) -> None:
    widget = ll.widgets.Merge(runs[0])
    assert {trace.coloraxis for trace in widget.answer.plot.data} == {"coloraxis"}
    widget.own_scale.value = True
    assert widget.answer.plot.data[1].coloraxis == "coloraxis2" == widget.figure().data[1].coloraxis
    assert widget.answer.plot.layout.coloraxis2.cmax == np.abs(maps(widget)[1]).max()


def test_more_directions_than_there_are_and_no_base_are_refused(runs: Runs, by_hand: Callable[..., dict[str, LowRank]]) -> None:
    with pytest.raises(LabError, match=r"an int in 0\.\.4\. Got 5"):
        ll.widgets.Merge(runs[0], kept=5)
    with pytest.raises(LabError, match="must be given"):
        ll.widgets.Merge(by_hand())
