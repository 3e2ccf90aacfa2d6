"""The README tells what is: its commands run (the sweep and the reviews in test_cli), its figures are measured."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import lora_lab as ll
from lora_lab.cli import main


@pytest.fixture(scope="module")
def readme(repository: Path) -> str:
    return (repository / "README.md").read_text()


@pytest.mark.parametrize(("name", "asks"), [("inspect", 1), ("compare", 2)])
def test_commands_on_a_run_work(
    readme_commands: list[list[str]], digits_run: Any, name: str, asks: int, capsys: pytest.CaptureFixture[str]
) -> None:
    (words,) = [c for c in readme_commands if c[0] == name]
    line = " ".join(words)
    assert line.count("<run id>") == asks
    filled = line.replace("runs/<run id>/adapter", str(digits_run.adapter_dir)).replace("<run id>", digits_run.run_id)
    assert main([*filled.split(), "--runs", str(digits_run.folder.parent), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["modules"]) == 8


def test_a_run_with_snapshots_tells_when_it_found_its_directions(
    readme_commands: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = ["--runs", str(tmp_path), "--json"]
    (train,) = [c for c in readme_commands if "--snapshots" in c]
    assert main([*train, *runs]) == 0
    run_id = json.loads(capsys.readouterr().out)["run_id"]
    (words,) = [c for c in readme_commands if c[0] == "drift"]
    assert main([*" ".join(words).replace("<run id>", run_id).split(), *runs]) == 0
    modules = json.loads(capsys.readouterr().out)["modules"]
    assert len(modules) == 8
    assert {tuple(point["step"] for point in module["points"]) for module in modules} == {(10, 20, 30, 40, 50, 60)}


def test_a_first_gradient_is_held_against_a_run(
    readme_commands: list[list[str]], digits_run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    (words,) = [c for c in readme_commands if c[0] == "gradients"]
    filled = " ".join(words).replace("<run id>", digits_run.run_id).split()
    assert main([*filled, "--runs", str(digits_run.folder.parent), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (len(told["matrices"]), told["tried"]) == (24, None)
    assert [(one["run_id"], len(one["overlaps"])) for one in told["against"]] == [(digits_run.run_id, 8)]


def test_results_are_pivoted(readme_commands: list[list[str]], digits_run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    (words,) = [c for c in readme_commands if c[0] == "results"]
    assert main([*words, "--runs", str(digits_run.folder.parent), "--json"]) == 0
    (cell,) = json.loads(capsys.readouterr().out)["pivot"]["cells"]
    assert (cell["r"], cell["mean"], cell["sd"], cell["count"]) == (4, digits_run.metrics["accuracy"], None, 1)


@pytest.mark.slow
def test_a_sweep_is_timed(readme_commands: list[list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    (words,) = [c for c in readme_commands if c[0] == "perf"]
    assert main([*words, "--count", "2", "--batch", "4", "--steps", "2", "--json"]) == 0
    (speed,) = json.loads(capsys.readouterr().out)["sweeps"]
    assert len(speed["ratios"]) == 1


def test_budgets_are_reckoned(readme_commands: list[list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    budgets = [words for words in readme_commands if words[0] == "budget"]
    assert len(budgets) == 2
    for words in budgets:
        assert main([*words, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["vram_bytes"]["peak"] > 10**9
        assert main(words) == 0
        assert "GB" in capsys.readouterr().out


def test_catalogues_are_as_large_as_told(readme: str) -> None:
    from lora_lab.budget import cards, model_names
    from lora_lab.methods.tiny import TINY
    from lora_lab.specs import METHODS
    from lora_lab.support import ROWS

    assert f"for {len(METHODS)} methods on {len(model_names())} models" in readme
    assert f"{len(cards())} cards" in readme
    assert f"{len(TINY)} families × {len(METHODS)} methods" in readme
    assert f"{len(TINY)} families × {len(ROWS)} rows" in readme


def test_a_base_of_your_own_works(
    readme_commands: list[list[str]], tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "mine.csv"
    data.write_text("text,label\n" + "".join(f"word{i % 7} is {'good' if i % 2 else 'bad'},{i % 2}\n" for i in range(40)))
    (words,) = [c for c in readme_commands if "path/or/hub-id" in c]
    filled = [{"path/or/hub-id": str(tiny_base), "mine.csv": str(data)}.get(word, word) for word in words]
    assert main([*filled, "--steps", "3", "--runs", str(tmp_path / "runs"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["status"] == "finished"


def test_data_of_your_own_are_looked_at_first(
    readme_commands: list[list[str]], tiny_writer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "mine.jsonl"
    rows = [{"prompt": f"say word{i % 7}", "completion": "it is good"} for i in range(20)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (words,) = [c for c in readme_commands if c[0] == "preview"]
    filled = [{"path/or/language-model": str(tiny_writer), "mine.jsonl": str(data)}.get(word, word) for word in words]
    assert main([*filled, "--json"]) == 0
    seen = json.loads(capsys.readouterr().out)
    assert (seen["train_rows"], seen["validation_rows"], seen["test_rows"]) == (16, 2, 2)
    assert sum(seen["bin_counts"]) == 16


@pytest.mark.slow
def test_latency_is_measured(readme_commands: list[list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    (words,) = [c for c in readme_commands if c[0] == "latency"]
    assert main([*words[:-1], "8", "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert {variant["name"] for variant in measured["shapes"][0]["variants"]} >= {"base", "merged", "lora"}


@pytest.mark.slow
def test_a_language_model_is_trained(
    readme_commands: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its steps and the rows that it writes are fewer here: whole it takes minutes."""
    from lora_lab.benches import language

    small = {
        name: replace(recipe, validation_rows=6, test_rows=6, scored_rows=6, max_new_tokens=24)
        for name, recipe in language.RECIPES.items()
    }
    monkeypatch.setattr(language, "RECIPES", small)
    for cached in (language._text_data, language._splits):
        cached.cache_clear()
    (words,) = [c for c in readme_commands if c[:3] == ["train", "--bench", "e2e"]]
    assert main([*words[:-1], "6", "--runs", str(tmp_path), "--json"]) == 0
    run = json.loads(capsys.readouterr().out)
    assert run["metrics"]["loss"] < 0.9 * run["metrics"]["base_loss"]
    assert run["metrics"]["metric"] == "bleu"
    assert run["metrics"]["forgetting"]["kept"] == "loss"
    for cached in (language._text_data, language._splits):
        cached.cache_clear()


def printed(snippet: str, repository: Path, folder: Path) -> str:
    script = folder / "script.py"  # as users write scripts: no `if __name__ == "__main__"`
    script.write_text(snippet)
    environment = {"PYTHONPATH": str(repository)}
    done = subprocess.run([sys.executable, str(script)], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_a_shelf_answers_with_each_adapter(readme: str, repository: Path, tmp_path: Path) -> None:
    _, snippet = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    answers = json.loads(printed(snippet, repository, tmp_path))
    assert len(answers) == len(set(answers)) == 4


@pytest.mark.slow
def test_methods_are_trained_and_merged(
    readme_commands: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = ["--runs", str(tmp_path / "runs"), "--json"]
    (sweep,) = [words for words in readme_commands if words[0] == "sweep" and "--method" in words]
    assert main([*sweep, "--steps", "8", *runs]) == 0
    methods = [run["spec"]["tuning"]["method"] for run in json.loads(capsys.readouterr().out)["runs"]]
    assert sorted(methods) == ["bitfit", "bitfit", "dora", "dora", "lora", "lora"]
    (train,) = [words for words in readme_commands if words[0] == "train" and "qlora" in words]
    assert main([*train, "--steps", "8", *runs]) == 0
    run_id = json.loads(capsys.readouterr().out)["run_id"]
    (merge,) = [words for words in readme_commands if words[0] == "merge"]
    filled = " ".join(merge).replace("<run id>", run_id).replace("--out merged", f"--out {tmp_path / 'merged'}")
    assert main([*filled.split(), *runs]) == 0
    assert json.loads(capsys.readouterr().out)["unquantized"]["difference"] > 0


@pytest.mark.slow
def test_python_snippet_runs(readme: str, repository: Path, tmp_path: Path) -> None:
    snippet, _ = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    trainable, peak_bytes, stable_rank, phi = map(float, printed(snippet, repository, tmp_path).split())
    assert trainable == 9_175_040
    assert peak_bytes == pytest.approx(22.293e9, rel=0.06)  # measured by others on an L40S
    assert stable_rank == pytest.approx(1)  # the first run has r = 1
    assert 0 <= phi <= 1


def test_pictures_and_paths_named_are_there(readme: str, repository: Path) -> None:
    for path in re.findall(r"!\[.*?\]\((.*?)\)", readme):
        assert (repository / path).stat().st_size > 10_000
    for path in re.findall(r"`((?:notebooks|data|tests|lora_lab)/[\w./]*)`", readme):
        assert (repository / path).exists(), path


def test_base_accuracies_told_are_those_measured(readme: str, repository: Path) -> None:
    told = json.loads((repository / "data" / "digits-base" / "training.json").read_text())["accuracy_upright"]
    assert f"{100 * told:.2f} % of 497" in readme
    for name, sentence in (
        ("digits", "the frozen base reads {:.1f} %"),
        ("digits:inverted", "inverted ({:.1f} %)"),
        ("digits:noised", "noised ({:.1f} %)"),
    ):
        bench = ll.find_bench(name)
        held_out = bench.splits()[1:]
        right = sum(ll.evaluate(bench.build(), split).value * len(split) for split in held_out)
        accuracy = right / sum(map(len, held_out))
        assert sentence.format(100 * accuracy) in readme
