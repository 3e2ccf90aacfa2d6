"""The page of evidence is what the code and the data give now, and reads without them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from lora_lab.budget import find_model, model_names
from lora_lab.budget.evidence import EVIDENCE_MD, GRID, cases, settings_text
from lora_lab.budget.paper import paper_figures
from lora_lab.specs import StepSpec

PAGE = EVIDENCE_MD.read_text(encoding="utf-8")
TABLES = [part for part in PAGE.split("\n\n") if part.startswith("| ")]


def cells(table: str) -> list[list[str]]:
    """A table's rows, its head and rule left out."""
    return [line.removeprefix("| ").removesuffix(" |").split(" | ") for line in table.splitlines()[2:]]


@pytest.mark.slow
def test_the_committed_page_is_what_the_command_writes_now(repository: Path) -> None:
    """In a process of its own, where annotations are not checked at every call: that takes half as long again."""
    code = "import torch; torch.set_num_threads(1); from lora_lab.budget.evidence import as_markdown; print(as_markdown(), end='')"
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=True)
    assert done.stdout == PAGE


def test_every_row_of_a_table_has_a_cell_a_column() -> None:
    assert len(TABLES) == 3
    for table in TABLES:
        assert len({line.count(" | ") for line in table.splitlines()}) == 1


def test_every_case_stands_with_its_measured_figure_its_counter_and_its_source() -> None:
    rows = {row[0]: row for row in cells(TABLES[0])}
    sources = dict(re.findall(r"^(\d)\. (.+)$", PAGE, re.MULTILINE))
    assert set(rows) == {case.id for case in cases()}
    for case in cases():
        row = rows[case.id]
        assert float(row[3].removesuffix(" GB")) == pytest.approx(case.measured_bytes / 10**9, abs=0.051)
        assert row[4] == case.counter in ("allocated", "reserved")
        assert sources[row[9]] == case.source


def test_an_error_is_ours_against_the_measured_figure() -> None:
    measured = {case.id: case.measured_bytes for case in cases()}
    for row in cells(TABLES[0]):
        for ours, error in ((row[5], row[6]), (row[7], row[8])):
            share = float(ours.removesuffix(" GB")) * 10**9 / measured[row[0]] - 1
            assert float(error.removesuffix(" %")) / 100 == pytest.approx(share, abs=0.05 * 10**9 / measured[row[0]] + 0.0006)


def test_a_case_is_read_whole() -> None:
    by_id = {case.id: case for case in cases()}
    tiny = by_id["t4-tiny-2048"].setting.step
    assert tiny == StepSpec(batch=2, seq=2048, dtype="fp16", quant="nf4", checkpointing=True, kbit_prepare=True)
    assert by_id["p-mlp"].setting.spec.target_modules == ("gate_proj", "up_proj", "down_proj")
    assert by_id["m7-qlora4"].setting.spec.lora_dropout == 0.1


def test_the_grid_is_of_catalogued_models_and_repeats_nothing() -> None:
    assert len(set(GRID)) == len(GRID) >= 12
    assert all(find_model(setting.model).name in model_names() for setting in GRID)
    assert [row[:2] for row in cells(TABLES[1])] == [[s.model, settings_text(s)] for s in GRID]


def test_every_figure_of_the_paper_stands_beside_ours() -> None:
    rows = {row[0]: row for row in cells(TABLES[2])}
    assert list(rows) == [figure.name for figure in paper_figures()]
    for figure in paper_figures():
        assert rows[figure.name][2:4] == [figure.paper_text, figure.ours_text]


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https://)([^)]+)\)", PAGE):
        assert (EVIDENCE_MD.parent / target).is_file()
