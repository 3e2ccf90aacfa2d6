"""The house stands as DESIGN says: layers, types, style, light imports, one version of every fact."""

import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import lora_lab

HEAVY = ("torch", "gradio", "transformers", "peft")


def run(repository: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]],
    ids=["ruff check", "ruff format", "mypy"],
)
def test_tools_find_nothing(repository: Path, command: list[str]) -> None:
    done = run(repository, sys.executable, "-m", *command)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


def test_imports_go_down_only(repository: Path) -> None:
    done = run(repository, sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


def test_every_room_has_its_place_in_the_layers(repository: Path) -> None:
    contracts = tomllib.loads((repository / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(one["layers"] for one in contracts if one["type"] == "layers")
    placed = {name.strip() for layer in layers for name in layer.split("|")}
    rooms = {
        f"lora_lab.{path.stem}"
        for path in (repository / "lora_lab").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    assert rooms - {"lora_lab.__init__"} == placed


@pytest.mark.parametrize("module", ["lora_lab", "lora_lab.cli", "lora_lab.budget", "lora_lab.plots", "lora_lab.widgets.budget"])
def test_import_loads_no_framework(repository: Path, module: str) -> None:
    code = f"import sys, {module}; print([name for name in {HEAVY} if name in sys.modules])"
    assert run(repository, sys.executable, "-c", code).stdout.strip() == "[]"


@pytest.mark.timed
def test_import_takes_under_300_ms(repository: Path) -> None:
    timed = "import time; t = time.perf_counter(); {}; print(time.perf_counter() - t)"
    taken_s = min(float(run(repository, sys.executable, "-c", timed.format("import lora_lab")).stdout) for _ in range(5))
    assert taken_s < 0.3


def test_every_public_name_is_documented() -> None:
    assert lora_lab.__all__ == sorted(lora_lab.__all__)
    for name in lora_lab.__all__:
        assert getattr(lora_lab, name).__doc__, name


def test_gradio_is_the_version_of_the_space(repository: Path) -> None:
    header = (repository / "README.md").read_text().split("---")[1]
    space = re.search(r'^sdk_version: "(.+)"$', header, re.MULTILINE)
    assert space is not None
    assert f"gradio=={space.group(1)}" in (repository / "requirements.txt").read_text().splitlines()


def test_requirements_are_pinned_but_torch(repository: Path) -> None:
    lines = (repository / "requirements.txt").read_text().split()
    assert [line for line in lines if "==" not in line] == ["torch>=2.9,<2.14"]


def test_every_extra_is_tested_in_the_version_that_it_names(repository: Path) -> None:
    extras = tomllib.loads((repository / "pyproject.toml").read_text())["tool"]["setuptools"]["dynamic"]["optional-dependencies"]
    files = {name: extra["file"] for name, extra in extras.items()}
    there = {path.stem.removeprefix("requirements-"): [path.name] for path in repository.glob("requirements-*.txt")}
    assert files == {**there, "test": ["tests/requirements.txt"]}
    tested = (repository / "tests" / "requirements.txt").read_text().split()
    for name in there:
        for line in (repository / f"requirements-{name}.txt").read_text().split():
            assert "==" in line
            assert line in tested


def test_packages_listed_are_the_packages_there(repository: Path) -> None:
    listed = tomllib.loads((repository / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    there = {".".join(path.parent.relative_to(repository).parts) for path in (repository / "lora_lab").rglob("__init__.py")}
    assert set(listed) == there | {"lora_lab.data"}


@pytest.mark.slow
def test_wheel_carries_data_and_styles(repository: Path, tmp_path: Path) -> None:
    copy = tmp_path / "source"
    tracked = run(repository, "git", "ls-files", "-co", "--exclude-standard").stdout.split("\n")
    for name in filter(None, tracked):
        if (repository / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((repository / name).read_bytes())
    done = run(copy, sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), ".")
    assert done.returncode == 0, done.stderr[-2000:]
    wheel = next(tmp_path.glob("*.whl"))
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"lora_lab/data/digits-base/model.safetensors", "lora_lab/ui/style.css", "lora_lab/widgets/frame.js"} <= names
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = "import lora_lab as ll; print(ll.__file__, ll.find_bench('digits').geometry().total_params)"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=elsewhere,
        env={"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [str(tmp_path / "site" / "lora_lab" / "__init__.py"), "152650"]


def test_no_machine_path_or_foreign_host_is_written_down(repository: Path) -> None:
    home = str(Path.home())
    for name in run(repository, "git", "ls-files").stdout.split():
        path = repository / name
        if path.suffix in (".py", ".md", ".toml", ".txt", ".json", ".css", ".yaml", ".ipynb") and name != "tests/test_house.py":
            text = path.read_text()
            assert home not in text, name
            assert "/tmp/" not in text, name


def test_base_files_name_no_folder(repository: Path) -> None:
    config = json.loads((repository / "data" / "digits-base" / "config.json").read_text())
    assert not any(isinstance(value, str) and value.startswith("/") for value in config.values())
