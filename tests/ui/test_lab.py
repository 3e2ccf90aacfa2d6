"""What visitors share: nothing that one asks for is taken from under another."""

import gc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lora_lab.sweeps import RunStore
from lora_lab.ui.lab import Lab
from lora_lab.ui.page import build


class Dropping(dict[Any, Any]):
    """Keeps nothing: as where other visitors' threads drop each value as soon as it is stored."""

    def __setitem__(self, key: Any, value: Any) -> None:
        pass


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(RunStore(tmp_path / "runs"), _known=Dropping(), _adapters=Dropping())


def test_a_result_that_is_dropped_at_once_is_still_given(lab: Lab) -> None:
    assert lab.once(("two",), lambda: 2) == 2


def test_a_result_may_be_none_and_is_computed_once(tmp_path: Path) -> None:
    lab, asked = Lab(RunStore(tmp_path / "runs")), []
    assert [lab.once(("none",), lambda: asked.append(1)) for _ in range(2)] == [None, None]
    assert asked == [1]


def test_an_adapter_that_is_dropped_at_once_is_still_given(lab: Lab) -> None:
    run: Any = SimpleNamespace(run_id="1", metrics={"status": "finished", "step": 1}, adapter=lambda: "its ΔW")
    assert lab.adapter(run) == "its ΔW"


def test_files_to_take_along_stay_apart_and_go_with_the_app(tmp_path: Path) -> None:
    lab = Lab(RunStore(tmp_path / "runs"))
    made = [lab.exports.path("runs.csv") for _ in range(70)]
    made[-1].write_text("run_id")
    assert len(set(made)) == 70
    assert [path.parent.exists() for path in made] == [False] * 6 + [True] * 64
    del lab
    gc.collect()
    assert not any(path.parent.exists() for path in made)


def test_in_public_the_copies_that_were_handed_out_are_deleted_after_an_hour(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "runs")
    assert build(Lab(store, public=True)).delete_cache == (3600, 3600)
    assert build(Lab(store)).delete_cache is None  # uploaded data are among them
