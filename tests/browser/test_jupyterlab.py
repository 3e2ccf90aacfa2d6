"""Notebooks in a real JupyterLab: controls moved by hand, values read from the plots, a notebook closed while its sweep trains."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import psutil
import pytest
import sklearn.datasets
from playwright.sync_api import Browser, Locator, Page, expect

import lora_lab as ll
from lora_lab.budget import PARTS, find_card, versus
from lora_lab.sweeps import RunStore

pytestmark = pytest.mark.slow
Opened = Callable[..., Page]  # name, book, and other values of a lesson's parameters
Book = Path | list[str]  # a lesson, whose parameters take their small values, or the cells of a notebook
COSTS: Book = ["import lora_lab as ll", "costs = ll.widgets.Budget('llama-3.2-3b', ll.LoraSpec(r=8), batch=4)\ncosts"]
LONG_SWEEP: Book = [
    "import lora_lab as ll",
    "sweep = ll.widgets.Sweep('digits', ll.SweepSpec(r=(1, 4), seeds=(0, 1), steps=50_000), runs='closed')\nsweep",
]


class Server:
    """`jupyter lab` on a free port, with folders of its own and no network."""

    def __init__(self, home: Path, repository: Path) -> None:
        self.root = home / "notebooks"
        settings = home / "settings" / "@jupyterlab" / "apputils-extension"
        for folder in (self.root, settings):
            folder.mkdir(parents=True)
        (settings / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}')
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        own = {"CONFIG_DIR": "config", "DATA_DIR": "data", "RUNTIME_DIR": "runtime"}
        lab = {"SETTINGS_DIR": "settings", "WORKSPACES_DIR": "workspaces"}
        folders = {f"JUPYTER_{name}": folder for name, folder in own.items()}
        folders |= {f"JUPYTERLAB_{name}": folder for name, folder in lab.items()} | {"IPYTHONDIR": "ipython"}
        path = os.pathsep.join([str(repository), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, **{name: str(home / folder) for name, folder in folders.items()}, "PYTHONPATH": path}
        flags = [f"--ServerApp.port={self.url.rpartition(':')[2]}", "--ServerApp.port_retries=0", "--IdentityProvider.token="]
        flags += [f"--ServerApp.root_dir={self.root}", "--no-browser", "--allow-root"]
        flags += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
        with (home / "log").open("w") as log:
            command = [sys.executable, "-m", "jupyterlab", *flags]
            self.process = psutil.Popen(command, cwd=self.root, env=environment, stdout=log, stderr=log)
        self.log = home / "log"
        self._wait()

    def _wait(self) -> None:
        deadline_s = time.monotonic() + 90
        while time.monotonic() < deadline_s and self.process.poll() is None:
            try:
                urllib.request.urlopen(f"{self.url}/api", timeout=5)
                return
            except OSError:
                time.sleep(0.2)
        pytest.fail(f"JupyterLab did not answer:\n{self.log.read_text()[-2000:]}")

    def place(self, name: str, book: Book, **values: Any) -> None:
        """Put a notebook into the folder that JupyterLab shows; a lesson with other values yet for some parameters."""
        if isinstance(book, Path):
            placed = nbformat.read(book, as_version=4)
            for cell in placed.cells:
                mocked: Mapping[str, Any] = cell.metadata.get("nbmake", {}).get("mock", {})
                if mocked:
                    cell.source += "".join(f"\n{key} = {value!r}" for key, value in {**mocked, "TIDY": False, **values}.items())
        else:
            placed = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in book])
            placed.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(placed, self.root / f"{name}.ipynb")

    def kernels(self) -> list[psutil.Process]:
        """Every process under the server: the kernels and all that they have started."""
        return self.process.children(recursive=True)

    def stop(self) -> None:
        family = self.kernels()
        self.process.terminate()
        try:
            self.process.wait(20)
        except (psutil.TimeoutExpired, subprocess.TimeoutExpired):
            self.process.kill()
        _, alive = psutil.wait_procs(family, timeout=10)
        for process in alive:
            process.kill()


@pytest.fixture(scope="module")
def server(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("jupyter"), repository)
    yield running
    running.stop()


@pytest.fixture
def open_notebook(browser: Browser, server: Server) -> Iterator[Opened]:
    """Places a notebook, opens it and runs all its cells; at the end no page may have raised an error."""
    context = browser.new_context(viewport={"width": 1500, "height": 1300})
    errors: list[str] = []

    def open_it(name: str, book: Book, **values: Any) -> Page:
        server.place(name, book, **values)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{server.url}/lab/tree/{name}.ipynb?reset")
        expect(page.locator("#jp-main-statusbar")).to_contain_text(
            "| Idle", timeout=60_000
        )  # cells run before that start a second kernel
        choose(page, "Run", "runmenu:run-all")
        page.locator(".lab-panel .js-plotly-plot .main-svg").first.wait_for(timeout=90_000)
        return page

    yield open_it
    context.close()
    assert errors == []


def choose(page: Page, menu: str, command: str) -> None:
    """Choose a command from a menu of the menu bar."""
    page.locator(".lm-MenuBar-itemLabel").get_by_text(menu, exact=True).click()
    page.locator(f'.lm-Menu-item[data-command="{command}"]').first.click()


def control(page: Page, title: str) -> Locator:
    """The control of that title."""
    return page.locator(".lab-panel .widget-inline-hbox").filter(has=page.locator(f'.widget-label:text-is("{title}")'))


def press_slider(page: Page, title: str, key: str, times: int) -> None:
    """Move a slider by its keys."""
    control(page, title).locator(".noUi-handle").focus()
    for _ in range(times):
        page.keyboard.press(key)


def plotted(page: Page, question: str) -> list[dict[str, Any]]:
    """The traces of the plot under a question, as plotly has drawn them."""
    script = """([title]) => {
      const shows = card => card.textContent.includes(title) && card.querySelector('.js-plotly-plot')?._fullData;
      const card = [...document.querySelectorAll('.lab-panel .lab-card')].find(shows);
      if (!card) return [];
      const plain = value => value === undefined || value === null ? null : JSON.parse(JSON.stringify(
        value, (_, v) => ArrayBuffer.isView(v) ? Array.from(v) : v));
      return card.querySelector('.js-plotly-plot')._fullData.map(trace => (
        {name: trace.name, meta: trace.meta ?? null, x: plain(trace.x), y: plain(trace.y), z: plain(trace.z)}));
    }"""
    return list(page.evaluate(script, [question]))


def until(found: Callable[[], Any], wanted: Any, *, within_s: float = 20) -> None:
    """Wait until the page shows what is wanted, and say what it shows instead."""
    deadline_s = time.monotonic() + within_s
    while (shown := found()) != wanted and time.monotonic() < deadline_s:
        time.sleep(0.1)
    assert shown == wanted


def bars(page: Page) -> dict[str, dict[str, float]]:
    """GB by row and part."""
    rows: dict[str, dict[str, float]] = {}
    for trace in plotted(page, "Where does the memory go?"):
        for row, gigabytes in zip(trace["y"], trace["x"], strict=True):
            rows.setdefault(row, {})[trace["name"]] = gigabytes
    return rows


def wanted_bars(made: ll.Budget) -> dict[str, dict[str, float]]:
    parts = (*PARTS, "overhead")
    return {row: {part: getattr(one.ledger, part) / 10**9 for part in parts} for row, one in versus(made).items()}


def run_through(page: Page, *, within_s: float) -> None:
    """Wait until every cell has run; one that fails keeps those after it from running."""
    script = (
        """() => [...document.querySelectorAll('.jp-CodeCell .jp-InputArea-prompt')].map(prompt => prompt.textContent.trim())"""
    )
    count = len(page.evaluate(script))
    until(lambda: page.evaluate(script), [f"[{n}]:" for n in range(1, count + 1)], within_s=within_s)


def test_lesson_1_the_rank_kept_of_a_digit_is_moved_by_hand(open_notebook: Opened, repository: Path) -> None:
    page = open_notebook("lesson_1", repository / "notebooks" / "01_a_low_rank_update_by_hand.ipynb", DIGIT=5)
    run_through(page, within_s=60)
    pictures = sklearn.datasets.load_digits().images
    w = pictures.mean(axis=0)
    u, sigma, vt = np.linalg.svd(pictures[5] - w)
    press_slider(page, "rank kept", "ArrowRight", 1)  # from 2, where a cell of the lesson has put it
    until(lambda: drawn(page), ["W0", f"ΔW, 3 of {np.linalg.matrix_rank(pictures[5] - w)} directions", "W0 + ΔW"])
    delta = u[:, :3] * sigma[:3] @ vt[:3]
    for trace, wanted in zip(plotted(page, ""), (w, delta, w + delta), strict=True):
        np.testing.assert_allclose(trace["z"], wanted, atol=1e-5)


def drawn(page: Page) -> list[str]:
    """What the plot of the first widget shows, by name."""
    return [trace["name"] for trace in plotted(page, "")]


def test_lesson_2_a_slider_moved_by_hand_draws_what_the_budget_is(open_notebook: Opened, repository: Path) -> None:
    page = open_notebook("lesson_2", repository / "notebooks" / "02_what_it_costs.ipynb", MODEL="Llama-3.2-3B", CARD="T4")
    run_through(page, within_s=120)
    step = {"batch": 4, "seq": 256}
    until(lambda: bars(page), wanted_bars(ll.budget("llama-3.2-3b", ll.LoraSpec(r=64), **step)))
    press_slider(page, "r", "ArrowLeft", 24)
    made = ll.budget("llama-3.2-3b", ll.LoraSpec(r=40), **step)
    until(lambda: bars(page), wanted_bars(made))
    expect(page.locator("#tile-params")).to_contain_text(f"{made.trainable_params:,}")
    page.locator('.lab-panel [data-pick="down"]').click()
    with_down = ll.budget("llama-3.2-3b", ll.LoraSpec(r=40, target_modules=("q", "v", "down")), **step)
    until(lambda: bars(page), wanted_bars(with_down))
    for card in ("T4", "H100 80GB"):
        control(page, "card").locator("select").select_option(card)
        fits = with_down.fits(find_card(card))
        expect(page.locator("#tile-fits")).to_contain_text(f"It fits {card}" if fits else f"It does not fit {card}")


def test_a_plot_is_as_wide_as_its_card_and_as_high_as_python_says(open_notebook: Opened) -> None:
    page = open_notebook("width", COSTS)
    script = """() => { const plot = document.querySelector('.lab-panel .js-plotly-plot'); const card = plot.closest('.lab-card');
      return [Math.abs(plot._fullLayout.width - (card.clientWidth - 28)) < 3, plot._fullLayout.height]; }"""
    height_px = ll.widgets.Budget("llama-3.2-3b", batch=4).figure().layout.height
    until(lambda: page.evaluate(script), [True, height_px])
    page.set_viewport_size({"width": 1000, "height": 1300})
    until(lambda: page.evaluate(script), [True, height_px])


def test_cells_run_twice_leave_one_widget_that_works(open_notebook: Opened) -> None:
    page = open_notebook("twice", COSTS)
    press_slider(page, "r", "ArrowRight", 8)
    until(lambda: bars(page), wanted_bars(ll.budget("llama-3.2-3b", ll.LoraSpec(r=16), batch=4)))
    choose(page, "Run", "runmenu:run-all")
    until(lambda: bars(page), wanted_bars(ll.budget("llama-3.2-3b", ll.LoraSpec(r=8), batch=4)))
    expect(page.locator(".lab-panel")).to_have_count(1)
    press_slider(page, "r", "ArrowRight", 4)
    until(lambda: bars(page), wanted_bars(ll.budget("llama-3.2-3b", ll.LoraSpec(r=12), batch=4)))


def state(page: Page) -> Locator:
    return page.locator(".lab-panel [data-state]")


def last_step(page: Page) -> int:
    """Of the longest curve."""
    return max((trace["x"][-1] for trace in plotted(page, "Does the loss fall?") if trace["x"]), default=0)


def test_lesson_4_a_sweep_is_started_and_stopped_by_clicks_and_its_curves_are_what_the_store_keeps(
    open_notebook: Opened, server: Server, repository: Path, left_behind: Callable[[Path], list[str]]
) -> None:
    page = open_notebook("lesson_4", repository / "notebooks" / "04_train_one.ipynb", RUNS="runs")
    run_through(page, within_s=240)
    store = RunStore(server.root / "runs")
    of_lesson = {run.run_id for run in store.runs()}
    button = page.locator(".lab-panel button")
    set_steps(page, 80)
    button.get_by_text("Start").click()
    until(lambda: len(store.runs()), len(of_lesson) + 1, within_s=60)
    page.locator('.lab-panel [data-state="finished"]').wait_for(timeout=60_000)
    (run,) = [run for run in store.runs() if run.run_id not in of_lesson]
    told = run.progress()
    until(lambda: curves(page, "Does the loss fall?"), [[[e.step for e in told.steps], [e.loss for e in told.steps]]])
    until(lambda: curves(page, "Does it generalise?"), [[[e.step for e in told.evals], [e.score for e in told.evals]]])
    assert told.steps[-1].step == 80
    set_steps(page, 50_000)
    button.get_by_text("Start").click()
    expect(state(page)).to_contain_text("left", timeout=60_000)
    before = last_step(page)
    until(lambda: last_step(page) > before, True)
    button.get_by_text("Stop").click()
    page.locator('.lab-panel [data-state="stopped"]').wait_for(timeout=30_000)
    until(lambda: left_behind(server.root / "runs"), [])
    kept = [one for one in store.runs() if one.run_id not in {*of_lesson, run.run_id}]
    assert [one.metrics["status"] for one in kept] == ["stopped"]


def set_steps(page: Page, steps: int) -> None:
    """Write the number of steps and wait until the widget has taken it."""
    control(page, "steps").locator("input").fill(str(steps))
    page.keyboard.press("Tab")
    expect(page.locator(".lab-panel .lab-aside .lab-say").first).to_contain_text(f"{steps} steps")


def curves(page: Page, question: str) -> list[list[Any]]:
    """The curves under a question that have points."""
    return [[trace["x"], trace["y"]] for trace in plotted(page, question) if trace["x"]]


def test_a_notebook_closed_in_the_middle_of_a_sweep_leaves_no_process_and_no_half_run(
    open_notebook: Opened, server: Server, left_behind: Callable[[Path], list[str]]
) -> None:
    before = set(server.kernels())
    page = open_notebook("closed", LONG_SWEEP)
    page.locator(".lab-panel button").get_by_text("Start").click()
    expect(state(page)).to_contain_text("left", timeout=60_000)
    own = [process for process in server.kernels() if process not in before]
    assert len(own) > 3, "kernel, server of forks and workers"
    choose(page, "File", "filemenu:close-and-cleanup")
    for dialog in (".jp-Dialog button.jp-mod-accept", ".jp-Dialog button.jp-mod-warn"):
        if page.locator(dialog).count():
            page.locator(dialog).first.click()
    _, alive = psutil.wait_procs(own, timeout=20)
    assert alive == []
    assert left_behind(server.root / "closed") == []
    kept = RunStore(server.root / "closed").runs()
    assert (len(kept), {run.metrics["status"] for run in kept}) == (4, {"stopped"})
