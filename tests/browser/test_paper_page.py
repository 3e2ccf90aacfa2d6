"""The paper, and what the first gradient knew, in a real browser: what stands on the page is what was recorded or measured."""

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from lora_lab import LoraSpec, train
from lora_lab.report import findings, recorded
from lora_lab.roles import label_of
from lora_lab.sweeps.gradient_advice import gradient_advice

pytestmark = pytest.mark.slow
_TRACES = """id => document.querySelector(`#${id} .js-plotly-plot`)._fullData.map(t => ({
  name: t.name, x: [...t.x], y: [...t.y], z: t.z && [...t.z].map(row => [...row])}))"""


@pytest.fixture
def paper(open_page: Callable[..., Page]) -> Page:
    page = open_page("/paper?paper=digits")
    page.locator("#verdicts tr").first.wait_for(timeout=60_000)
    return page


def traces(page: Page, plot: str) -> list[dict[str, Any]]:
    page.wait_for_function("id => document.querySelector(`#${id} .js-plotly-plot`)?._fullData?.length > 0", arg=plot)
    found: list[dict[str, Any]] = page.evaluate(_TRACES, plot)
    return found


def test_every_verdict_stands_with_its_claim(paper: Page) -> None:
    found = findings(recorded("digits").evidence)
    assert len(found) == 5
    shown = [row.locator("td").all_inner_texts() for row in paper.locator("#verdicts tr").all()]
    assert shown == [[one.source, one.claim, one.verdict] for one in found]
    for one in found:
        expect(paper.locator(f"#paper-{one.key}")).to_contain_text(one.paragraph)


def test_overlaps_and_factors_drawn_are_those_recorded(paper: Page) -> None:
    evidence = recorded("digits").evidence
    name = next(name for name in evidence.matrices if label_of(name) in paper.locator("#paper-two_seeds-0").inner_text())
    phi = evidence.two_seeds.first[name].phi
    assert phi is not None
    drawn = traces(paper, "paper-two_seeds-0")[0]["z"]
    assert drawn[0][0] == pytest.approx(phi[0][0], abs=1e-4)
    assert drawn[-1][-1] == pytest.approx(phi[-1][-1], abs=1e-4)
    on_delta = traces(paper, "paper-amplification-0")[0]["y"]
    assert on_delta == pytest.approx([one.on_delta for one in evidence.amplifications[evidence.large].values()])


def test_scores_of_each_rank_stand_beside_the_papers(paper: Page) -> None:
    ranks = recorded("digits").evidence.ranks
    rows = [row.locator("td").all_inner_texts() for row in paper.locator("#table_6 tr", has=paper.locator("td")).all()]
    best = ranks.best()
    assert best is not None
    assert best.mean is not None
    assert f"{100 * best.mean:.1f} ± " in next(row for row in rows if row[:2] == [best.targets.replace(",", ", "), str(best.r)])[2]
    assert next(row for row in rows if row[:2] == ["q, v", "1"])[3:] == ["73.4", "91.3"]


def test_the_first_gradient_is_measured_by_a_click(open_page: Callable[..., Page], app: Any) -> None:
    run = train("digits", LoraSpec(r=4), steps=30, runs=app.runs)
    page = open_page(f"/subspaces?run={run.run_id}&against={run.run_id}")
    page.locator("#map table").wait_for()
    page.locator("#knew").click()
    expect(page.locator("#knew-says")).to_contain_text("that run 1 changed", timeout=60_000)
    advice = gradient_advice("digits", seed=0, r=4, against=[run])
    rows = [row.locator("td").all_text_contents() for row in page.locator("#knew-numbers tr", has=page.locator("td")).all()]
    assert [(row[0], row[2]) for row in rows] == [(one.name, f"{one.per_parameter:.3g}") for one in advice.matrices]
    cells = [10**value for row in traces(page, "knew-map")[0]["z"] for value in row if value is not None]
    assert max(cells) == pytest.approx(max(one.per_parameter for one in advice.matrices))
