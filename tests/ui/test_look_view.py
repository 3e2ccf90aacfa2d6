"""The Look view's handlers as plain functions."""

from html import unescape
from pathlib import Path
from typing import Any

import pytest

from lora_lab import LoraSpec, MethodSpec, RunStore, train
from lora_lab.inference import merge_report
from lora_lab.plots import merge_caption
from lora_lab.specs import METHODS
from lora_lab.ui.lab import Lab
from lora_lab.ui.look import LookView
from lora_lab.ui.selection import Selection


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """A q,v run, another seed of it, and a run on other matrices."""
    runs = tmp_path_factory.mktemp("runs")
    for seed, targets in ((0, ("q", "v")), (1, ("q", "v")), (0, ("up",))):
        train("digits", LoraSpec(r=2, target_modules=targets), steps=5, seed=seed, runs=runs)
    return Lab(RunStore(runs))


def selection_shown(outputs: list[Any]) -> Selection:
    return outputs[0]


def test_an_empty_store_says_what_to_do(tmp_path: Path) -> None:
    outputs = LookView(Lab(RunStore(tmp_path / "runs"))).show(Selection())
    assert "Train one first" in outputs[6]


def test_the_first_comparison_is_another_seed_of_the_same_rank(lab: Lab) -> None:
    run = next(r for r in lab.store.runs() if r.spec.seed == 1)
    shown = selection_shown(LookView(lab).show(Selection(run=run.run_id)))
    assert lab.store.get(shown.against).spec.seed == 0
    assert lab.store.get(shown.against).spec.tuning == run.spec.tuning


def test_a_matrix_that_run_2_does_not_adapt_is_said(lab: Lab) -> None:
    q_v, up = (next(r for r in lab.store.runs() if r.spec.tuning.target_modules[0] == t) for t in ("q_proj", "fc1"))
    outputs = LookView(lab).show(Selection(run=q_v.run_id, against=up.run_id))
    assert "does not adapt layer 3 · v" in outputs[-1]


def test_of_two_runs_a_matrix_that_both_adapt_is_shown_first(tmp_path: Path) -> None:
    wide = train("digits", LoraSpec(r=2, target_modules=("q", "up")), steps=2, runs=tmp_path)
    narrow = train("digits", LoraSpec(r=2, target_modules=("q",)), steps=2, runs=tmp_path)
    shown = selection_shown(LookView(Lab(RunStore(tmp_path))).show(Selection(run=wide.run_id, against=narrow.run_id)))
    assert shown.matrix == "vit.layers.3.attention.q_proj"


def test_singular_vectors_of_a_live_on_the_input_side(lab: Lab) -> None:
    shown = selection_shown(LookView(lab).choose(Selection(), "", "", "a", "out"))
    assert (shown.of, shown.side) == ("a", "in")


def test_every_method_is_read_or_said_to_change_no_matrix(tmp_path: Path) -> None:
    methods = ("dora", "vera", "adalora", "ia3", "partial", "full", "bitfit", "adapter", "ln_tuning")
    runs = {method: train("digits", MethodSpec(method=method, r=2), steps=2, runs=tmp_path) for method in methods}
    look = LookView(Lab(RunStore(tmp_path)))
    for method, run in runs.items():
        outputs = look.show(Selection(run=run.run_id))
        assert METHODS[method].label in outputs[6]
        changes = method not in ("bitfit", "adapter", "ln_tuning")
        assert [row.visible for row in outputs[9:11]] == [changes, changes]
        assert ("lab-q" if changes else "no matrix.") in outputs[8]


def test_a_of_a_method_that_trains_no_a_of_its_own_is_not_offered(tmp_path: Path) -> None:
    run = train("digits", MethodSpec(method="full"), steps=1, runs=tmp_path)
    outputs = LookView(Lab(RunStore(tmp_path))).show(Selection(run=run.run_id, of="a"))
    assert selection_shown(outputs).of == "delta"
    assert not outputs[4].interactive


def test_merging_is_measured_or_refused_in_one_sentence(lab: Lab, tmp_path: Path) -> None:
    run = lab.store.runs()[0]
    shown = LookView(lab).measure_merge(Selection(run=run.run_id))
    assert merge_caption(merge_report(run.spec, run.adapter_dir)) in unescape(shown)
    bitfit = train("digits", MethodSpec(method="bitfit"), steps=1, runs=tmp_path)
    refused = LookView(Lab(RunStore(tmp_path))).measure_merge(Selection(run=bitfit.run_id))
    assert "there is nothing to merge" in refused
    assert "<table" not in refused


def test_in_public_nobody_merges_the_run_of_another(lab: Lab) -> None:
    public = Lab(lab.store, public=True)
    assert "There is no run to merge." in LookView(public).measure_merge(Selection(run=lab.store.runs()[0].run_id))
