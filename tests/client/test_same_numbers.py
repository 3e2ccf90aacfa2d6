"""One question has one answer: page, command line and widget give the same number, to the last digit that each of them shows."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from html import unescape
from typing import Any

import gradio as gr
import plotly.io
import pytest

import lora_lab as ll
from lora_lab import Run
from lora_lab.cli import main
from lora_lab.sweeps import RunStore
from lora_lab.ui.budget import BudgetView
from lora_lab.ui.lab import Lab
from lora_lab.ui.look import LookRoom
from lora_lab.ui.look_amplification import AmplificationView
from lora_lab.ui.look_spectra import SpectraView
from lora_lab.ui.look_subspaces import SubspacesView
from lora_lab.ui.selection import Selection

pytestmark = pytest.mark.slow

MATRIX = "vit.layers.2.attention.v_proj"
CARD = "RTX 4090"


@dataclass(frozen=True)
class Page:
    """The places of the page, each asked through its own handler."""

    lab: Lab
    runs: tuple[Run, Run]

    def budget(self) -> str:
        """The answers of Budget as HTML."""
        chosen = Selection(model="Llama-3.2-3B", rank=32, batch=4, seq=750, card=CARD)
        html: str = BudgetView(self.lab).show(chosen)[2]
        return html

    def look(self, room: type[LookRoom], **chosen: Any) -> dict[str, Any]:
        """What a room of Look shows of the two runs, by the names of its components."""
        view = room(self.lab)
        with gr.Blocks() as page:
            view.build(page)
        first, second = (run.run_id for run in self.runs)
        outputs = view.show(Selection(run=first, against=second, matrix=MATRIX, **chosen))
        return dict(zip([getattr(component, "elem_id", "") for component in view.answers], outputs, strict=True))

    def number(self, room: type[LookRoom], measure: str) -> float:
        """The number that the map of a room has on the matrix, as it stands in full on hover."""
        drawn = self.look(room, measure=measure)["map"]
        return float(re.search(rf'title="{re.escape(MATRIX)}: ([^"]+)"', drawn)[1])  # type: ignore[index]


@dataclass(frozen=True)
class CommandLine:
    """`lora-lab … --json`, run in this process."""

    runs: tuple[Run, Run]
    say: Callable[..., dict[str, Any]]

    def budget(self) -> dict[str, Any]:
        """What `budget` says."""
        chosen = ("--model", "llama-3.2-3b", "--r", "32", "--targets", "q_proj,v_proj", "--batch", "4", "--seq", "750")
        return self.say("budget", *chosen)

    def inspect(self, *more: str) -> dict[str, Any]:
        """What `inspect` says of the matrix."""
        modules = self.say("inspect", self.runs[0].run_id, *self._store, *more)["modules"]
        found: dict[str, Any] = next(module for module in modules if module["name"] == MATRIX)
        return found

    def compare(self) -> dict[str, Any]:
        """What `compare` says of the matrix."""
        first, second = (run.run_id for run in self.runs)
        found: dict[str, Any] = self.say("compare", first, second, "--module", MATRIX, *self._store)["modules"][0]
        return found

    def score(self) -> float:
        """The score that `results` has of the first run."""
        rows = self.say("results", *self._store)["runs"]
        found: float = next(row["score"] for row in rows if row["run_id"] == self.runs[0].run_id)
        return found

    @property
    def _store(self) -> tuple[str, str]:
        return "--runs", str(self.runs[0].folder.parent)


@dataclass(frozen=True)
class Widgets:
    """The widgets, driven from code."""

    runs: tuple[Run, Run]

    def budget(self) -> Any:
        """Budget, its controls moved one by one."""
        widget = ll.widgets.Budget(gpu=CARD)
        for name, value in {"r": 32, "batch": 4, "seq": 750}.items():
            getattr(widget, name).value = value
        widget.targets.value = ("q_proj", "v_proj")
        return widget.budget

    def score(self) -> float:
        """The last score in Sweep's curve of the first run."""
        widget = ll.widgets.Sweep("digits", ll.SweepSpec(r=(8,), seeds=(0,), steps=40), runs=self.runs[0].folder.parent)
        assert widget.runs == self.runs[:1]
        (curve,) = (trace for trace in widget.figure("score").data if trace.name == "r 8 · seed 0")
        found: float = curve.y[-1]
        return found

    def spectrum(self) -> Any:
        """Spectrum of the first run."""
        return self._at_matrix(ll.widgets.Spectrum(self.runs[0]))

    def overlap(self) -> Any:
        """Overlap of the two."""
        return self._at_matrix(ll.widgets.Overlap(*self.runs))

    def amplification(self) -> Any:
        """Amplification of the first run."""
        return self._at_matrix(ll.widgets.Amplification(self.runs[0]))

    def microscope(self, measure: str) -> float:
        """What the map of Microscope has on the matrix."""
        widget = ll.widgets.Microscope(self.runs[0])
        widget.measure.value = measure
        value: float = widget.values[MATRIX]
        return value

    @staticmethod
    def _at_matrix(widget: Any) -> Any:
        widget.matrix.value = MATRIX
        return widget


def trainable_params(page: Page, line: CommandLine, widgets: Widgets) -> list[object]:
    (drawn,) = re.findall(r'id="tile-params".*?([\d,]+), [\d.]+ % of the base', page.budget())
    return [int(drawn.replace(",", "")), line.budget()["trainable_params"], widgets.budget().trainable_params]


def peak_bytes(page: Page, line: CommandLine, widgets: Widgets) -> list[object]:
    (drawn,) = re.findall(r'class="lab-bar-row on" data-peak="(\d+)"', page.budget())
    return [int(drawn), line.budget()["vram_bytes"]["peak"], widgets.budget().ledger.peak]


def does_it_fit(page: Page, line: CommandLine, widgets: Widgets) -> list[object]:
    lamps = {card: lamp == "yes" for lamp, card in re.findall(r'class="lab-lamp (yes|no)">([^<]+)<', page.budget())}
    assert CARD in lamps
    told, shown = line.budget()["fits"], widgets.budget().fitting
    return [lamps, {card: told[card] for card in lamps}, {card: shown[card] for card in lamps}]


def final_score(page: Page, line: CommandLine, widgets: Widgets) -> list[object]:
    drawn = re.search(r"accuracy <b>([^<]+)</b>", page.look(SpectraView)["facts"])[1]  # type: ignore[index]
    shown = widgets.score()
    text = page.runs[0].metric.text
    assert line.score() == shown
    return [drawn, text(line.score()), text(shown)]


def singular_values(page: Page, line: CommandLine, widgets: Widgets) -> list[object]:
    drawn = plot(page.look(SpectraView)["look-spectrum"]).data[0].y
    told, shown = line.inspect()["singular_values"], widgets.spectrum().answer.plot.data[0].y
    return [tuple(drawn), tuple(told), tuple(shown)]


def stable_rank(page: Page, line: CommandLine, widgets: Widgets) -> list[object]:
    return [page.number(SpectraView, "stable_rank"), line.inspect()["stable_rank"], widgets.microscope("stable_rank")]


def phi_1_8(page: Page, line: CommandLine, widgets: Widgets) -> list[object]:
    drawn = plot(page.look(SubspacesView)["overlap"]).data[0].z[0][7]
    return [drawn, line.compare()["phi"][0][7], widgets.overlap().record.phi[0][7]]


def chance_1_8(page: Page, line: CommandLine, widgets: Widgets) -> list[object]:
    drawn = plot(page.look(SubspacesView)["overlap"]).data[-1].z[0][7]
    return [drawn, line.compare()["chance"][0][7], widgets.overlap().answer.plot.data[-1].z[0][7]]


def amplification_factor(page: Page, line: CommandLine, widgets: Widgets) -> list[object]:
    told = line.inspect("--base", "digits")["amplification"]["factor"]
    return [page.number(AmplificationView, "factor"), told, widgets.amplification().record.factor]


def intruder_count(page: Page, line: CommandLine, widgets: Widgets) -> list[object]:
    widget = widgets.amplification()
    widget.threshold.value = 0.8
    told = line.inspect("--base", "digits", "--threshold", "0.8")["intruder_dimensions"]
    says = unescape(page.look(AmplificationView, threshold=0.8)["intruders-says"])
    drawn = int(re.search(r">(\d+) of the 10 leading", says)[1])  # type: ignore[index]
    return [drawn, told["count"], widget.intruders.count]


QUESTIONS = [
    trainable_params,
    peak_bytes,
    does_it_fit,
    final_score,
    singular_values,
    stable_rank,
    phi_1_8,
    chance_1_8,
    amplification_factor,
    intruder_count,
]


def plot(shown: Any) -> Any:
    """The figure that a plot of the page was given, read back from what goes to the browser."""
    return plotly.io.from_json(shown.value["plot"])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    """Two seeds of r = 8."""
    store = tmp_path_factory.mktemp("runs")
    first, second = (ll.train("digits", ll.LoraSpec(r=8), steps=40, seed=seed, runs=store) for seed in (0, 1))
    return first, second


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """A command's document."""

    def run(*arguments: str) -> dict[str, Any]:
        assert main([*arguments, "--json"]) == 0
        document: dict[str, Any] = json.loads(capsys.readouterr().out)
        return document

    return run


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.__name__)
def test_page_command_line_and_widget_give_the_same_number(
    question: Callable[..., list[object]], runs: tuple[Run, Run], say: Callable[..., dict[str, Any]]
) -> None:
    page = Page(Lab(RunStore(runs[0].folder.parent)), runs)
    answers = question(page, CommandLine(runs, say), Widgets(runs))
    assert len(answers) == 3
    assert answers == [answers[0]] * 3
