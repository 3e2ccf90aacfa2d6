"""`gradients` on the command line: no training, one document, and what the store's runs say of it."""

import json
from pathlib import Path
from typing import Any

import pytest

import lora_lab as ll
from lora_lab.cli import main
from lora_lab.sweeps import RunStore

GRADIENTS = ["gradients", "--bench", "digits", "--batches", "2"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two choices of targets at one budget, two seeds each."""
    folder = tmp_path_factory.mktemp("runs")
    grid = ll.SweepSpec(targets=(("q",), ("q", "v")), equal_budget=1024, seeds=(0, 1), steps=4, batch_size=2)
    ll.sweep("digits", grid, runs=folder, runner="inline")
    return folder


def printed(capsys: pytest.CaptureFixture[str], *flags: str) -> dict[str, Any]:
    assert main([*GRADIENTS, "--json", *flags]) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_the_document_is_what_python_says(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = RunStore(runs).runs()
    first, second = store[:2]
    against = ["--against", first.run_id, "--against", second.run_id[:9]]
    document = printed(capsys, "--runs", str(runs), "--r", "3", "--share", "0.8", *against)
    advice = ll.gradient_advice("digits", batches=2, r=3, share=0.8, against=[first, second], runs=store)
    assert [(m["name"], m["per_parameter"], m["rank_for_share"]) for m in document["matrices"]] == [
        (m.name, m.per_parameter, m.rank_for_share) for m in advice.matrices
    ]
    assert [one["run_id"] for one in document["against"]] == [first.run_id, second.run_id]
    for told, learned in zip(document["against"], advice.against, strict=True):
        assert told["sentence"] == ll.plots.learned_beside_caption(learned, run=learned.run_id)
        for module, one in zip(told["overlaps"], learned.overlaps, strict=True):
            assert (module["name"], module["descent_cosine"]) == (one.name, one.descent_cosine)
            assert module["input_side"]["chance"] == one.input_side.chance
    assert advice.tried is not None
    assert document["tried"]["adapter_params"] == 1024
    assert [c["targets"] for c in document["tried"]["choices"]] == [c.targets for c in advice.tried.choices]
    assert document["tried"]["verdict_in_reach"] == advice.tried.verdict("in_reach")
    assert document["verdict"] == ll.plots.tried_advice_caption(advice.tried)


def test_people_read_a_row_a_matrix_and_the_sentences(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*GRADIENTS, "--runs", str(runs)]) == 0
    _, *rows, told, verdict = capsys.readouterr().out.splitlines()
    assert len(rows) == 24
    assert told.startswith("Per parameter the gradient is largest in layer ")
    assert "scores best of 2 choices of targets" in verdict


def test_without_a_store_nothing_is_made_and_nothing_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = printed(capsys, "--runs", str(tmp_path / "none"))
    assert (document["tried"], document["against"]) == (None, [])
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--batches", "0"], "batches parameter of gradient_advice must be an int of at least 1. Got 0."),
        (["--batches", "few"], "--batches must be an int. Got 'few'."),
        (["--share", "2"], "share parameter of weight_gradient must be above 0 and at most 1. Got 2.0."),
        (["--against", "zzzz"], "Got 'zzzz': no run begins so."),
    ],
)
def test_a_mistake_is_one_sentence(flags: list[str], sentence: str, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*GRADIENTS, "--runs", str(runs), *flags]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert sentence in said.err
