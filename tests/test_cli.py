"""The command line as the contract has it, in processes of their own; main() in this one where a process shows no more."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

import lora_lab as ll
from lora_lab.cli import main


def command(readme_commands: list[list[str]], *beginning: str) -> list[str]:
    """The README's command that begins so."""
    (found,) = [c for c in readme_commands if c[: len(beginning)] == list(beginning)]
    return found


def lab(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "lora_lab", *arguments], cwd=cwd, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def swept(repository: Path, readme_commands: list[list[str]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The README's sweep, as a user runs it."""
    runs = tmp_path_factory.mktemp("cli") / "runs"
    arguments = [*command(readme_commands, "sweep", "--bench", "digits", "--r"), "--runs", str(runs), "--json"]
    done = lab(*arguments, cwd=repository)
    assert done.returncode == 0, done.stderr[-2000:]
    return {"runs_dir": runs, "arguments": arguments, **json.loads(done.stdout)}


@pytest.fixture(scope="module")
def step_zero(tmp_path_factory: pytest.TempPathFactory) -> list[ll.Run]:
    """Two adapters that were never trained, r = 8, seeds 0 and 1."""
    runs = tmp_path_factory.mktemp("zero")
    return [ll.train("digits", ll.LoraSpec(r=8), steps=0, seed=seed, runs=runs) for seed in (0, 1)]


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(arguments) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


@pytest.mark.slow
def test_sweep_trains_six_runs_that_read_the_turned_digits(swept: dict[str, Any]) -> None:
    assert len(swept["runs"]) == 6
    assert swept["skipped"] == []
    assert swept["wall_s"] <= 150
    for r in (4, 16):
        accuracies = [run["metrics"]["accuracy"] for run in swept["runs"] if run["spec"]["tuning"]["r"] == r]
        assert np.mean(accuracies) >= 0.72
    assert all(run["metrics"]["base_accuracy"] <= 0.30 for run in swept["runs"])


@pytest.mark.slow
def test_same_sweep_again_skips_all(swept: dict[str, Any], repository: Path) -> None:
    done = lab(*swept["arguments"], cwd=repository)
    again = json.loads(done.stdout)
    assert sorted(again["skipped"]) == sorted(run["run_id"] for run in swept["runs"])
    assert again["runs"] == swept["runs"]


@pytest.mark.slow
def test_inspect_gives_the_dense_spectrum(swept: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    for run in swept["runs"]:
        inspected = printed(capsys, "inspect", run["adapter_dir"], "--json")
        tensors = load_file(Path(run["adapter_dir"]) / "adapter_model.safetensors")
        lora = run["spec"]["tuning"]
        assert inspected["format"] == "peft"
        assert len(inspected["modules"]) == 8
        for module in inspected["modules"]:
            b, a = (tensors[f"base_model.model.{module['name']}.lora_{side}.weight"].double() for side in "BA")
            dense = torch.linalg.svdvals(lora["lora_alpha"] / lora["r"] * b @ a)[: lora["r"]]
            np.testing.assert_allclose(module["singular_values"], dense, rtol=1e-5)
            assert module["scaling"] == lora["lora_alpha"] / lora["r"]
            assert module["shape"] == [64, 64]


@pytest.mark.slow
@pytest.mark.parametrize("side", ["in", "out"])
def test_compare_of_two_seeds_is_in_0_to_1(swept: dict[str, Any], capsys: pytest.CaptureFixture[str], side: str) -> None:
    first, second = (run["run_id"] for run in swept["runs"] if run["spec"]["tuning"]["r"] == 16)
    compared = printed(capsys, "compare", first, second, "--runs", str(swept["runs_dir"]), "--side", side, "--json")
    for module in compared["modules"]:
        phi = np.array(module["phi"])
        assert phi.shape == np.shape(module["chance"]) == (16, 16)
        assert phi.min() >= 0
        assert phi.max() <= 1


@pytest.mark.slow
def test_compare_of_a_run_with_itself_is_one_on_the_diagonal(swept: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    run = swept["runs"][-1]["adapter_dir"]
    for module in printed(capsys, "compare", run, run, "--json")["modules"]:
        np.testing.assert_allclose(np.diag(module["phi"]), 1, atol=1e-9)


def test_compare_of_a_at_step_0_is_at_chance(step_zero: list[ll.Run], capsys: pytest.CaptureFixture[str]) -> None:
    first, second = (str(run.adapter_dir) for run in step_zero)
    modules = printed(capsys, "compare", first, second, "--of", "a", "--json")["modules"]
    corner = [module["phi"][7][7] for module in modules]
    chance, sd = modules[0]["chance"][7][7], 0.0208  # sd of φ(8, 8) in 64 dimensions: 2·8·8·56·56 / (64²·63·66), rooted, over 8
    assert chance == 8 / 64
    assert abs(np.mean(corner) - chance) < 4 * sd / np.sqrt(len(corner))


def test_delta_at_step_0_has_no_direction(step_zero: list[ll.Run], capsys: pytest.CaptureFixture[str]) -> None:
    first, second = (str(run.adapter_dir) for run in step_zero)
    assert all(m["phi"] is None for m in printed(capsys, "compare", first, second, "--json")["modules"])
    for module in printed(capsys, "inspect", first, "--json")["modules"]:
        assert set(module["singular_values"]) == {0.0}
        assert module["stable_rank"] is module["effective_rank"] is None


@pytest.mark.slow
def test_adapter_gives_the_same_accuracy_in_plain_peft(swept: dict[str, Any]) -> None:
    run = swept["runs"][2]
    bench = ll.find_bench("digits")
    model = PeftModel.from_pretrained(bench.build(), run["adapter_dir"])
    assert ll.evaluate(model, bench.splits()[1]).value == pytest.approx(run["metrics"]["accuracy"])


@pytest.mark.slow
def test_reviews_learn_above_three_quarters(repository: Path, readme_commands: list[list[str]], tmp_path: Path) -> None:
    arguments = command(readme_commands, "train", "--bench", "reviews")
    done = lab(*arguments, "--runs", str(tmp_path), "--json", cwd=repository)
    assert done.returncode == 0, done.stderr[-2000:]
    run = json.loads(done.stdout)
    assert set(run) == {"run_id", "metrics", "adapter_dir", "spec"}
    assert run["metrics"]["accuracy"] >= 0.75
    assert 0.4 <= run["metrics"]["base_accuracy"] <= 0.6
    bench = ll.find_bench("reviews")
    model = PeftModel.from_pretrained(bench.build(), run["adapter_dir"])
    assert ll.evaluate(model, bench.splits()[1]).value == pytest.approx(run["metrics"]["accuracy"])


BAD = [
    (["train", "--bench", "digits", "--r", "0"], "r parameter of MethodSpec must be an int of at least 1. Got 0"),
    (["train", "--bench", "digits", "--r", "65"], "1..min(d_in, d_out)=64"),
    (["train", "--bench", "digits", "--r", "four"], "--r must be an int. Got 'four'"),
    (["train", "--bench", "digits", "--targets", "q_proj,typo"], "Got 'typo'"),
    (["train", "--bench", "digits", "--lr", "-1"], "learning_rate"),
    (["train", "--bench", "digits", "--steps", "-1"], "steps parameter of RunSpec must be an int of at least 0. Got -1"),
    (["train", "--bench", "digits", "--device", "tpu"], "device parameter of training must be one of"),
    (["train", "--bench", "digits", "--method", "lo-ra"], "method parameter of MethodSpec must be one of lora, rslora"),
    (["train", "--bench", "digit"], "The bench must be one of digits"),
    (["train", "--bench", "nobody/nothing"], "data file"),
    (["sweep", "--bench", "digits", "--r", "1,128"], "1..min(d_in, d_out)=64"),
    (["sweep", "--bench", "digits", "--alpha", "2x"], "lora_alpha"),
    (
        ["sweep", "--bench", "digits", "--runner", "carrier-pigeon"],
        "runner parameter of sweep_events must be one of process, inline",
    ),
    (["inspect", "no/such/adapter/here"], "adapter must be a folder"),
    (["inspect", "README.md"], "adapter must be a folder with adapter_config.json"),
    (["compare", "README.md", "README.md"], "adapter must be a folder with adapter_config.json"),
]


@pytest.mark.parametrize(("arguments", "sentence"), BAD, ids=[" ".join(arguments) for arguments, _ in BAD])
def test_a_mistake_is_one_sentence_and_exit_2(
    arguments: list[str],
    sentence: str,
    tmp_path: Path,
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "README.md").write_text("no adapter")
    monkeypatch.chdir(tmp_path)
    assert main([*arguments, "--json"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert sentence in said.err
    assert len(said.err.strip().splitlines()) == 1
    assert not list(tmp_path.glob("runs/*"))


def test_data_mistakes_are_one_sentence_and_write_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text("{}")
    for name, text, sentence in (
        ("empty.csv", "", "at least one row"),
        ("column.csv", "sentence,label\nx,1\n", "text_column must be one of sentence, label. Got 'text'"),
        ("missing.csv", None, "must be a CSV or JSONL file that exists"),
    ):
        if text is not None:
            (tmp_path / name).write_text(text)
        arguments = ["train", "--bench", str(base), "--data", str(tmp_path / name), "--runs", str(tmp_path / "runs"), "--json"]
        assert main(arguments) == 2
        assert sentence in capsys.readouterr().err
    assert not list(tmp_path.glob("runs/*"))
