"""docs/clusters.md tells what is: its scripts run, its commands are commands, its estimate follows from the figures measured."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from lora_lab.cli import main

TWO_RANKS = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


@pytest.fixture(scope="module")
def doc(repository: Path) -> str:
    return (repository / "docs" / "clusters.md").read_text()


@pytest.fixture(scope="module")
def commands(doc: str) -> list[list[str]]:
    blocks = re.findall(r"```sh\n(.*?)```", doc, re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


def the(commands: list[list[str]], *words: str) -> list[str]:
    """The arguments of the only command that begins so."""
    (found,) = [command[len(words) :] for command in commands if command[: len(words)] == list(words)]
    return found


# Commands and scripts


def test_ray_and_accelerate_know_what_they_are_told(commands: list[list[str]]) -> None:
    from accelerate.commands.launch import launch_command_parser
    from ray.scripts.scripts import cli

    starts = [command[2:] for command in commands if command[:2] == ["ray", "start"]]
    head, other = [cli.commands["start"].make_context("start", list(words)).params for words in starts]
    assert (head["head"], other["head"]) == (True, False)
    assert other["address"].endswith(f":{head['port']}")
    launch = launch_command_parser().parse_args(the(commands, "accelerate", "launch"))
    assert launch.use_fsdp
    assert launch.training_script == "fsdp.py"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "launcher"), [("spread.py", []), ("fsdp.py", TWO_RANKS)])
def test_scripts_leave_an_adapter_that_opens_here(
    doc: str,
    commands: list[list[str]],
    name: str,
    launcher: list[str],
    tiny_llama: SimpleNamespace,
    repository: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (script,) = [text for text in re.findall(r"```python\n(.*?)```", doc, re.DOTALL) if text.startswith(f"# {name}")]
    (tmp_path / name).write_text(script.replace("BASE", tiny_llama.base))
    (tmp_path / "texts.txt").write_text("name word1 says word2 word3\nname word4 says word5\n")
    environment = {**os.environ, "PYTHONPATH": str(repository), "ACCELERATE_USE_CPU": "true"}
    words = [sys.executable, *launcher, name]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    inspect = ["inspect", *the(commands, "python", "-m", "lora_lab", "inspect")]
    assert main([*(str(tmp_path / word) if word == "adapter" else word for word in inspect), "--json"]) == 0
    modules = json.loads(capsys.readouterr().out)["modules"]
    assert {module["name"].rpartition(".")[2] for module in modules} == {"q_proj", "v_proj"}
    assert all(bool(module["frobenius"]) == (name == "fsdp.py") for module in modules), "only that one has steps in it"


# The estimate


UNITS = {"ms": 1e-3, "s": 1.0, "bytes": 1.0, "GB": 1e9, "": 1.0}
ASSUMED = {10_000, 1_250, 251, 100, 8, 4}  # runs, tasks of 8, events a run, GPUs, runs of a group, evaluations


def rows(doc: str, cells: int) -> list[tuple[str, ...]]:
    """The rows of the tables that have so many columns, without their heads."""
    found = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in doc.splitlines() if line.startswith("|")]
    return [row for row in found if len(row) == cells and row[1] not in ("", "reckoned", "---")]


def numbers(text: str) -> list[float]:
    return [float(number.replace(",", "")) for number in re.findall(r"\d[\d,]*(?:\.\d+)?", text)]


def value(text: str) -> float:
    """What such an expression comes to, in seconds or bytes."""
    plain = re.sub(r"([\d,.]+) ?(ms|s|GB|bytes)?", lambda found: f"{numbers(found[1])[0] * UNITS[found[2] or '']!r}", text)
    return float(eval(plain.replace("×", "*").removesuffix(" bytes"), {"__builtins__": {}}))


def test_the_estimate_is_reckoned_right_and_from_figures_measured(doc: str) -> None:
    measured = {number for _, told in rows(doc, 2) for number in numbers(told)}
    estimate = rows(doc, 3)
    assert len(estimate) == 8
    for what, reckoned, total in estimate:
        assert set(numbers(reckoned)) <= measured | ASSUMED, what
        assert value(reckoned) == pytest.approx(value(total), rel=0.03), what


def test_three_quarters_of_a_run_are_its_log(doc: str) -> None:
    (told,) = [told for what, told in rows(doc, 2) if what.startswith("bytes of a run in the store")]
    log, *others = numbers(told)
    assert log / (log + sum(others)) == pytest.approx(3 / 4, abs=0.03)
