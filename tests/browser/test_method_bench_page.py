"""The method bench clicked through in a real browser: chosen, started, compared, taken along, and there again after a reload."""

import csv
import json
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from lora_lab.analysis.comparison import compare
from lora_lab.benches import find_bench
from lora_lab.plots.method_captions import methods_caption
from lora_lab.sweeps import RunStore
from lora_lab.sweeps.method_bench import MethodBenchSpec, method_table, plan_methods

pytestmark = pytest.mark.slow
SPEC = MethodBenchSpec(methods=("lora", "bitfit"), budgets=(1, 4), lr_factors=(1.0,), seeds=(0, 1), steps=6)
QUERY = "compared=lora,bitfit&budgets=1,4&factors=1&trials=0,1"


def drawn(page: Page, plot: str) -> list[str]:
    page.wait_for_function(f"document.querySelector('#{plot} .js-plotly-plot')?._fullData?.length > 0", timeout=60_000)
    return page.evaluate(f"document.querySelector('#{plot} .js-plotly-plot')._fullData.map(t => t.name)")


@pytest.fixture(scope="module")
def compared(browser: Any, app: Any) -> dict[str, Any]:
    """Two methods at two budgets and two seeds, started with a click; the steps are typed."""
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.goto(f"{app.url}/methods?{QUERY}")
    expect(page.locator("#plan")).to_contain_text("6 runs.", timeout=60_000)
    page.locator("#steps input").fill("6")
    page.locator("#steps input").press("Tab")
    page.wait_for_function("location.search.includes('steps=6')")
    page.locator("#start").click()
    page.locator('#status [data-state="finished"]').wait_for(timeout=180_000)
    page.locator("#method-table").wait_for(timeout=30_000)
    table = method_table(plan_methods(find_bench("digits"), SPEC), RunStore(app.runs).runs())
    return {"page": page, "table": table, "url": page.url}


def test_the_table_has_a_row_a_method_in_order_and_the_sentence_is_the_core_s(compared: dict[str, Any]) -> None:
    page, comparison = compared["page"], compare(compared["table"])
    expect(page.locator("#says .lab-say")).to_have_text(methods_caption(compared["table"], comparison), timeout=30_000)
    rows = page.locator("#method-table tr", has=page.locator("td"))
    expect(rows).to_have_count(2)
    for row, placed in zip(rows.all(), comparison.order, strict=True):
        cells = row.locator("td").all_inner_texts()
        assert cells[0] == placed.text
        assert cells[2].startswith(compared["table"].metric.text(placed.row.mean))
    page.locator("summary", has_text="Every budget").click()
    expect(page.locator("#budget-table tr", has=page.locator("td"))).to_have_count(3)


def test_both_plots_are_drawn_and_another_column_is_a_choice_away(compared: dict[str, Any]) -> None:
    page = compared["page"]
    assert {"LoRA", "BitFit"} <= set(drawn(page, "pareto"))
    assert {"LoRA", "BitFit"} <= set(drawn(page, "rates"))
    page.locator("#pay input").click()
    page.get_by_role("option", name="seconds a step", exact=True).click()
    page.wait_for_function("document.querySelector('#pareto .js-plotly-plot').layout.xaxis.title.text == 'seconds a step'")
    assert "pay=step_s" in page.url


def test_table_and_runs_can_be_taken_along(compared: dict[str, Any], tmp_path: Any) -> None:
    page = compared["page"]
    for button, name in (("csv", "table.csv"), ("peft", "runs.zip")):
        with page.expect_download(timeout=60_000) as download:
            page.locator(f"#{button}").click()
        download.value.save_as(tmp_path / name)
    lines = list(csv.DictReader((tmp_path / "table.csv").read_text().splitlines()))
    assert sorted((line["method"], line["r"]) for line in lines) == [("bitfit", ""), ("lora", "1"), ("lora", "4")]
    with zipfile.ZipFile(tmp_path / "runs.zip") as archive:
        names = archive.namelist()
        assert json.loads(archive.read(names[0]))["train_info"]["status"] == "success"
    assert len(names) == 6


def test_after_a_reload_it_is_all_there_again(compared: dict[str, Any], open_page: Callable[..., Page]) -> None:
    page = open_page("/methods?" + compared["url"].split("?")[1].replace("&job=", "&gone="))
    expect(page.locator("#plan")).to_contain_text("6 runs, 6 of them in the store already", timeout=60_000)
    expect(page.locator("#method-table tr", has=page.locator("td"))).to_have_count(2, timeout=60_000)
    assert {"LoRA", "BitFit"} <= set(drawn(page, "pareto"))


def test_a_bench_is_stopped_and_what_it_learned_is_kept(open_page: Callable[..., Page], app: Any) -> None:
    page = open_page("/methods?compared=lora&budgets=2&factors=1&trials=0,1&steps=4000")
    expect(page.locator("#plan")).to_contain_text("2 runs.", timeout=60_000)
    page.locator("#start").click()
    page.wait_for_function("/step [1-9]/.test(document.querySelector('#status').innerText)", timeout=120_000)
    page.locator("#stop").click()
    page.locator('#status [data-state="stopped"]').wait_for(timeout=60_000)
    assert "stopped" in {run.metrics["status"] for run in RunStore(app.runs).runs()}


def test_nothing_is_cut_on_a_narrow_screen(compared: dict[str, Any], open_page: Callable[..., Page]) -> None:
    page = open_page("/methods?" + compared["url"].split("?")[1])
    page.set_viewport_size({"width": 420, "height": 900})
    page.locator("#method-table").wait_for(timeout=60_000)
    drawn(page, "pareto")
    assert page.evaluate("document.documentElement.scrollWidth") <= 420
