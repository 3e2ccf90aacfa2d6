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
import psutil
import pytest
import torch
from playwright.sync_api import Browser, Locator, Page, expect

import lora_lab as ll
from lora_lab.budget import PARTS, versus
from lora_lab.sweeps import RunStore

pytestmark = pytest.mark.slow
# What is driven: the cells of a notebook, or a lesson, whose parameters take their small values.
Book = Path | list[str]
COSTS: Book = ["import lora_lab as ll", "costs = ll.widgets.Budget('llama-3.2-3b', ll.LoraSpec(r=8), batch=4)\ncosts"]
SWEEP: Book = [
    "STEPS = 60",
    "import lora_lab as ll",
    "sweep = ll.widgets.Sweep('digits', ll.SweepSpec(r=(1, 4), seeds=(0, 1), steps=STEPS), runs='runs')\nsweep",
]
MERGE: Book = [
    "import lora_lab as ll",
    "run = ll.train('digits', ll.LoraSpec(r=4), steps=20, runs='merged')",
    "merge = ll.widgets.Merge(run)\nmerge",
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

    def place(self, name: str, book: Book) -> None:
        """Put a notebook into the folder that JupyterLab shows."""
        if isinstance(book, Path):
            placed = nbformat.read(book, as_version=4)
            for cell in placed.cells:
                mocked: Mapping[str, Any] = cell.metadata.get("nbmake", {}).get("mock", {})
                cell.source += "".join(f"\n{key} = {value!r}" for key, value in mocked.items())
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
def open_notebook(browser: Browser, server: Server) -> Iterator[Callable[[str, Book], Page]]:
    """Places a notebook, opens it and runs all its cells; at the end no page may have raised an error."""
    context = browser.new_context(viewport={"width": 1500, "height": 1300})
    errors: list[str] = []

    def open_it(name: str, book: Book) -> Page:
        server.place(name, book)
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


def test_a_slider_moved_by_hand_draws_what_the_budget_is(open_notebook: Callable[[str, Book], Page]) -> None:
    page = open_notebook("costs", COSTS)
    until(lambda: bars(page), wanted_bars(ll.budget("llama-3.2-3b", ll.LoraSpec(r=8), batch=4)))
    press_slider(page, "r", "ArrowRight", 24)
    made = ll.budget("llama-3.2-3b", ll.LoraSpec(r=32), batch=4)
    until(lambda: bars(page), wanted_bars(made))
    expect(page.locator("#tile-params")).to_contain_text(f"{made.trainable_params:,}")
    page.locator('.lab-panel [data-pick="down"]').click()
    with_down = ll.budget("llama-3.2-3b", ll.LoraSpec(r=32, target_modules=("q", "v", "down")), batch=4)
    until(lambda: bars(page), wanted_bars(with_down))
    control(page, "card").locator("select").select_option("T4")
    expect(page.locator("#tile-fits")).to_contain_text("It does not fit T4")


def test_a_plot_is_as_wide_as_its_card_and_as_high_as_python_says(open_notebook: Callable[[str, Book], Page]) -> None:
    page = open_notebook("width", COSTS)
    script = """() => { const plot = document.querySelector('.lab-panel .js-plotly-plot'); const card = plot.closest('.lab-card');
      return [Math.abs(plot._fullLayout.width - (card.clientWidth - 28)) < 3, plot._fullLayout.height]; }"""
    height_px = ll.widgets.Budget("llama-3.2-3b", batch=4).figure().layout.height
    until(lambda: page.evaluate(script), [True, height_px])
    page.set_viewport_size({"width": 1000, "height": 1300})
    until(lambda: page.evaluate(script), [True, height_px])


def test_cells_run_twice_leave_one_widget_that_works(open_notebook: Callable[[str, Book], Page]) -> None:
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


def test_a_sweep_is_started_and_stopped_by_clicks_and_its_curves_are_what_the_store_keeps(
    open_notebook: Callable[[str, Book], Page], server: Server, left_behind: Callable[[Path], list[str]]
) -> None:
    page = open_notebook("sweep", SWEEP)
    button = page.locator(".lab-panel button")
    button.get_by_text("Start").click()
    page.locator('.lab-panel [data-state="finished"]').wait_for(timeout=90_000)
    runs = {run.run_id: run for run in RunStore(server.root / "runs").runs()}
    assert len(runs) == 4
    told = {f"r {run.spec.tuning.r} · seed {run.spec.seed}": run.progress() for run in runs.values()}
    losses = {label: [[e.step for e in one.steps], [e.loss for e in one.steps]] for label, one in told.items()}
    scores = {label: [[e.step for e in one.evals], [e.score for e in one.evals]] for label, one in told.items()}
    until(lambda: {t["meta"]: [t["x"], t["y"]] for t in plotted(page, "Does the loss fall?")}, losses)
    until(lambda: {t["meta"]: [t["x"], t["y"]] for t in plotted(page, "Does it generalise?")}, scores)
    control(page, "steps").locator("input").fill("50000")
    page.keyboard.press("Tab")
    expect(page.locator(".lab-panel .lab-aside .lab-say")).to_contain_text("50000 steps")
    button.get_by_text("Start").click()
    expect(state(page)).to_contain_text("left", timeout=60_000)
    before = last_step(page)
    until(lambda: last_step(page) > before, True)
    button.get_by_text("Stop").click()
    page.locator('.lab-panel [data-state="stopped"]').wait_for(timeout=30_000)
    until(lambda: left_behind(server.root / "runs"), [])
    kept = [run for run in RunStore(server.root / "runs").runs() if run.run_id not in runs]
    assert {run.metrics["status"] for run in kept} == {"stopped"}


def test_the_rank_kept_of_a_merge_is_moved_by_hand(open_notebook: Callable[[str, Book], Page], server: Server) -> None:
    page = open_notebook("merge", MERGE)
    (run,) = RunStore(server.root / "merged").runs()
    name = (
        control(page, "matrix").locator("select").evaluate("menu => menu.selectedOptions[0].textContent").split("(")[-1].strip(" )")
    )
    press_slider(page, "rank kept", "ArrowLeft", 2)
    u, sigma, v = torch.linalg.svd(run.adapter()[name].dense().double(), full_matrices=False)
    w, delta = run.base().named(name).double(), u[:, :2] * sigma[:2] @ v[:2]
    until(lambda: [trace["name"] for trace in plotted(page, "")], ["W0", "ΔW, 2 of 4 directions", "W0 + ΔW"])
    for trace, wanted in zip(plotted(page, ""), (w, delta, w + delta), strict=True):
        assert torch.allclose(torch.tensor(trace["z"]).double(), wanted, atol=1e-5)


def test_a_notebook_closed_in_the_middle_of_a_sweep_leaves_no_process_and_no_half_run(
    open_notebook: Callable[[str, Book], Page], server: Server, left_behind: Callable[[Path], list[str]]
) -> None:
    before = set(server.kernels())
    long = [*SWEEP[:-1], SWEEP[-1].replace("steps=STEPS", "steps=50_000").replace("'runs'", "'closed'")]
    page = open_notebook("closed", long)
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
