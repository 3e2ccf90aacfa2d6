"""Switching: another adapter against another model, in seconds and in bytes."""

from pathlib import Path
from types import SimpleNamespace

import pytest

import lora_lab as ll
from lora_lab.analysis.timings import Switching
from lora_lab.budget.files import adapter_file_bytes
from lora_lab.errors import SpecError
from lora_lab.inference import Subject, measure_switching
from lora_lab.inference.switching import weights_bytes


@pytest.fixture(scope="module")
def digits() -> Switching:
    return measure_switching("digits", r=4, repeats=8)


def test_bytes_are_those_of_the_files(digits: Switching, repository: Path) -> None:
    assert digits.model_bytes == (repository / "data" / "digits-base" / "model.safetensors").stat().st_size
    assert digits.adapter_bytes == adapter_file_bytes(ll.find_bench("digits").geometry(), ll.MethodSpec(r=4), ll.StepSpec())
    assert {way.name: way.read_bytes for way in digits.ways} == {
        "resident": 0,
        "adapter file": digits.adapter_bytes,
        "model file": digits.model_bytes,
    }


def test_shards_are_added_up(tmp_path: Path) -> None:
    for name, size in (("model-1.safetensors", 5), ("model-2.safetensors", 7), ("config.json", 100), ("old.bin", 3)):
        (tmp_path / name).write_bytes(b"0" * size)
    assert weights_bytes(tmp_path) == 12


def test_the_papers_footnote_with_these_files(digits: Switching) -> None:
    assert digits.tasks == 100
    assert digits.as_models_bytes == 100 * digits.model_bytes
    assert digits.as_adapters_bytes == digits.model_bytes + 100 * digits.adapter_bytes


def test_a_change_takes_no_less_than_the_answer_alone_and_from_a_file_more_than_from_memory(digits: Switching) -> None:
    by_name = {way.name: way.seconds for way in digits.ways}
    assert all(digits.answer.least < seconds.least for seconds in by_name.values())
    assert by_name["resident"].least < min(by_name["adapter file"].least, by_name["model file"].least)
    assert all(seconds.rounds == 8 for seconds in by_name.values())


def test_a_language_model_switches_too(tiny: SimpleNamespace, tmp_path: Path) -> None:
    tiny.base("llama").save_pretrained(tmp_path)
    found = measure_switching(str(tmp_path), r=2, repeats=1)
    assert found.model_bytes == (tmp_path / "model.safetensors").stat().st_size
    assert found.adapter == "LoRA of r = 2 on q and v"


def test_a_base_that_lies_nowhere_cannot_be_loaded(tiny: SimpleNamespace) -> None:
    with pytest.raises(SpecError, match="must be a base that lies in a folder"):
        measure_switching(Subject("tiny", lambda: tiny.base("llama"), 1))
