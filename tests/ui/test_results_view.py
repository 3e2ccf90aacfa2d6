"""The Results view's handlers as plain functions."""

from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pandas as pd
import pytest

import lora_lab as ll
from lora_lab.errors import StoreError
from lora_lab.plots.leader_captions import ranking_caption
from lora_lab.sweeps import RunStore
from lora_lab.sweeps.configurations import rank_configurations
from lora_lab.ui import results as view
from lora_lab.ui.lab import Lab
from lora_lab.ui.page import build
from lora_lab.ui.selection import Selection

DIGITS = Selection(kept="digits")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """q at r 2 and q, v at r 1 train as many parameters; two seeds each, and a BitFit run."""
    folder = tmp_path_factory.mktemp("results") / "runs"
    for targets, r in ((("q_proj",), 2), (("q_proj", "v_proj"), 1)):
        grid = ll.SweepSpec(r=(r,), targets=(targets,), seeds=(0, 1), steps=8)
        ll.sweep("digits", grid, runs=folder, runner="inline")
    ll.train("digits", ll.MethodSpec(method="bitfit"), steps=8, runs=folder)
    return folder


@pytest.fixture
def results(runs: Path) -> view.ResultsView:
    return view.ResultsView(Lab(RunStore(runs)))


def asked(**query: str) -> Any:
    return SimpleNamespace(query_params=query)


def test_the_page_has_the_view_at_its_address(results: view.ResultsView) -> None:
    assert ("results", "Results") in [tuple(route[:2]) for route in build(results.lab).pages]


def test_it_opens_on_the_bench_selected_and_offers_the_methods_that_it_has(results: view.ResultsView) -> None:
    selection, _, benches, methods = results.restore(asked(bench="digits", only="bitfit,dora"))
    assert (selection.kept, selection.only) == ("digits", ("bitfit",))
    assert benches.value == "digits"
    assert [value for _, value in methods.choices] == ["lora", "bitfit"]
    assert results.restore(asked(bench="reviews"))[0].kept == "digits"  # there are runs of no other


def test_what_is_shown_is_what_the_core_says(results: view.ResultsView) -> None:
    counts, ranking, says, parallel, ranks, targets, runs, mark = results.watch(DIGITS, (), "")
    wanted = rank_configurations(results.lab.store.runs())
    assert "<b>5</b> finished" in counts
    assert ranking_caption(wanted) in unescape(says)
    assert ranking.count('class="lab-place"') == len(wanted.ranked) == 3
    assert {axis.label for axis in parallel.data[0].dimensions} >= {"method", "r", "targets", "seed", "accuracy"}
    assert all(title in ranks for title in ("<th>r 1</th>", "<th>r 2</th>"))
    assert "<th>q r 2</th>" in targets
    assert "<th>q,v r 1</th>" in targets
    assert runs.count("data-pick") == 5
    assert results.watch(DIGITS, (), mark) == [gr.skip()] * 8  # nothing is sent where nothing changed


def test_only_the_methods_chosen_are_shown(results: view.ResultsView) -> None:
    shown = results.watch(results.choose(DIGITS, "digits", ["bitfit"])[0], (), "")
    assert "<b>1</b> finished" in shown[0]
    assert "BitFit" in shown[1]
    assert "It needs finished LoRA runs of two choices of targets" in shown[5]


def test_files_hold_every_run_shown(results: view.ResultsView) -> None:
    ids = {run.run_id for run in results.lab.store.runs()}
    assert set(pd.read_csv(results.save_csv(DIGITS))["run_id"]) == ids
    assert Path(results.save_csv(DIGITS)).parent in results.lab.exports._folders
    assert set(pd.read_parquet(results.save_parquet(DIGITS))["run_id"]) == ids
    with pytest.raises(gr.Error, match="at least one"):
        results.save_csv(Selection(kept="reviews"))


def test_runs_are_ticked_asked_about_and_deleted(results: view.ResultsView, tmp_path: Path) -> None:
    results.lab = Lab(RunStore(tmp_path / "runs"))
    kept, gone = (ll.train("digits", steps=1, seed=seed, runs=tmp_path / "runs") for seed in (0, 1))
    picked, listed, delete, *_ = results.pick(DIGITS, (), gr.EventData(None, {"pick": gone.run_id}))
    assert picked == (gone.run_id,)
    assert listed.count('aria-checked="true"') == 1
    assert (delete.value, delete.interactive) == ("Delete 1 run…", True)
    assert results.pick(DIGITS, picked, gr.EventData(None, {"pick": gone.run_id}))[0] == ()
    assert [button.visible for button in results.confirm(picked)] == [False, True, True]
    assert len(results.lab.store.runs()) == 2  # asked, not done
    assert results.remove(DIGITS, picked)[0] == ()
    assert [run.run_id for run in results.lab.store.runs()] == [kept.run_id]


def test_in_public_a_visitor_deletes_and_sees_no_runs_but_their_own(results: view.ResultsView) -> None:
    results.lab.public = True
    run = results.lab.store.runs()[0]
    assert "No run of this bench" in results.watch(DIGITS, (), "")[6]
    results.remove(DIGITS, (run.run_id,))
    assert len(results.lab.store.runs()) == 5


def test_a_store_that_cannot_be_read_is_one_sentence(results: view.ResultsView, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(_: object) -> Any:
        raise StoreError("The store must be a folder. Got none.")

    monkeypatch.setattr(results.lab, "visible_runs", lost)
    event = gr.EventData(None, {"pick": "1"})
    handlers: list[tuple[Any, tuple[Any, ...]]] = [
        (results.restore, (asked(),)),
        (results.choose, (DIGITS, "digits", [])),
        (results.watch, (DIGITS, (), "")),
        (results.pick, (DIGITS, (), event)),
        (results.untick, (DIGITS,)),
    ]
    for handler, given in handlers:
        with pytest.raises(gr.Error, match="The store must be a folder"):
            handler(*given)
