"""The Latency view's handlers as plain functions."""

import re
from dataclasses import replace
from html import unescape
from pathlib import Path

import gradio as gr
import pytest

import lora_lab as ll
from lora_lab import MethodSpec, RunStore, train
from lora_lab.analysis.timings import Shape
from lora_lab.budget.paper import table_1
from lora_lab.errors import SpecError
from lora_lab.ui import latency_html
from lora_lab.ui.lab import Lab
from lora_lab.ui.latency import LatencyView, check_public
from lora_lab.ui.selection import Selection

SMALL = Selection(shapes=("1", "8"), repeats=10, rank=2)


@pytest.fixture
def view(tmp_path: Path) -> LatencyView:
    return LatencyView(Lab(RunStore(tmp_path / "runs")))


def test_an_image_bench_offers_batch_sizes_and_chooses_its_own(view: LatencyView) -> None:
    chips = view.show(Selection())[4]
    assert [text for _, text in chips.choices] == ["1", "8", "64", "256"]
    assert (chips.value, chips.label) == (["1", "8", "64"], "Batch sizes")


def test_what_the_address_names_wrongly_falls_back(view: LatencyView) -> None:
    selection = view.show(Selection(bench="nothing", rank=3, repeats=7, shapes=("8x128", "8"), run="gone"))[0]
    assert (selection.bench, selection.rank, selection.repeats, selection.shapes) == ("digits", 8, 20, ("8",))


def test_the_choices_travel_in_the_address(view: LatencyView) -> None:
    selection = view.choose(Selection(), "digits", 4, ["1", "64"], 50, "")[0]
    assert selection.query() == "shapes=1,64&repeats=50&rank=4"
    assert Selection.from_query({"shapes": "1,64", "repeats": "50", "rank": "4"}) == selection


def test_another_bench_clears_what_was_measured(view: LatencyView) -> None:
    *_, plot, says, table, gpu, logits, switching = view.choose_bench("digits:noised", SMALL)
    assert plot.visible is False
    assert "Nothing is measured yet" in says
    assert (table, gpu, logits, switching) == ("", "", "", "")


def test_times_come_first_then_logits_then_switching(view: LatencyView) -> None:
    first, times, logits, switching = view.run_all(SMALL)
    assert "batch 8" not in first[2]
    plot, says, table, gpu = times[:4]
    assert plot.visible is True
    assert "LoRA" in says
    for name in ("Base", "LoRA, merged", "LoRA, beside the base", "Adapter (Houlsby)", "Adapter (Pfeiffer)"):
        assert name in table
    assert "Prefix tuning gives attention past keys and values" in unescape(table)
    assert "no GPU was measured" in gpu
    assert times[4:] == [gr.skip()] * 2
    assert "bf16" in logits[4]
    assert "a random LoRA of r = 2" in logits[4]
    assert "another adapter, from its file" in switching[5]
    assert "100 tasks take 61.8 MB as models" in switching[5]


def test_a_run_of_the_bench_is_merged_in_place_of_a_random_adapter(tmp_path: Path) -> None:
    run = train("digits", ll.LoraSpec(r=2), steps=3, runs=tmp_path)
    train("digits", MethodSpec(method="bitfit"), steps=3, runs=tmp_path)
    view = LatencyView(Lab(RunStore(tmp_path)))
    choices = view.show(Selection())[6].choices
    assert [value for _, value in choices] == ["", run.run_id]  # what is no matrix merges into none
    *_, logits, _ = [one[4] for one in view.run_all(replace(SMALL, run=run.run_id))]
    assert f"the LoRA of run {run.run_id}" in logits
    assert view.show(Selection(bench="digits:noised"))[6].visible is False


def test_a_visitor_of_a_public_page_measures_within_bounds(tmp_path: Path) -> None:
    view = LatencyView(Lab(RunStore(tmp_path / "runs"), public=True))
    with pytest.raises(gr.Error, match="must have at most 20 rounds"):
        list(view.run_all(replace(SMALL, repeats=100)))


@pytest.mark.parametrize(
    ("shapes", "repeats", "sentence"),
    [
        ((Shape(1, 32),), 50, "at most 20 rounds. Got 50"),
        ((Shape(1),) * 4, 20, "at most 3 shapes. Got 4"),
        ((Shape(32, 128),), 20, "at most 1,024 tokens or images in a batch. Got 4,096"),
    ],
)
def test_each_bound_says_what_it_is(shapes: tuple[Shape, ...], repeats: int, sentence: str) -> None:
    with pytest.raises(SpecError, match=re.escape(sentence)):
        check_public(shapes, repeats)
    check_public((Shape(8, 128),) * 3, 20)


def test_the_papers_table_is_shown_as_printed() -> None:
    table = latency_html.paper_table(table_1())
    for printed in ("1449.4 ± 0.8", "354.8 ± 0.5", "25.8 ± 2.2", "× 1.303", "0.5M parameters"):
        assert printed in table
