"""Data of one's own on the page: given, looked at before anything runs, then trained on."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from lora_lab.benches import find_bench
from lora_lab.benches.preview import Preview, preview_of
from lora_lab.specs import DataSpec
from lora_lab.sweeps import RunStore

pytestmark = pytest.mark.slow
BARS = """() => {
  const drawn = document.querySelector('#lengths .js-plotly-plot');
  return drawn && drawn._fullData ? [...drawn._fullData[0].y] : [];
}"""


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "mine.jsonl"
    rows = [{"prompt": f"say word{i % 9} " * (i % 5 + 1), "completion": f"it is <b>word{i % 9}</b>"} for i in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def open_own(open_page: Callable[..., Page], base: Path) -> Page:
    page = open_page("/?r=2&seeds=0")
    page.locator("#block svg").wait_for()
    expect(page.locator("#data-card")).to_be_hidden()  # digits are no text
    page.locator("#bench label", has_text="yours").click()
    page.get_by_label("Base: a folder or a Hub id").fill(str(base))
    page.get_by_label("Base: a folder or a Hub id").press("Enter")
    expect(page.locator(".lab-aside")).to_contain_text("Name a base and give it data.")
    return page


def wait_for_bars(page: Page, seen: Preview) -> None:
    page.wait_for_function(f"counts => JSON.stringify(({BARS})()) == JSON.stringify(counts)", arg=list(seen.bin_counts))


def test_a_file_is_seen_before_anything_runs_and_then_trained_on(
    open_page: Callable[..., Page], tiny_writer: Path, prompts: Path, app: Any
) -> None:
    page = open_own(open_page, tiny_writer)
    page.locator('input[type="file"]').set_input_files(prompts)
    seen = preview_of(find_bench(str(tiny_writer), DataSpec(path=str(prompts))))
    wait_for_bars(page, seen)
    assert len({n for n in seen.bin_counts if n}) > 1  # the bars are not all one
    expect(page.locator("#data-rows")).to_contain_text("32 rows to train on, 4 to validate, 4 to test; scored by BLEU")
    rows = [row.locator("td").all_inner_texts() for row in page.locator("#data-table tr").all()[1:]]
    assert rows == [[" ".join(read.split()), answer] for read, answer in seen.examples]
    expect(page.locator("#lengths-says")).to_contain_text(
        f"have {seen.mean_tokens:.1f} tokens on average, {seen.longest_tokens} at"
    )
    assert "data=" in page.url
    page.get_by_label("Prompt column").wait_for()
    expect(page.get_by_label("Text column")).to_be_hidden()
    expect(page.locator("#steps input")).to_have_value("100")  # what such a bench trains for
    page.locator("#steps input").fill("2")
    page.locator("#steps input").press("Tab")
    expect(page.locator("#plan")).to_contain_text("1 run of 2 steps")
    page.locator("#start").click()
    page.locator('#status [data-state="finished"]').wait_for(timeout=180_000)
    (run,) = RunStore(app.runs).runs()
    assert (run.metrics["step"], run.metrics["metric"]) == (2, "bleu")
    assert run.spec.data is not None
    assert run.spec.data.task == "completion"
    title = "() => document.querySelector('#accuracy .js-plotly-plot')?._fullLayout?.yaxis?.title?.text ?? ''"
    page.wait_for_function(f"() => ({title})().includes('BLEU')")


def test_columns_are_those_that_the_task_needs_and_the_file_has(
    open_page: Callable[..., Page], tiny_base: Path, tmp_path: Path
) -> None:
    data = tmp_path / "mine.csv"
    data.write_text("review,stars\n" + "".join(f"word{i % 7} is good,{i % 2}\n" for i in range(20)))
    page = open_own(open_page, tiny_base)
    page.locator('input[type="file"]').set_input_files(data)
    sentence = "The text_column must be one of review, stars. Got 'text'."
    expect(page.locator(".lab-aside")).to_contain_text(sentence)
    expect(page.locator("#data-card")).to_be_hidden()
    for label, column in (("Text column", "review"), ("Label column", "stars")):
        page.get_by_label(label).click()
        page.get_by_role("option", name=column).click()
        expect(page.get_by_role("option")).to_have_count(0)  # the other list may offer the same columns
    expect(page.locator("#data-rows")).to_contain_text("Classification of 2 labels: 16 rows to train on")
    expect(page.locator("#data-rows")).to_contain_text(re.compile(r"Training rows a label: 0 \d+, 1 \d+\."))
    page.locator("#own-task label", has_text="regression").click()
    expect(page.locator("#data-rows")).to_contain_text("scored by Pearson correlation")
    expect(page.locator("#data-rows")).not_to_contain_text("Training rows a label")
    page.locator("#own-task label", has_text="plain text").click()
    expect(page.get_by_label("Label column")).to_be_hidden()
    assert all(part in page.url for part in ("task=text", "text_column=review", "label_column=stars"))


def test_a_dataset_is_named_and_puts_the_file_away(open_page: Callable[..., Page], tiny_base: Path, tmp_path: Path) -> None:
    data = tmp_path / "mine.csv"
    data.write_text("text,label\n" + "".join(f"word{i % 7} is good,{i % 2}\n" for i in range(20)))
    page = open_own(open_page, tiny_base)
    page.locator('input[type="file"]').set_input_files(data)
    expect(page.locator("#data-rows")).to_contain_text("16 rows to train on")
    named = page.get_by_label("Data: a dataset's name or Hub id")
    named.fill("nothing.csv")
    named.press("Enter")
    expect(page.locator(".lab-aside")).to_contain_text("Got 'nothing.csv'")
    expect(page.locator("#data-card")).to_be_hidden()
    expect(page.locator(".lab-aside")).not_to_contain_text("mine.csv")
    assert "data=nothing.csv" in page.url
    named.fill(str(data))  # a file where it lies is as good
    named.press("Enter")
    expect(page.locator("#data-rows")).to_contain_text("16 rows to train on")
    again = open_page("/?" + page.url.split("?")[1])
    expect(again.locator("#data-rows")).to_contain_text("16 rows to train on")
    expect(again.get_by_label("Data: a dataset's name or Hub id")).to_have_value(str(data))


def test_a_bench_of_the_lab_is_seen_too(open_page: Callable[..., Page]) -> None:
    page = open_page("/?bench=reviews")
    wait_for_bars(page, preview_of(find_bench("reviews")))
    expect(page.locator("#data-rows")).to_contain_text("panning 4,566, praise 4,476")
    page.locator("#bench label", has_text="inverted").click()
    expect(page.locator("#data-card")).to_be_hidden()
