"""A real app in a real browser. The browser is found or fetched; without one these tests fail."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--no-first-run"]
_LEFT_THE_PAGE = ("AbortError", "Connection errored out")  # a request under way when the page is left
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def _system_browser() -> str | None:
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


def _succeeds(*command: str, timeout_s: int = 600) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=timeout_s, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The system's Chromium; else Playwright's own, downloaded; else Debian's package, installed."""
    path = _system_browser()
    own = path is None and _succeeds(sys.executable, "-m", "playwright", "install", "chromium")
    if path is None and not own:
        _succeeds("apt-get", "update")
        _succeeds("apt-get", "install", "-y", "chromium")
        path = _system_browser()
    if path is None and not own:
        pytest.fail("No browser: neither Playwright's download nor the system's chromium package could be had.")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield launched
        launched.close()


class App:
    """`python app.py` on a free port, with a runs folder of its own; may be stopped and started again."""

    def __init__(self, repository: Path, runs: Path, **environment: str) -> None:
        self.repository, self.runs, self.environment = repository, runs, environment
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        settings = {"GRADIO_SERVER_PORT": str(self.port), "LORA_LAB_RUNS": str(self.runs), **self.environment}
        self.log = (self.runs.parent / "app.log").open("a")
        command = [sys.executable, "app.py"]
        environment = {**os.environ, **settings}
        self.process = subprocess.Popen(command, cwd=self.repository, env=environment, stdout=self.log, stderr=self.log)
        deadline_s = time.monotonic() + 120
        while time.monotonic() < deadline_s and self.process.poll() is None:
            try:
                urllib.request.urlopen(self.url, timeout=5)
                return
            except OSError:
                time.sleep(0.2)
        pytest.fail(f"The app did not answer:\n{(self.runs.parent / 'app.log').read_text()[-2000:]}")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)
        self.log.close()


@pytest.fixture(scope="module")
def app(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """One app a test module."""
    running = App(repository, tmp_path_factory.mktemp("app") / "runs")
    yield running
    running.stop()


@pytest.fixture
def open_page(browser: Browser, app: App) -> Iterator[Callable[..., Page]]:
    """Opens a page of the app; at the end no page may have said an error on its console."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    errors: list[str] = []

    def open_it(path: str = "/") -> Page:
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.goto(app.url + path)
        return page

    yield open_it
    context.close()
    assert not [error for error in errors if not any(benign in error for benign in _LEFT_THE_PAGE)]
