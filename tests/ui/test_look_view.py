"""The Look view's handlers as plain functions."""

from pathlib import Path
from typing import Any

import pytest

from lora_lab import LoraSpec, RunStore, train
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


def test_singular_vectors_of_a_live_on_the_input_side(lab: Lab) -> None:
    shown = selection_shown(LookView(lab).choose(Selection(), "", "", "a", "out"))
    assert (shown.of, shown.side) == ("a", "in")
