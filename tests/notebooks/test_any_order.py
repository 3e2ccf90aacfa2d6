"""A reader runs cells as they like: twice, out of order, again. No widget breaks, and one that is replaced is closed."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

REPOSITORY = Path(__file__).parent.parent.parent
WITH_WIDGETS = ["02_what_it_costs", "05_how_much_rank", "07_what_is_learned", "10_your_own_adapter"]
OPEN_WIDGETS = """
import json
from ipywidgets.widgets.widget import _instances
from lora_lab.widgets import Panel
print(json.dumps(sorted(type(one).__name__ for one in _instances.values() if isinstance(one, Panel) and not one.closed)))
"""


class Reader:
    """A kernel with a lesson in it, whose cells are run one by one with the small values of its parameters."""

    def __init__(self, lesson: Path) -> None:
        self.book = nbformat.read(lesson, as_version=4)
        self.client = NotebookClient(
            self.book, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(REPOSITORY)}}
        )

    @property
    def code(self) -> list[int]:
        """The cells that can be run; the last, which tidies up, left out."""
        return [i for i, cell in enumerate(self.book.cells) if cell.cell_type == "code" and "if TIDY" not in cell.source]

    @property
    def tidies(self) -> int:
        """The cell that closes what the lesson opened."""
        return next(i for i, cell in enumerate(self.book.cells) if "if TIDY" in cell.source)

    def of(self, text: str) -> list[int]:
        """The cells with that text in them."""
        return [i for i in self.code if text in self.book.cells[i].source]

    def run(self, at: int) -> Any:
        """Run a cell, as the front end does that calls it by its id; an error in it fails the test."""
        cell = self.book.cells[at]
        self.client.execute_cell(cell, at)
        if "parameters" in cell.metadata.get("tags", []):
            self.say("\n".join(f"{name} = {value!r}" for name, value in cell.metadata.nbmake["mock"].items()))
        return cell

    def say(self, source: str) -> str:
        """Run something that is not in the lesson; what it printed."""
        cell = nbformat.v4.new_code_cell(source)
        self.book.cells.append(cell)
        self.client.execute_cell(cell, len(self.book.cells) - 1)
        return "".join(output.text for output in cell.outputs if output.get("name") == "stdout")

    def open_widgets(self) -> list[str]:
        """The kinds of the widgets that are not closed."""
        found: list[str] = json.loads(self.say(OPEN_WIDGETS))
        return found


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Reader]]:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))
    entered: list[Any] = []

    def read(name: str) -> Reader:
        reader = Reader(REPOSITORY / "notebooks" / f"{name}.ipynb")
        entered.append(reader.client.setup_kernel())
        entered[-1].__enter__()
        return reader

    yield read
    for kernel in entered:
        kernel.__exit__(None, None, None)


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_WIDGETS)
def test_cells_run_twice_and_out_of_order_break_no_widget(name: str, read: Callable[[str], Reader]) -> None:
    reader = read(name)
    for at in reader.code:
        reader.run(at)
    once = reader.open_widgets()
    assert once
    made = reader.of("ll.widgets.")
    for at in made:
        for _ in range(2):
            shown = reader.run(at)
            assert any("application/vnd.jupyter.widget-view+json" in output.get("data", {}) for output in shown.outputs)
    assert reader.open_widgets() == once  # a cell's new widget takes the place of its old one
    for at in reversed(reader.code[reader.code.index(made[0]) :]):
        reader.run(at)  # the later cells first
    for at in reader.code:
        reader.run(at)  # and then all of them again, in a kernel that has everything
    assert reader.open_widgets() == once
    reader.run(reader.tidies)
    assert reader.open_widgets() == []


@pytest.mark.slow
def test_a_sweep_whose_cell_is_run_again_while_it_trains_is_stopped_and_leaves_no_half_run(read: Callable[[str], Reader]) -> None:
    reader = read("05_how_much_rank")
    (made,) = reader.of("ll.widgets.Sweep(")
    for at in reader.code[: reader.code.index(made) + 1]:
        reader.run(at)
    reader.say("training.steps.value = 20_000; first = training; training.start()")
    reader.say("import time\nwhile not first.share_done: time.sleep(0.05)")
    reader.run(made)
    ended = "print(first.closed, first.state, training.closed, [p.name for p in pathlib.Path(FOLDER).glob('.draft*')])"
    assert reader.say(f"import pathlib; {ended}").strip() == "True stopped False []"
    assert reader.open_widgets() == ["Sweep"]
