"""Results in a real browser: what a small sweep comes to, taken along, and deleted."""

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
from playwright.sync_api import Page, expect

import lora_lab as ll
from lora_lab.sweeps import RunStore
from lora_lab.sweeps.configurations import rank_configurations

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def swept(app: Any) -> list[Any]:
    """q at r 2, and q and v at r 1, two seeds each: as many parameters, kept in the app's store."""
    runs: list[Any] = []
    for targets, r in ((("q_proj",), 2), (("q_proj", "v_proj"), 1)):
        grid = ll.SweepSpec(r=(r,), targets=(targets,), seeds=(0, 1), steps=20)
        runs += ll.sweep("digits", grid, runs=app.runs, runner="inline")
    return runs


def test_the_best_configuration_is_shown_with_its_spread(open_page: Callable[..., Page], swept: Any, app: Any) -> None:
    page = open_page("/results")
    rows = page.locator("#ranking tr", has=page.locator("td"))
    expect(rows).to_have_count(2)
    best = rank_configurations(RunStore(app.runs).runs()).ranked[0]
    cells = rows.first.locator("td").all_inner_texts()
    assert cells[0] == best.text
    assert cells[2].startswith(f"{100 * (best.row.mean or 0):.1f} %")
    expect(page.locator("#ranking-says")).to_contain_text("has the best mean on the validation split")


def test_lines_are_drawn_through_what_differs(open_page: Callable[..., Page], swept: Any) -> None:
    page = open_page("/results")
    script = "() => [...document.querySelectorAll('#parallel .axis-title')].map(t => t.textContent)"
    page.wait_for_function(f"() => ({script})().length == 4", timeout=30_000)
    assert set(page.evaluate(script)) == {"r", "targets", "seed", "accuracy"}


def test_the_tables_have_the_shapes_of_the_papers(open_page: Callable[..., Page], swept: Any) -> None:
    page = open_page("/results")
    expect(page.locator("#by-targets th", has_text="q,v r 1")).to_have_count(1)
    expect(page.locator("#by-targets th", has_text="q r 2")).to_have_count(1)
    expect(page.locator("#by-rank tr", has=page.locator("td"))).to_have_count(2)


def test_runs_are_taken_along_as_a_table(open_page: Callable[..., Page], swept: Any, tmp_path: Any) -> None:
    page = open_page("/results")
    expect(page.locator("#kept-table a")).to_have_count(4)
    with page.expect_download(timeout=60_000) as download:
        page.locator("#save-csv").click()
    download.value.save_as(tmp_path / "runs.csv")
    assert set(pd.read_csv(tmp_path / "runs.csv")["run_id"]) == {run.run_id for run in swept}


def test_a_run_is_deleted_after_it_was_asked_twice(open_page: Callable[..., Page], swept: Any, app: Any) -> None:
    page = open_page("/results")
    gone = swept[-1].run_id
    expect(page.locator("#delete")).to_be_disabled()
    page.locator(f'[data-pick="{gone}"]').click()
    expect(page.locator(f'[data-pick="{gone}"]')).to_have_attribute("aria-checked", "true")
    page.locator("#delete").click()
    page.locator("#keep").click()
    expect(page.locator(f'[data-pick="{gone}"]')).to_have_attribute("aria-checked", "false")
    page.locator(f'[data-pick="{gone}"]').click()
    expect(page.locator("#delete")).to_have_text("Delete 1 run…")
    page.locator("#delete").click()
    page.locator("#sure").click()
    expect(page.locator("#kept-table a")).to_have_count(3)
    assert gone not in {run.run_id for run in RunStore(app.runs).runs()}
    train = open_page("/?r=1&targets=q,v&seeds=0,1&steps=20")
    expect(train.locator("#start")).to_have_text("Resume")  # the grid lacks the one that was deleted
