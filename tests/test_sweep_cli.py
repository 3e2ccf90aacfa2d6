"""`sweep` on the command line: every axis as a flag, equal budgets, and real runs of a few steps."""

import json
from pathlib import Path
from typing import Any

import pytest

import lora_lab as ll
from lora_lab.cli import main
from lora_lab.specs import MethodSpec
from lora_lab.sweeps import RunStore

SWEEP = ["sweep", "--bench", "digits", "--steps", "2", "--batch", "2", "--runner", "inline"]


def swept(capsys: pytest.CaptureFixture[str], runs: Path, *flags: str) -> dict[str, Any]:
    assert main([*SWEEP, "--runs", str(runs), "--json", *flags]) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_every_axis_is_a_flag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--method", "lora+", "--r", "1", "--layers", "0-1;all", "--dropout", "0,0.1", "--loraplus-ratio", "4,16"]
    document = swept(capsys, tmp_path, *flags, "--bias", "lora_only", "--weight-decay", "0.1")
    said = [(run["spec"], run["spec"]["tuning"]) for run in document["runs"]]
    found = [(t["layers_to_transform"], t["lora_dropout"], s["loraplus_lr_ratio"]) for s, t in said]
    assert found == [(layers, p, ratio) for layers in ([0, 1], None) for p in (0.0, 0.1) for ratio in (4.0, 16.0)]
    assert {(s["weight_decay"], t["bias"], s["batch_size"]) for s, t in said} == {(0.1, "lora_only", 2)}
    assert {run["metrics"]["status"] for run in document["runs"]} == {"finished"}
    assert "equal_budget" not in document


def test_an_equal_budget_is_spent_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = swept(capsys, tmp_path, "--targets", "q;q,v;q,k,v,o", "--equal-budget", "q,v@4")
    params = ll.budget.method_params(ll.find_bench("digits").geometry(), MethodSpec(r=4, target_modules=("q", "v")))
    assert [choice["r"] for choice in document["equal_budget"]] == [8, 4, 2]
    assert {(choice["trainable_params"], choice["budget_params"]) for choice in document["equal_budget"]} == {(params, params)}
    assert [run["metrics"]["trainable_params"] for run in document["runs"]] == [params] * 3
    assert [run["spec"]["tuning"]["r"] for run in document["runs"]] == [8, 4, 2]


def test_what_an_equal_budget_buys_is_said_before_it_trains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SWEEP, "--runs", str(tmp_path), "--targets", "q;all-linear", "--equal-budget", "4k"]) == 0
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "LoRA on q: r 7 trains 3,584 of 4,000 parameters."
    assert said[1] == "LoRA on all-linear: r 1 trains 3,840 of 4,000 parameters."


def test_a_plan_trains_nothing_and_says_what_it_would_take(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = tmp_path / "runs"
    flags = ["--targets", "q;q,v", "--equal-budget", "q,v@4", "--seeds", "0,1,2"]
    document = swept(capsys, runs, *flags, "--plan")
    assert not runs.exists()
    assert list(document) == ["plan", "equal_budget"]
    plan = document["plan"]
    assert (plan["runs"], plan["kept"], plan["steps"], plan["workers"]) == (6, 0, 12, 1)
    assert plan["time_s"] > 0

    swept(capsys, runs, *flags)
    taken = sum(path.stat().st_size for path in runs.glob("*/**/*") if path.is_file())
    assert plan["disk_bytes"] == plan["adapter_bytes"] + plan["log_bytes"] == pytest.approx(taken, rel=0.15)
    assert main([*SWEEP, "--runs", str(runs), *flags, "--plan"]) == 0
    assert capsys.readouterr().out == "6 runs, and the store has all of them: nothing is left to do.\n"


def test_the_plan_of_the_readme_is_one(
    readme_commands: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (words,) = [command for command in readme_commands if "--plan" in command]
    assert main([*words, "--runs", str(tmp_path / "runs")]) == 0
    assert capsys.readouterr().out.startswith("9 runs: 1,800 optimizer steps, ")


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--equal-budget", "100", "--targets", "q"], "must be at least 512, which LoRA on q trains at r = 1. Got 100."),
        (["--equal-budget", "much"], "--equal-budget must be a number such as 18M"),
        (["--equal-budget", "5k", "--r", "4"], "--r must be left out where --equal-budget is given. Got '4'."),
        (["--equal-budget", "5k", "--method", "ia3"], "methods with an r where equal_budget is given. Got 'ia3'."),
        (["--layers", "7"], "layers_to_transform parameter of MethodSpec must be in 0..3 and hold a target"),
        (["--layers", "0;x"], "numbers and spans such as 0-5,8. Got 'x'."),
        (["--dropout", "0,2"], "lora_dropout parameter of MethodSpec must be a number in 0..1"),
        (["--dropout", "some"], "--dropout must be a number. Got 'some'."),
        (["--seeds", ""], "seeds parameter of SweepSpec must be a value or a tuple of them. Got ()."),
    ],
)
def test_a_mistake_is_one_sentence_and_trains_nothing(
    flags: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SWEEP, "--runs", str(tmp_path), *flags]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert sentence in said.err
    assert said.err.count("\n") == 1
    assert RunStore(tmp_path).runs() == []
