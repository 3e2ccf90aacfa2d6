"""`inspect --base`: what W adds to what is told of ΔW."""

import json
from typing import Any

import pytest

from lora_lab.analysis import amplification, intruders
from lora_lab.benches.base_weights import open_base
from lora_lab.cli import main


def test_beside_its_base_an_adapter_has_amplification_and_intruders(digits_run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(digits_run.adapter_dir), "--base", "digits", "--k", "6", "--threshold", "0.7", "--json"]) == 0
    modules = {one["name"]: one for one in json.loads(capsys.readouterr().out)["modules"]}
    adapter, base = digits_run.adapter(), open_base("digits")
    assert list(modules) == list(adapter)
    for one in amplification(adapter, base):
        assert modules[one.name]["amplification"]["factor"] == pytest.approx(one.factor)
    for new in intruders(adapter, base, k=6, threshold=0.7):
        told = modules[new.name]["intruder_dimensions"]
        assert (told["count"], told["k"], told["threshold"]) == (new.count, 6, 0.7)


def test_they_stand_in_the_printed_table_too(digits_run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(digits_run.adapter_dir), "--base", "digits"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split()[-2:] == ["factor", "intruders"]
    assert all(row.rstrip().endswith("of 10") for row in rows)


def test_a_base_that_is_none_is_a_sentence(digits_run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(digits_run.adapter_dir), "--base", str(digits_run.adapter_dir)]) == 2
    assert capsys.readouterr().err.startswith("lora-lab: ")
