"""One round trip through Gradio's own client: the API names are there, a sweep starts and stops."""

import time
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import pytest
from gradio_client import Client

from lora_lab.sweeps import RunStore
from lora_lab.ui import build
from lora_lab.ui.lab import Lab
from lora_lab.ui.page import theme

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(RunStore(tmp_path_factory.mktemp("client")))


@pytest.fixture(scope="module")
def served(lab: Lab) -> Iterator[gr.Blocks]:
    page = build(lab)
    page.launch(prevent_thread_lock=True, quiet=True, theme=theme())
    yield page
    page.close()


def test_config_names_the_places_and_the_public_events(served: gr.Blocks) -> None:
    config = served.get_config_file()
    train, look = ["", "results", "methods", "latency", "try"], ["look", "subspaces", "amplification", "paper"]
    assert [name for name, *_ in config["pages"]] == [*train, "budget", *look]
    public = {d["api_name"] for d in config["dependencies"] if d["api_visibility"] == "public"}
    assert public == {"start", "stop", "trace", "reach", "gradients", "merge", "latency", "ask", "compare", "halt"}


def test_start_and_stop_from_a_client(served: gr.Blocks, lab: Lab) -> None:
    client = Client(served.local_url, verbose=False)
    client.predict(api_name="/start")
    (job,) = lab.jobs.values()
    deadline_s = time.monotonic() + 60
    while job.steps_done == 0 and time.monotonic() < deadline_s:
        time.sleep(0.1)
    client.predict(api_name="/stop")
    assert job.state in ("stopping", "stopped")
    while not job.ended and time.monotonic() < deadline_s:
        time.sleep(0.1)
    assert job.state == "stopped"
    assert any(run.metrics["status"] == "stopped" for run in lab.store.runs())


def test_another_visitor_has_no_job(served: gr.Blocks, lab: Lab) -> None:
    stranger = Client(served.local_url, verbose=False)
    jobs = len(lab.jobs)
    stranger.predict(api_name="/stop")
    assert len(lab.jobs) == jobs


def test_in_public_a_visitor_sees_only_the_runs_of_their_job(digits_run: object, tmp_path: Path) -> None:
    public = Lab(RunStore(digits_run.folder.parent), public=True)  # type: ignore[attr-defined]
    assert public.visible_runs("somebody") == []
    name, _ = public.new_job([digits_run.spec])  # type: ignore[attr-defined]
    assert [run.run_id for run in public.visible_runs(name)] == [digits_run.run_id]  # type: ignore[attr-defined]
