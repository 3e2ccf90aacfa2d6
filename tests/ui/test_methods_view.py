"""The Methods view's handlers as plain functions."""

import csv
import json
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from lora_lab.analysis.comparison import compare
from lora_lab.errors import SpecError
from lora_lab.plots.method_captions import methods_caption
from lora_lab.specs import METHODS
from lora_lab.sweeps import RunStore
from lora_lab.ui import job_place
from lora_lab.ui import methods as view
from lora_lab.ui.lab import Lab
from lora_lab.ui.page import build
from lora_lab.ui.selection import Selection

SMALL = Selection(compared=("lora", "bitfit"), budgets="2", factors="1", trials=(0, 1), steps=4)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(RunStore(tmp_path / "runs"))


@pytest.fixture
def trained(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> tuple[view.MethodsView, Selection]:
    """A small bench that was started on the page and has ended."""
    monkeypatch.setattr(job_place, "runs_inline", lambda: True)
    methods_view = view.MethodsView(lab)
    outputs = list(methods_view.begin(SMALL))
    return methods_view, outputs[0][0]


def asked(**query: str) -> Any:
    return SimpleNamespace(query_params=query)


def test_the_page_has_the_view_at_its_address(lab: Lab) -> None:
    page = build(lab)
    assert ("methods", "Methods") in [tuple(route[:2]) for route in page.pages]


def test_the_selection_comes_back_from_the_address(lab: Lab) -> None:
    restored = view.MethodsView(lab).restore(asked(**dict(pair.split("=") for pair in SMALL.query().split("&"))))
    assert restored[0] == SMALL
    assert restored[2:6] == [["lora", "bitfit"], "2", "1", [0, 1]]


def test_an_address_that_asks_for_what_is_not_offered_falls_back(lab: Lab) -> None:
    wrong = asked(bench="/etc", compared="lora,magic", trials="0,99", pay="money", get="glory")
    restored = view.MethodsView(lab).restore(wrong)[0]
    assert restored == Selection(compared=("lora",), trials=(0,))


def test_none_chosen_is_all_that_the_base_can_take_and_says_what_is_left_out(lab: Lab) -> None:
    shown = view.MethodsView(lab).show_plan(Selection())
    offered = {value for _, value in shown[3].choices}
    assert {"lora", "full", "bitfit"} <= offered
    assert "prefix" not in offered
    assert "Prefix tuning" in shown[4]
    assert len(offered) == len({grid.plan.tuning.method for grid in view.MethodsView(lab)._plan(Selection()).grids})


@pytest.mark.parametrize(
    ("selection", "sentence"),
    [
        (Selection(budgets="two"), "The budgets must be numbers with commas between them"),
        (Selection(trials=()), "The seeds parameter of MethodBenchSpec"),
        (Selection(compared=("prefix",)), "past keys and values"),
    ],
)
def test_what_cannot_be_is_a_sentence_before_anything_runs(lab: Lab, selection: Selection, sentence: str) -> None:
    methods_view = view.MethodsView(lab)
    assert sentence in methods_view.show_plan(selection)[5].replace("&#x27;", "'")
    with pytest.raises(gr.Error, match=sentence):
        next(methods_view.begin(selection))
    assert not lab.jobs


def test_in_public_a_bench_is_bounded_with_the_rates_that_it_may_grow_by(lab: Lab) -> None:
    lab.public = True
    fits = Selection(compared=("bitfit",), trials=(0, 1, 2), steps=10)  # 9 runs, 15 where the grid grows
    assert len(view.MethodsView(lab)._plan(fits).most_runs()) == 15
    too_many = Selection(compared=("bitfit",), trials=(0, 1, 2, 3), steps=10)  # 12, and 20
    with pytest.raises(gr.Error, match=r"at most 16 runs\. Got 20"):
        next(view.MethodsView(lab).begin(too_many))
    assert not lab.jobs


def test_a_bench_started_on_the_page_is_shown_as_the_core_says_it(trained: tuple[view.MethodsView, Selection]) -> None:
    methods_view, selection = trained
    shown = methods_view.watch(selection, "")
    table = methods_view._table(selection)
    comparison = compare(table)
    assert 'data-state="finished"' in shown[0]
    for placed in comparison.order:
        assert METHODS[placed.row.method].label in shown[1]
        assert table.metric.text(placed.row.mean) in shown[1]
    assert methods_caption(table, comparison).split(":")[0].split("±")[0] in shown[2]
    assert {trace.name for trace in shown[5].data} >= {"LoRA", "BitFit"}
    assert len(shown[6].data) == 2
    assert shown[8].interactive
    assert not shown[10].active


def test_nothing_is_drawn_again_where_nothing_changed(trained: tuple[view.MethodsView, Selection]) -> None:
    methods_view, selection = trained
    mark = methods_view.watch(selection, "")[-1]
    again = methods_view.watch(selection, mark)
    assert again[1] == gr.skip()
    assert again[-1] == mark


@pytest.mark.usefixtures("trained")
def test_what_the_store_has_is_shown_without_a_job(lab: Lab) -> None:
    fresh = view.MethodsView(Lab(lab.store))
    shown = fresh.watch(SMALL, "")
    assert "method-table" in shown[1]
    assert "4 runs, 4 of them in the store already" in shown[7]


@pytest.mark.usefixtures("trained")
def test_in_public_nobody_sees_the_runs_of_others(lab: Lab) -> None:
    stranger = Lab(lab.store, public=True)
    assert "method-table" not in view.MethodsView(stranger).watch(SMALL, "")[1]


def test_two_other_columns_are_drawn_and_kept_in_the_address(trained: tuple[view.MethodsView, Selection]) -> None:
    methods_view, selection = trained
    chosen, header, figure = methods_view.choose_axes("step_s", "after", selection)
    assert (chosen.pay, chosen.get) == ("step_s", "after")
    assert "pay=step_s" in header
    assert figure.layout.xaxis.title.text == "seconds a step"


def test_files_to_take_along_hold_every_run(trained: tuple[view.MethodsView, Selection], lab: Lab) -> None:
    methods_view, selection = trained
    lines = list(csv.DictReader(Path(methods_view.save_csv(selection)).read_text().splitlines()))
    assert {line["method"] for line in lines} == {"lora", "bitfit"}
    assert Path(methods_view.save_csv(selection)).parent in methods_view.lab.exports._folders
    with zipfile.ZipFile(methods_view.save_peft(selection)) as archive:
        records = [json.loads(archive.read(name)) for name in archive.namelist()]
    assert len(records) == 4
    assert {record["run_info"]["train_config"]["seed"] for record in records} == {0, 1}


def test_another_bench_brings_its_own_steps_and_shows_its_own_runs(lab: Lab) -> None:
    selection, steps = view.MethodsView(lab).choose_bench("reviews", SMALL)
    assert (selection.bench, selection.steps) == ("reviews", None)
    assert steps == view.find_bench("reviews").defaults.steps


def test_a_text_that_is_no_list_of_numbers_is_named() -> None:
    with pytest.raises(SpecError, match="The learning rates must be numbers"):
        view.spec_of(Selection(factors="0.3;1"))
