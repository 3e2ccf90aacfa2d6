"""From runs to one page: a small reproduction on the digits, trained for real."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lora_lab.benches import find_bench
from lora_lab.cli import main
from lora_lab.report.evidence import gather
from lora_lab.report.page import report_html
from lora_lab.report.plan import plan_reproduction
from lora_lab.report.provenance import provenance
from lora_lab.report.records import Evidence
from lora_lab.report.tables import tables
from lora_lab.report.verdicts import findings
from lora_lab.sweeps import RunStore
from lora_lab.sweeps.api import run_specs

FLAGS = ["reproduce", "--bench", "digits", "--steps", "8", "--seeds", "0,1"]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, readme_commands: list[list[str]]) -> Path:
    folder = tmp_path_factory.mktemp("reproduce")
    (words,) = [command for command in readme_commands if command[0] == "reproduce"]
    assert words[:3] == FLAGS[:3]  # the README's command, here of fewer steps and seeds
    assert main([*FLAGS, "--runs", str(folder / "runs"), "--out", str(folder / "page" / "report.html")]) == 0
    return folder


@pytest.mark.slow
def test_the_page_stands_alone_and_has_every_analysis(done: Path) -> None:
    page = (done / "page" / "report.html").read_text()
    assert all(f'<section id="{key}">' in page for key in ("targets", "ranks", "two_ranks", "two_seeds", "amplification"))
    assert all(f'<table id="{key}">' in page for key in ("table_5", "table_6", "table_7", "factors"))
    assert "<script src=" not in page
    assert "http" not in page.split("</style>")[0]


@pytest.mark.slow
def test_what_the_store_has_is_not_trained_again_and_gives_the_same_page(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    again = [*FLAGS, "--runs", str(done / "runs"), "--out", str(done / "again.html"), "--json"]
    assert main(again) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["provenance"]["command"] == "python -m lora_lab reproduce --bench digits --seeds 0,1 --steps 8"
    assert (told["provenance"]["trained"], told["provenance"]["runs"], told["failed"]) == (0, 42, {})
    assert [table["key"] for table in told["tables"]] == ["table_5", "table_6", "table_7", "factors"]
    sections = [text.split("<h3>Table")[0] for text in (done / "page" / "report.html").read_text().split("<section")[1:-1]]
    other = [text.split("<h3>Table")[0] for text in (done / "again.html").read_text().split("<section")[1:-1]]
    assert [s.split('class="say">')[-1].split("</div>")[0] for s in sections] == [
        s.split('class="say">')[-1].split("</div>")[0] for s in other
    ]


@pytest.mark.slow
def test_untrained_start_values_are_no_finding(done: Path) -> None:
    """The null test of the whole instrument: a random stream shared between ranks would fail it."""
    plan = plan_reproduction(find_bench("digits"), steps=0, seeds=(0, 1))
    run_specs(plan.specs, done / "null", runner="inline", device="cpu")
    evidence = gather(plan, RunStore(done / "null").runs())
    given = {finding.key: finding for finding in findings(evidence)}
    assert not any(finding.is_found for finding in given.values())
    assert given["amplification"].verdict == "cannot be told"  # ΔW is zero: it has no direction


def test_one_seed_is_refused_before_anything_is_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FLAGS[:-1], "0", "--runs", str(tmp_path / "runs")]) == 2
    assert "at least two" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_the_papers_own_numbers_stand_beside_ours(evidence: Callable[..., Evidence]) -> None:
    by_key = {table.key: table for table in tables(evidence())}
    both = next(row for row in by_key["table_5"].rows if row[0] == "q, v")
    assert both == ("q, v", "4", "80.0 ± 1.0 (3)", "4", "73.7", "91.3")
    assert [row[-1] for row in by_key["table_7"].rows[-2:]] == ["21.6", "1.88"]  # 6.91 / 0.32 and 3.57 / 1.90


def test_what_is_told_is_escaped(evidence: Callable[..., Evidence]) -> None:
    made = evidence(bench="<b>mine</b>")
    source = provenance("python -m lora_lab reproduce", device="cpu", runs=1, trained=1, trained_s=1.0, base_note="<i>")
    page = report_html(made, findings(made), source)
    assert "<b>mine" not in page
    assert "&lt;b&gt;mine" in page
