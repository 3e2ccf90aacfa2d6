"""A sweep on the digits, clicked through; the numbers are read out of the plots and held against the files."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import Page, expect
from safetensors.torch import load_file

from lora_lab.sweeps import RunStore
from lora_lab.sweeps.tries import MOST_TRIES

STEPS = 60
V3 = "base_model.model.vit.layers.3.attention.v_proj"
pytestmark = pytest.mark.slow


def traces(page: Page, plot: str) -> list[dict[str, Any]]:
    """Name, x and y (or z) of every trace as plotly drew it."""
    script = """id => {
      const drawn = document.querySelector(`#${id} .js-plotly-plot`);
      return drawn ? drawn._fullData.map(t => ({name: t.name, x: [...(t.x ?? [])], y: [...(t.y ?? [])],
        z: t.z ? [...t.z].map(row => [...row]) : null})) : [];
    }"""
    return page.evaluate(script, plot)


def choose(page: Page, group: str, wanted: set[str]) -> None:
    """Leave exactly these chips of a group chosen."""
    for chip in page.locator(f"#{group} label").all():
        if (chip.inner_text().strip() in wanted) != chip.locator("input").is_checked():
            chip.click()


def wait_for_state(page: Page, *states: str, timeout_s: float = 120) -> None:
    wanted = ", ".join(f'#status [data-state="{state}"]' for state in states)
    page.locator(wanted).wait_for(timeout=1000 * timeout_s)


def open_train(open_page: Callable[..., Page], path: str = "/") -> Page:
    page = open_page(path)
    page.locator("#block svg").wait_for()
    expect(page.locator("#counts")).to_contain_text("trainable")
    return page


@pytest.fixture(scope="module")
def swept(browser: Any, app: Any) -> dict[str, Any]:
    """Ranks 1 and 4, seeds 0 and 1, clicked and trained; what the page showed, and the runs on disk."""
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.goto(app.url)
    page.locator("#block svg").wait_for()
    choose(page, "ranks", {"1", "4"})
    choose(page, "seeds", {"0", "1"})
    page.locator("#steps input").fill(str(STEPS))
    page.locator("#steps input").press("Tab")
    expect(page.locator("#plan")).to_contain_text(f"4 runs of {STEPS} steps")
    page.locator("#start").click()
    while_training = []
    page.wait_for_function("() => document.querySelector('#spectrum .js-plotly-plot')?._fullData?.length > 0", timeout=60_000)
    while page.locator('#status [data-state="finished"]').count() == 0:
        while_training.append(traces(page, "loss"))
        page.wait_for_timeout(300)
    page.wait_for_function("() => document.querySelectorAll('#runs-table a').length == 4", timeout=60_000)
    last_step = "t => Math.max(...t.x) == " + str(STEPS)
    drawn = f"() => document.querySelector('#accuracy .js-plotly-plot')._fullData.filter({last_step}).length == 4"
    page.wait_for_function(drawn, timeout=60_000)
    page.wait_for_timeout(1000)  # the other plots came in the same answer
    shown = {plot: traces(page, plot) for plot in ("loss", "accuracy", "spectrum")}
    runs = {f"r {run.spec.tuning.r} · seed {run.spec.seed}": run for run in RunStore(app.runs).runs()}
    return {"page": page, "while_training": while_training, "shown": shown, "runs": runs, "url": page.url}


def test_curves_grow_while_it_trains(swept: dict[str, Any]) -> None:
    points = [sum(len(t["x"]) for t in seen) for seen in swept["while_training"]]
    assert len(set(points)) >= 3
    assert points == sorted(points)


def test_losses_drawn_are_the_losses_logged(swept: dict[str, Any]) -> None:
    assert len(swept["shown"]["loss"]) == 4
    for trace in swept["shown"]["loss"]:
        logged = [json.loads(line) for line in (swept["runs"][trace["name"]].folder / "events.jsonl").read_text().splitlines()]
        assert trace["y"] == pytest.approx([e["loss"] for e in logged if e["event"] == "StepEvent"])


def test_accuracy_drawn_is_the_accuracy_kept_and_rises_from_the_base(swept: dict[str, Any]) -> None:
    for trace in swept["shown"]["accuracy"]:
        metrics = swept["runs"][trace["name"]].metrics
        assert trace["x"][0] == 0
        assert trace["x"][-1] == STEPS
        assert trace["y"][0] == pytest.approx(metrics["base_accuracy"])
        assert trace["y"][-1] == pytest.approx(metrics["accuracy"])
        assert trace["y"][-1] > trace["y"][0] + 0.2


def test_spectrum_drawn_is_the_dense_spectrum_of_the_file(swept: dict[str, Any]) -> None:
    for trace in swept["shown"]["spectrum"]:
        run = swept["runs"][trace["name"]]
        tensors = load_file(run.adapter_dir / "adapter_model.safetensors")
        b, a = (tensors[f"{V3}.lora_{side}.weight"].double() for side in "BA")
        dense = torch.linalg.svdvals(run.spec.tuning.scaling * b @ a)[: run.spec.tuning.r]
        assert trace["y"] == pytest.approx(dense.tolist(), rel=1e-5)


def test_rank_table_shows_the_mean_over_seeds(swept: dict[str, Any]) -> None:
    cells = swept["page"].locator("#rank-table tr:nth-child(2) td").all_inner_texts()
    for r, cell in zip((1, 4), cells[1:], strict=True):
        accuracies = [run.metrics["accuracy"] for run in swept["runs"].values() if run.spec.tuning.r == r]
        assert float(cell.split(" %")[0]) == pytest.approx(50 * sum(accuracies), abs=0.06)


def test_address_brings_the_same_page_back(swept: dict[str, Any], open_page: Callable[..., Page]) -> None:
    page = open_train(open_page, "/?" + swept["url"].split("?")[1])
    expect(page.locator("#ranks input:checked")).to_have_count(2)
    expect(page.locator("#runs-table a")).to_have_count(4)
    page.wait_for_function("() => document.querySelector('#accuracy .js-plotly-plot')?._fullData?.length == 4")
    assert {t["name"] for t in traces(page, "accuracy")} == set(swept["runs"])


def test_second_start_trains_nothing_again(swept: dict[str, Any], app: Any) -> None:
    page = swept["page"]
    expect(page.locator("#plan")).to_be_visible()
    before = {run.run_id: (run.folder / "metrics.json").stat().st_mtime_ns for run in RunStore(app.runs).runs()}
    page.locator("#start").click()
    wait_for_state(page, "finished")
    page.wait_for_timeout(1000)
    assert before == {run.run_id: (run.folder / "metrics.json").stat().st_mtime_ns for run in RunStore(app.runs).runs()}


def test_clicking_a_matrix_changes_the_count_before_anything_runs(open_page: Callable[..., Page]) -> None:
    page = open_train(open_page)
    expect(page.locator("#counts")).to_contain_text("r 1: 1,024")
    page.locator('#block [data-pick="k"]').click()
    expect(page.locator("#counts")).to_contain_text("r 1: 1,536")
    expect(page.locator('#block [data-pick="k"]')).to_have_attribute("aria-checked", "true")
    page.locator('#block [data-pick="down"]').press("Enter")
    expect(page.locator("#counts")).to_contain_text("r 1: 2,432")  # 4 layers of 64 + 160 more
    assert "targets=q,v,k,down" in page.url


@pytest.mark.timed
def test_stop_is_acknowledged_within_a_second_and_keeps_what_was_learned(open_page: Callable[..., Page], app: Any) -> None:
    page = open_train(open_page, "/?r=2&seeds=3&steps=5000")
    page.locator("#start").click()
    expect(page.locator("#status")).to_contain_text("left", timeout=60_000)
    page.locator('#block [data-pick="k"]').click()  # the page answers while it trains
    expect(page.locator("#counts")).to_contain_text("r 2: 3,072", timeout=2_000)
    began_s = time.monotonic()
    page.locator("#stop").click()
    wait_for_state(page, "stopping", "stopped", timeout_s=5)
    assert time.monotonic() - began_s < 1
    wait_for_state(page, "stopped", timeout_s=20)
    run = next(run for run in RunStore(app.runs).runs() if run.spec.steps == 5000)
    assert run.metrics["status"] == "stopped"
    assert 0 < run.metrics["step"] < 5000
    assert run.adapter()


def test_a_worker_that_dies_whoever_takes_its_place_is_a_sentence_on_the_page(open_page: Callable[..., Page], app: Any) -> None:
    page = open_train(open_page, "/?r=2&seeds=2&steps=5000")
    page.locator("#start").click()
    expect(page.locator("#status")).to_contain_text("left", timeout=60_000)
    dead: set[int] = set()
    for _ in range(MOST_TRIES):
        dead.add(kill_a_worker(app.process.pid, dead))
    expect(page.locator("#status .error")).to_contain_text(f"ended unexpectedly {MOST_TRIES} times", timeout=60_000)


def kill_a_worker(server: int, dead: set[int], *, within_s: float = 60) -> int:
    """Kill the worker at work, a grandchild of the server, when it is there and is none of these; its pid."""
    import psutil

    deadline_s = time.monotonic() + within_s
    while time.monotonic() < deadline_s:
        family = psutil.Process(server).children(recursive=True)
        workers = [child for child in family if child.pid not in dead and child.ppid() != server]
        if workers:
            workers[0].kill()
            return workers[0].pid
        time.sleep(0.1)
    raise AssertionError("no worker came")


@pytest.mark.parametrize(
    ("group", "sentence"), [("ranks", "The r of a sweep must be at least one choice"), ("seeds", "The seeds of a sweep must be")]
)
def test_no_choice_is_one_sentence(open_page: Callable[..., Page], group: str, sentence: str) -> None:
    page = open_train(open_page)
    choose(page, group, set())
    expect(page.locator("#plan .error")).to_contain_text(sentence)
    page.locator("#start").click()
    expect(page.locator(".toast-body.error")).to_contain_text(sentence)


def test_learning_rate_out_of_range_is_one_sentence(open_page: Callable[..., Page]) -> None:
    page = open_train(open_page)
    page.locator("#lr input").fill("0")
    page.locator("#lr input").press("Tab")
    expect(page.locator("#plan .error")).to_contain_text("learning_rate")
    expect(page.locator("#plan .error")).to_contain_text("above 0")


def test_own_base_without_network_is_one_sentence(open_page: Callable[..., Page], tmp_path: Path) -> None:
    data = tmp_path / "mine.csv"
    data.write_text("text,label\n" + "\n".join(f"sentence {i},{'ab'[i % 2]}" for i in range(12)) + "\n")
    page = open_train(open_page)
    page.locator("#bench label", has_text="yours").click()
    page.get_by_label("Base: a folder or a Hub id").fill(str(tmp_path))
    page.get_by_label("Base: a folder or a Hub id").press("Enter")
    page.locator('input[type="file"]').set_input_files(data)
    expect(page.locator(".lab-aside")).to_contain_text("config.json", timeout=10_000)


def test_runs_survive_a_restart(swept: dict[str, Any], open_page: Callable[..., Page], app: Any) -> None:
    app.stop()
    app.start()
    page = open_page("/look")
    page.locator("#map table").wait_for()
    page.locator("#run input").click()
    offered = page.locator('#run [role="option"], ul[role="listbox"] [role="option"]').all_inner_texts()
    assert any("r 4" in text and "seed 1" in text for text in offered)
