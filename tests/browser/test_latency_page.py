"""Latency in a real browser: what the plot draws is what the table says, and the paper's figures are the paper's."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from lora_lab.budget.paper import table_1

pytestmark = pytest.mark.slow
_DRAWN = """() => Object.fromEntries(document.querySelector('#latency-plot .js-plotly-plot')._fullData.map(
  t => [t.meta, {x: [...t.x], y: [...t.y], hover: [...t.customdata], up: t.error_y?.array && [...t.error_y.array]}]))"""


@pytest.fixture
def measured(open_page: Callable[..., Page]) -> Page:
    """The digits at two batch sizes, measured by a click."""
    page = open_page("/latency?shapes=1,64&repeats=10&rank=4")
    expect(page.locator("#latency-says")).to_contain_text("Nothing is measured yet", timeout=30_000)
    expect(page.locator("#shapes label:has(input:checked)")).to_have_count(2)  # the address has been read
    page.locator("#measure").click()
    page.locator("#switching-table").wait_for(timeout=120_000)
    page.wait_for_function("document.querySelector('#latency-plot .js-plotly-plot')?._fullData?.length > 4")
    return page


def cells(page: Page, table: str) -> dict[str, list[str]]:
    """The rows of a table by their first cell."""
    rows = [row.locator("td").all_inner_texts() for row in page.locator(f"#{table} tr", has=page.locator("td")).all()]
    return {name.strip(): rest for name, *rest in rows}


def test_what_is_drawn_is_what_the_table_says(measured: Page) -> None:
    drawn: dict[str, Any] = measured.evaluate(_DRAWN)
    rows = cells(measured, "latency-table")
    labels = {"merged": "LoRA, merged", "lora": "LoRA, beside the base", "adapter": "Adapter (Houlsby)"}
    assert set(labels) <= set(drawn)
    for name, label in labels.items():
        ratios = [re.search(r"× ([\d.]+)", cell).group(1) for cell in rows[label]]  # type: ignore[union-attr]
        assert [f"{y:.3f}" for y in drawn[name]["y"]] == ratios
        for cell, hover in zip(rows[label], drawn[name]["hover"], strict=True):
            assert f"<br>{cell.split(' ×')[0]}, half of the rounds" in hover
    expect(measured.locator("#latency-times")).to_contain_text("transformers' ViTModel takes none.")
    assert "prefix" not in drawn


def test_bold_is_what_the_bars_tell_and_the_caption_says(measured: Page) -> None:
    drawn: dict[str, Any] = measured.evaluate(_DRAWN)
    rows = measured.locator("#latency-table tr", has=measured.locator("td"))
    caption = measured.locator("#latency-says").inner_text()
    for name, label, said in (
        ("merged", "LoRA, merged", "erged LoRA"),
        ("adapter_pfeiffer", "Adapter (Pfeiffer)", "he Pfeiffer adapter"),
    ):
        bounds = [re.search(r"99 %: ([\d.]+) to ([\d.]+)", hover) for hover in drawn[name]["hover"]]
        told = [not float(b.group(1)) <= 1 <= float(b.group(2)) for b in bounds if b]
        row = rows.filter(has_text=label)
        assert [row.locator("td").nth(i + 1).locator("b").count() == 1 for i in range(2)] == told
        assert f"{said} takes" in caption if any(told) else "cannot be told from the base" in caption


def test_the_papers_ratios_stand_in_the_plot_and_its_times_in_the_table(measured: Page) -> None:
    drawn: dict[str, Any] = measured.evaluate(_DRAWN)
    assert drawn["paper adapter"]["y"] == pytest.approx([one.ratio("adapter") for one in table_1()])
    rows = cells(measured, "paper-table")
    assert rows["Fine-tuning or merged LoRA"] == ["1449.4 ± 0.8", "338.0 ± 0.6", "19.8 ± 2.7"]
    assert rows["Adapter (Houlsby)"][2].split() == ["25.8", "±", "2.2", "×", "1.303"]


def test_logits_and_switching_are_measured_and_said(measured: Page) -> None:
    logits = cells(measured, "logits-table")
    differences = [float(logits[dtype][0]) for dtype in ("fp32", "bf16", "fp16")]
    assert differences[0] < differences[2] < differences[1]
    expect(measured.locator("#logits .lab-say")).to_contain_text(f"{logits['bf16'][2]} in bf16")
    switching = cells(measured, "switching-table")
    assert switching["another model, from its file"][1] == "618 kB"
    expect(measured.locator("#switching .lab-say")).to_contain_text(switching["another adapter, in memory"][0])
    expect(measured.locator("#gpu")).to_contain_text("no GPU was measured, so none is given")


def test_choices_are_in_the_address_and_the_bench_brings_its_shapes(open_page: Callable[..., Page]) -> None:
    page = open_page("/latency")
    page.locator("#shapes label", has_text="256").click()
    page.locator("#r label", has_text="16").click()
    page.wait_for_url("**shapes=1,8,64,256**")
    page.wait_for_url("**rank=16**")
    page.reload()
    expect(page.locator("#shapes label:has(input:checked)")).to_have_count(4)
    page.locator("#bench label", has_text="inverted").click()
    expect(page.locator("#shapes label:has(input:checked)")).to_have_count(3)
    assert page.locator(".lab-header nav a.on").all_inner_texts() == ["Train", "Latency"]
