"""The paper's room: recorded results at once, and the store's own runs."""

from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

import lora_lab as ll
from lora_lab.benches import find_bench
from lora_lab.errors import StoreError
from lora_lab.report import findings, plan_reproduction, recorded, recorded_names
from lora_lab.sweeps import RunStore
from lora_lab.ui.lab import Lab
from lora_lab.ui.page import build
from lora_lab.ui.paper import PaperView
from lora_lab.ui.selection import Selection


@pytest.fixture
def paper(tmp_path: Path) -> PaperView:
    view = PaperView(Lab(RunStore(tmp_path / "runs")))
    build(view.lab)
    return view


def asked(**query: str) -> Any:
    return SimpleNamespace(query_params=query)


def texts(shown: list[Any]) -> str:
    return unescape(" ".join(part for part in shown if isinstance(part, str)))


def test_it_opens_on_what_is_recorded(paper: PaperView) -> None:
    selection, _, source = paper.restore(asked(paper="nothing of the kind"))
    assert selection.paper == source.value == "digits"


def test_every_claim_stands_with_the_verdict_and_the_sentence_of_the_core(paper: PaperView) -> None:
    told = texts(paper.show(Selection(paper="digits")))
    found = findings(recorded("digits").evidence)
    assert len(found) == 5
    for finding in found:
        assert finding.paragraph in told
        assert finding.claim in told
    assert recorded("digits").source.date in told


def test_figures_are_drawn_for_the_analyses_that_have_them(paper: PaperView) -> None:
    plots = [part for part in paper.show(Selection(paper="digits")) if isinstance(part, gr.Plot) and part.visible]
    assert len(plots) == 3 + 3 + 2


def test_the_stores_own_runs_are_offered_and_gaps_are_said(paper: PaperView) -> None:
    plan = plan_reproduction(find_bench("digits"))
    spec = plan.by_rank[0]
    ll.train("digits", spec.tuning, seed=spec.seed, steps=spec.steps, runs=paper.lab.store.root)
    source = paper.restore(asked())[2]
    assert ("digits, this store", "own:digits") in source.choices
    told = texts(paper.show(Selection(paper="own:digits")))
    assert f"1 of the {len(plan.specs)} runs that section 7 takes are in this store" in told
    assert "Not all of these runs are there." in told


def test_in_public_nobody_sees_the_runs_of_others(paper: PaperView) -> None:
    ll.train("digits", steps=1, runs=paper.lab.store.root)
    paper.lab.public = True
    assert [value for _, value in paper.restore(asked(paper="own:digits"))[2].choices] == list(recorded_names())
    with pytest.raises(gr.Error, match="Got 'own:digits'"):
        paper.show(Selection(paper="own:digits"))  # as a request of one's own making would ask


def test_what_cannot_be_shown_is_one_sentence(paper: PaperView, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(gr.Error, match="Got 'own:nowhere'"):
        paper.show(Selection(paper="own:nowhere"))

    def lost() -> Any:
        raise StoreError("The store must be a folder. Got none.")

    monkeypatch.setattr(paper.lab.store, "runs", lost)
    with pytest.raises(gr.Error, match="The store must be a folder"):
        paper.restore(asked())
