"""Budget in a real browser: what it shows is what the core computes, and nothing waits."""

import re
import statistics
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

import lora_lab as ll
from lora_lab.budget import find_card, versus
from lora_lab.units import count, gigabytes

pytestmark = pytest.mark.slow
START = {"batch": 4, "seq": 1024}  # the page's own first configuration, LoRA r = 8 on q and v of Llama-3.2-3B


def open_budget(open_page: Callable[..., Page], query: str = "") -> Page:
    page = open_page(f"/budget{query}")
    page.locator("#tile-params").wait_for()
    page.wait_for_function("document.querySelector('#budget-map .js-plotly-plot')?._fullData?.length > 1")
    return page


def big(page: Page, tile: str) -> Any:
    return page.locator(f"#tile-{tile} .lab-big")


def set_slider(page: Page, name: str, value: int) -> None:
    """As a drag ends: the value, and the browser's own event."""
    script = "(el, value) => { el.value = value; el.dispatchEvent(new Event('input', {bubbles: true})); }"
    page.locator(f"#{name} input[type=range]").evaluate(script, str(value))


def test_numbers_shown_are_the_cores(open_page: Callable[..., Page]) -> None:
    page = open_budget(open_page)
    made = ll.budget("llama-3.2-3b", ll.LoraSpec(r=8), **START)
    expect(big(page, "params")).to_have_text(count(made.trainable_params))
    expect(page.locator("#tile-params")).to_contain_text(f"{made.trainable_params:,}")
    expect(big(page, "peak")).to_have_text(gigabytes(made.ledger.peak))
    drawn = page.locator("#bill .lab-bar-row").evaluate_all("rows => rows.map(row => Number(row.dataset.peak))")
    assert drawn == [one.ledger.peak for one in versus(made).values()]


def test_bars_are_as_long_as_their_bytes(open_page: Callable[..., Page]) -> None:
    page = open_budget(open_page)
    own = ll.budget("llama-3.2-3b", ll.LoraSpec(r=8), **START).ledger
    widths = page.locator("#bill .lab-bar-row.on rect").evaluate_all("all => all.map(one => Number(one.getAttribute('width')))")
    parts = [own.weights, own.adapters, own.gradients, own.optimizer, own.activations, own.loss]
    assert [w / sum(widths) for w in widths] == pytest.approx([part / own.peak for part in parts], abs=1e-3)


def test_slider_moves_every_answer_and_the_address(open_page: Callable[..., Page]) -> None:
    page = open_budget(open_page)
    set_slider(page, "rank", 64)
    made = ll.budget("llama-3.2-3b", ll.LoraSpec(r=64), **START)
    expect(page.locator("#tile-params")).to_contain_text(f"{made.trainable_params:,}")
    expect(page.locator("#code")).to_contain_text("r=64")
    expect(page).to_have_url(re.compile("rank=64"))
    set_slider(page, "batch", 1)
    expect(big(page, "peak")).to_have_text(gigabytes(ll.budget("llama-3.2-3b", ll.LoraSpec(r=64), batch=1, seq=1024).ledger.peak))


def test_matrices_are_clicked_in_and_out(open_page: Callable[..., Page]) -> None:
    page = open_budget(open_page)
    page.locator("#block [data-pick=down]").click()
    with_down = ll.budget("llama-3.2-3b", ll.LoraSpec(r=8, target_modules=("q", "v", "down")), **START)
    expect(page.locator("#tile-params")).to_contain_text(f"{with_down.trainable_params:,}")
    expect(page.locator("#block [data-pick=down]")).to_have_attribute("aria-checked", "true")
    page.locator("#block [data-pick=q]").click()
    v_and_down = ll.budget("llama-3.2-3b", ll.LoraSpec(r=8, target_modules=("v", "down")), **START)
    expect(page.locator("#tile-params")).to_contain_text(f"{v_and_down.trainable_params:,}")
    page.locator("#block [data-pick='targets:all-linear']").click()
    everything = ll.budget("llama-3.2-3b", ll.LoraSpec(r=8, target_modules=("all-linear",)), **START)
    expect(page.locator("#tile-params")).to_contain_text(f"{everything.trainable_params:,}")
    page.locator("#block [data-pick=gate]").click()
    rest = ("q", "k", "v", "o", "up", "down")
    expect(page.locator("#tile-params")).to_contain_text(
        f"{ll.budget('llama-3.2-3b', ll.LoraSpec(r=8, target_modules=rest), **START).trainable_params:,}"
    )


def test_qlora_brings_its_base_in_nf4(open_page: Callable[..., Page]) -> None:
    page = open_budget(open_page)
    page.locator("#method label", has_text="QLoRA").click()
    made = ll.budget("llama-3.2-3b", ll.MethodSpec(method="qlora"), **START)
    expect(big(page, "peak")).to_have_text(gigabytes(made.ledger.peak))
    expect(page.locator("#quant label", has_text="NF4, double").locator("input")).to_be_checked()
    expect(page.locator("#training")).to_contain_text("bnb_4bit_use_double_quant=True")
    page.locator("#method label", has_text="Full fine-tuning").click()
    expect(page.locator("#tile-params")).to_contain_text("3,212,749,824")
    expect(page.locator("#quant label", has_text="16-bit").locator("input")).to_be_checked()


def test_fused_matrix_says_what_it_holds(open_page: Callable[..., Page]) -> None:
    page = open_budget(open_page, "?model=gpt2")
    expect(page.locator("#answers")).to_contain_text("q and v stand for c_attn, which holds q, k and v as one matrix.")
    expect(page.locator("#block [data-pick=qkv]")).to_have_attribute("aria-checked", "true")


def test_mistakes_are_one_sentence_on_the_page(open_page: Callable[..., Page]) -> None:
    page = open_page("/budget?method=bitfit")
    expect(page.locator("#answers")).to_contain_text("this base has no biases")
    page = open_page("/budget?model=nonsense")
    expect(page.locator("#answers")).to_contain_text("Got 'nonsense'.")


def test_map_is_the_grid_of_the_core(open_page: Callable[..., Page]) -> None:
    page = open_budget(open_page)
    drawn = page.evaluate("""() => {
      const trace = document.querySelector('#budget-map .js-plotly-plot')._fullData[0];
      return trace.y.map((row, i) => [row, [...trace.x].map((column, j) => [column, trace.customdata[i][j]])]);
    }""")
    for row, cells in drawn:
        for column, params in cells:
            spec = ll.LoraSpec(r=int(column.removeprefix("r ")), target_modules=tuple(row.split()))
            assert params == ll.budget("llama-3.2-3b", spec).trainable_params


def test_equal_budgets_of_gpt3_are_table_5_of_the_paper(open_page: Callable[..., Page]) -> None:
    page = open_budget(open_page, "?model=gpt3-175b&rank=4&batch=1")
    rows = page.locator("#equal tr").all_inner_texts()
    found = dict(re.match(r"([a-z -]+?)\s+(\d+|none)", row).groups() for row in rows[1:])  # type: ignore[union-attr]
    assert {name: found[name] for name in ("q", "v", "q v", "q k v o")} == {"q": "8", "v": "8", "q v": "4", "q k v o": "2"}


def test_trace_stands_beside_the_formula(open_page: Callable[..., Page]) -> None:
    page = open_budget(open_page, "?model=Llama-3.2-1B&batch=1&seq=256")
    page.locator("#trace").click()
    page.locator("#traced").wait_for(timeout=60_000)
    made = ll.budget("llama-3.2-1b", ll.LoraSpec(r=8), batch=1, seq=256, trace=True)
    expect(page.locator("#traced tr", has_text="peak")).to_contain_text(gigabytes(made.ledger.peak))


def test_terms_sum_to_what_the_tiles_say(open_page: Callable[..., Page]) -> None:
    page = open_budget(open_page)
    page.locator("summary", has_text="term by term").click()
    for table in ("count-terms", "memory-terms"):
        cells = page.locator(f"#{table} tr td:last-child").all_inner_texts()
        values = [int(cell.replace(",", "")) for cell in cells]
        assert sum(values[:-1]) == values[-1]


def test_selection_travels_to_train_and_back(open_page: Callable[..., Page]) -> None:
    page = open_budget(open_page, "?model=gpt2-medium&rank=4&card=T4")
    page.locator(".lab-header nav a", has_text="Train").click()
    page.locator("#start").wait_for()
    back = page.locator(".lab-header nav a", has_text="Budget")
    expect(back).to_have_attribute("href", re.compile("gpt2-medium"))  # the header knows it when the place has loaded
    back.click()
    expect(page.locator("#tile-params")).to_contain_text(f"{ll.budget('gpt2-medium', ll.LoraSpec(r=4)).trainable_params:,}")
    expect(page.locator("#tile-fits")).to_contain_text(find_card("T4").name)


MOVE = """async (value) => {
  const slider = document.querySelector('#rank input[type=range]');
  const numbers = () => document.querySelector('#tile-params').textContent + document.querySelector('#block').innerHTML;
  const bill = () => document.querySelector('#bill svg').innerHTML;
  const chart = () => document.querySelector('#budget-map .js-plotly-plot')._fullData[1].name;
  const before = [numbers(), bill(), chart()], start = performance.now();
  slider.value = value;
  slider.dispatchEvent(new Event('input', {bubbles: true}));
  const until = async (done) => {
    while (!done() && performance.now() - start < 10000) await new Promise(requestAnimationFrame);
    await new Promise(requestAnimationFrame);
    return performance.now() - start;
  };
  const html = await until(() => numbers() != before[0] && bill() != before[1]);
  const plots = await until(() => chart() != before[2]);
  await new Promise(done => setTimeout(done, 250));
  return [html, plots];
}"""


@pytest.mark.timed
def test_slider_redraws_html_within_120_ms_and_charts_within_500(open_page: Callable[..., Page]) -> None:
    page = open_budget(open_page)
    page.evaluate(MOVE, "12")  # the first one finds everything cold
    taken_ms = [page.evaluate(MOVE, str(r)) for r in (40, 20, 80, 30, 90, 25, 60, 70, 33, 50, 45)]
    assert statistics.median(html for html, _ in taken_ms) <= 120, taken_ms
    assert statistics.median(plots for _, plots in taken_ms) <= 500, taken_ms
