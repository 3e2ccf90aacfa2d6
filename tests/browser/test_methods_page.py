"""Methods beside each other in a real browser: what they train, how their gradients flow, what they reach, what merging costs."""

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

import lora_lab as ll
from lora_lab.budget import method_params
from lora_lab.inference import merge_report
from lora_lab.plots import merge_caption, reach_caption, small_share
from lora_lab.sweeps import RunStore
from lora_lab.training import reach
from lora_lab.units import count

pytestmark = pytest.mark.slow
STEPS = 12


@pytest.fixture(scope="module")
def runs(app: Any) -> dict[str, Any]:
    """A QLoRA run and a BitFit run, in the app's store."""
    return {m: ll.train("digits", ll.MethodSpec(method=m, r=4), steps=STEPS, runs=app.runs) for m in ("qlora", "bitfit")}


def choose_methods(page: Page, wanted: list[str]) -> None:
    """Leave exactly these methods chosen."""
    page.locator("#methods [aria-label='Clear']").or_(page.locator("#methods .remove-all")).first.click()
    for name in wanted:
        page.locator("#methods input").click()
        page.get_by_role("option", name=name, exact=True).click()
    page.keyboard.press("Escape")


def test_dora_and_bitfit_are_chosen_started_and_compared(open_page: Callable[..., Page], app: Any) -> None:
    page = open_page(f"/?r=2&seeds=0&steps={STEPS}")
    expect(page.locator("#counts")).to_contain_text("r 2: 2,048")
    choose_methods(page, ["DoRA", "BitFit"])
    geometry = ll.find_bench("digits").geometry()
    wanted = {m: method_params(geometry, ll.MethodSpec(method=m, r=2)) for m in ("dora", "bitfit")}
    for params in wanted.values():
        expect(page.locator("#counts")).to_contain_text(f"{params:,}")
    expect(page.locator("#plan")).to_contain_text(f"2 runs of {STEPS} steps at each method's own learning rate (0.005 for DoRA")
    assert "methods=dora,bitfit" in page.url
    page.locator("#start").click()
    page.locator('#status [data-state="finished"]').wait_for(timeout=60_000)
    rows = page.locator("#runs-table tr", has=page.locator("td"))
    expect(rows).to_have_count(2)
    for label, params in (("DoRA", wanted["dora"]), ("BitFit", wanted["bitfit"])):
        cells = rows.filter(has_text=label).locator("td").all_inner_texts()
        assert count(params) in cells
        assert ("2" if label == "DoRA" else "") == cells[2]  # a rank where there is one
    expect(page.locator("#rank-table tr", has_text="BitFit").locator("td[colspan]")).to_contain_text("without a rank")
    dora = next(run for run in RunStore(app.runs).runs() if run.spec.tuning.method == "dora")
    first = dora.progress().steps[0]
    expect(page.locator("#flow-says")).to_contain_text(f"because B = 0, and ‖∂L/∂B‖ is {first.grad_norm_b:.3g}")
    norms = page.locator("#rule-table tr", has_text="∂L/∂A").locator("td").all_inner_texts()[1:]
    assert norms[0] == "0"
    assert float(norms[1]) > 0
    expect(page.locator("#rule")).to_contain_text("Autograd differs from these products by at most")


def test_a_method_that_the_base_cannot_take_is_refused_before_anything_runs(open_page: Callable[..., Page]) -> None:
    page = open_page("/?methods=lora,prefix")
    expect(page.locator("#plan .error")).to_contain_text("Prefix tuning gives attention past keys and values")
    page.locator("#methods input").click()
    offered = page.get_by_role("option").all_inner_texts()
    assert any("Full fine-tuning" in text for text in offered)
    assert not any("PreEmbed" in text for text in offered)


def test_reach_is_measured_drawn_and_said(open_page: Callable[..., Page]) -> None:
    page = open_page("/")
    page.locator("#reach").click()
    expect(page.locator("#reach-says .lab-say")).to_have_text(
        reach_caption(reach("digits", matrix="vit.layers.1.attention.q_proj")), timeout=30_000
    )
    page.wait_for_function("document.querySelector('#reach-plot .js-plotly-plot')?._fullData?.length == 2")


def test_merging_a_qlora_run_is_measured(open_page: Callable[..., Page], runs: dict[str, Any]) -> None:
    run = runs["qlora"]
    page = open_page(f"/look?run={run.run_id}")
    expect(page.locator("#facts")).to_contain_text("QLoRA · base in nf4-dq")
    page.locator("#merge").click()
    report = merge_report(run.spec, run.adapter_dir)
    expect(page.locator("#merged .lab-say")).to_have_text(merge_caption(report), timeout=30_000)
    rows = page.locator("#merge-table tr").all_inner_texts()
    assert len(rows) == 1 + 1 + len(report.ways) + 1
    assert report.unquantized is not None
    assert small_share(report.unquantized.difference) in rows[-1]


def test_a_run_that_changes_no_matrix_is_a_sentence_and_no_empty_plot(open_page: Callable[..., Page], runs: dict[str, Any]) -> None:
    page = open_page(f"/look?run={runs['bitfit'].run_id}")
    expect(page.locator("#title")).to_have_text("BitFit trains biases: it changes no matrix.")
    expect(page.locator(".js-plotly-plot:visible")).to_have_count(0)
    expect(page.locator("#shape")).to_be_hidden()
    expect(page.locator("#merge")).to_be_hidden()
