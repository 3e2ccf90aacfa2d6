"""What visitors share: nothing that one asks for is taken from under another."""

import gc
from pathlib import Path

from lora_lab.sweeps import RunStore
from lora_lab.ui.lab import Lab
from lora_lab.ui.page import build


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
