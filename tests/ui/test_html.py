"""Drawings and tables: to scale, escaped, with gaps where nothing was measured."""

from pathlib import Path

import pytest

from lora_lab import RunStore, find_bench
from lora_lab.benches.digits import DigitsBench
from lora_lab.errors import DataError
from lora_lab.inference import MergeCost, MergeReport
from lora_lab.plots.matrix_map import matrix_map
from lora_lab.plots.measures import MATRIX_MEASURES
from lora_lab.specs import RunSpec
from lora_lab.sweeps import Run
from lora_lab.ui import html
from lora_lab.ui.lab import Lab
from lora_lab.ui.latency import LatencyView
from lora_lab.ui.look_html import rows_table
from lora_lab.ui.methods import MethodsView
from lora_lab.ui.place import Place
from lora_lab.ui.results_html import runs_to_pick
from lora_lab.ui.selection import Selection
from lora_lab.ui.train import TrainView
from lora_lab.ui.try_it import TryView


def test_names_are_escaped() -> None:
    evil = "<img src=x>"
    assert "<img" not in matrix_map({evil: 1.0}, MATRIX_MEASURES["frobenius"], picked="")
    assert "<img" not in rows_table(evil, [{evil: evil}])
    assert "<img" not in html.runs_table([(evil,)], [""])
    assert "<img" not in html.say(evil)
    assert "<img" not in runs_to_pick([run_called(evil)], [evil], [""], ())


def run_called(name: str) -> Run:
    return Run(name, RunSpec(bench="digits", base_sha256="0" * 64), {"status": "finished", "step": 1}, Path(name))


def test_a_merge_that_there_is_not_is_said_and_no_number_stands_in() -> None:
    ways = (MergeCost("fp32", 4.2e-7, 0.5), MergeCost("int8", None))
    table = html.merge_table(MergeReport(256, "accuracy", 0.5, ways, None))
    assert "<td>0.000042 %</td><td>50.0 %</td>" in table
    assert "<td>merged back into int8 as PEFT does</td><td>not to be had</td><td></td>" in table


@pytest.mark.parametrize(
    ("room", "show"), [(TrainView, "show_costs"), (MethodsView, "show_plan"), (LatencyView, "show"), (TryView, "show")]
)
def test_every_room_says_what_there_is_to_know_of_the_weights(
    room: type[Place], show: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DigitsBench, "note", lambda _: "Rounded <twice>.")
    shown = getattr(room(Lab(RunStore(tmp_path))), show)(Selection())
    assert any("Rounded &lt;twice&gt;." in part for part in shown if isinstance(part, str))


def test_a_bench_whose_weights_cannot_be_had_is_still_described(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(_: object) -> str:
        raise DataError("Lost.")

    monkeypatch.setattr(DigitsBench, "note", lost)
    bench = find_bench("digits")
    assert html.about(bench) == f'<div class="lab-s">{bench.about}</div>'
