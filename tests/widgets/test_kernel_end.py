"""A notebook's kernel ends with a sweep under way, however it ends: no process of it is left, and no half run."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from jupyter_client.manager import KernelManager

from lora_lab.sweeps import RunStore

pytestmark = pytest.mark.slow
CELL = """
import lora_lab as ll
sweep = ll.widgets.Sweep("digits", ll.SweepSpec(r=(1, 2), seeds=(0, 1), steps=50_000), runs={runs!r})
sweep.start()
sweep
"""


@dataclass
class Notebook:
    """A kernel, started as Jupyter starts it, and the store that its sweep trains into."""

    manager: KernelManager
    client: Any
    runs: Path

    def run(self, code: str, *, within_s: float = 90) -> str:
        """Run a cell; what it printed."""
        said: list[str] = []
        reply = self.client.execute_interactive(code, timeout=within_s, output_hook=lambda m: said.append(str(m["content"])))
        assert reply["content"]["status"] == "ok", said
        return "".join(said)

    @property
    def process(self) -> psutil.Process:
        return psutil.Process(self.manager.provisioner.pid)

    def family(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]

    def wait_for_steps(self, *, within_s: float = 90) -> None:
        """Until every run has taken some."""
        deadline_s = time.monotonic() + within_s
        while sum(log.read_text().count('"loss"') > 20 for log in self.runs.glob(".draft-*/events.jsonl")) < 4:
            assert time.monotonic() < deadline_s
            time.sleep(0.1)


@contextmanager
def sweeping(folder: Path, repository: Path) -> Iterator[Notebook]:
    """A notebook in which a sweep trains. However it is left, and also where it never gets so far, its kernel ends."""
    path = os.pathsep.join([str(repository), os.environ.get("PYTHONPATH", "")])
    manager = KernelManager(kernel_name="python3", connection_file=str(folder / "kernel.json"))
    manager.start_kernel(cwd=str(folder), env={**os.environ, "PYTHONPATH": path})
    client = manager.client()
    opened = Notebook(manager, client, folder / "runs")
    try:
        client.start_channels()
        client.wait_for_ready(timeout=60)
        opened.run(CELL.format(runs=str(opened.runs)))
        opened.wait_for_steps()
        yield opened
    finally:
        client.stop_channels()
        if manager.has_kernel:
            manager.shutdown_kernel(now=True)


@pytest.fixture
def notebook(tmp_path: Path, repository: Path) -> Iterator[Notebook]:
    """One that a test may end."""
    with sweeping(tmp_path, repository) as opened:
        yield opened


@pytest.fixture(scope="module")
def living(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Iterator[Notebook]:
    """One that tests leave alive, and its sweep training."""
    with sweeping(tmp_path_factory.mktemp("living"), repository) as opened:
        yield opened


def shut_down(notebook: Notebook) -> None:
    """As Jupyter does: ask, and after some seconds insist."""
    notebook.manager.shutdown_kernel()


def restart(notebook: Notebook) -> None:
    notebook.manager.restart_kernel()


def kill_all(notebook: Notebook) -> None:
    """As Jupyter does with a kernel that does not answer: SIGKILL to all its process group."""
    os.killpg(notebook.process.pid, signal.SIGKILL)


def kill_alone(notebook: Notebook) -> None:
    os.kill(notebook.process.pid, signal.SIGKILL)


@pytest.mark.parametrize("end", [shut_down, restart, kill_all, kill_alone])
def test_no_process_and_no_half_run_is_left(
    notebook: Notebook, end: Callable[[Notebook], None], left_behind: Callable[[Path], list[str]]
) -> None:
    family = notebook.family()
    assert len(family) > 3, "kernel, server of forks and workers"
    end(notebook)
    _, alive = psutil.wait_procs(family, timeout=15)
    assert alive == []
    assert left_behind(notebook.runs) == []
    kept = RunStore(notebook.runs).runs()
    assert {run.metrics["status"] for run in kept} == {"stopped"}
    assert len(kept) == 4
    assert min(run.metrics["step"] for run in kept) > 20, "what was learned is kept"


def test_an_interrupted_cell_leaves_the_sweep_alone(living: Notebook) -> None:
    """The key that interrupts a cell sends SIGINT to the kernel and to all that it has started."""
    workers = {process.pid for process in living.family()[1:]}
    living.manager.interrupt_kernel()
    before = sum(log.stat().st_size for log in living.runs.glob(".draft-*/events.jsonl"))
    time.sleep(2)
    assert sum(log.stat().st_size for log in living.runs.glob(".draft-*/events.jsonl")) > before
    assert {process.pid for process in living.family()[1:]} == workers
    assert "running" in living.run("print(sweep.state)")


def test_a_cell_that_is_run_again_closes_what_it_made_before(living: Notebook) -> None:
    cell = "others = [*globals().get('others', []), ll.widgets.Budget()]"
    living.run(cell)
    living.run(cell)
    living.run("another = ll.widgets.Budget()")
    assert "[True, False]" in living.run("print([one.closed for one in others])")


def test_the_kernel_answers_while_it_trains_and_the_plot_is_fed(living: Notebook) -> None:
    began_s = time.monotonic()
    assert "3" in living.run("print(1 + 2)", within_s=10)
    assert time.monotonic() - began_s < 5
    last_x = "print([trace.x[-1] for trace in sweep._plots['loss'].plot.data])"
    first = living.run(last_x)
    time.sleep(2)
    assert living.run(last_x) != first
