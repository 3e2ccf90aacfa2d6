"""The clock for spectra stands beside a check that both ways give the same."""

import json
from pathlib import Path

import pytest

from lora_lab.adapters import load_adapter
from lora_lab.budget import find_model
from lora_lab.errors import SpecError
from lora_lab.perf import geometry_speed
from lora_lab.perf.geometry_speed import measure_adapter, measure_spectrum, write_adapter


@pytest.mark.timed
def test_both_ways_give_the_same_values_and_each_round_is_a_ratio() -> None:
    speed = measure_spectrum(d=256, r=4, rounds=2)
    assert speed.largest_difference < 1e-5
    assert len(speed.ratios) == 2
    assert speed.ratio > 1


def test_the_adapter_written_is_one_of_every_linear_layer_in_bf16(tmp_path: Path) -> None:
    write_adapter(tmp_path / "a", seed=0, model="SmolLM2-135M", r=2)
    adapter = load_adapter(tmp_path / "a")
    wanted = find_model("SmolLM2-135M").geometry.matching("all-linear")
    assert {name: delta.shape for name, delta in adapter.items()} == {m.name: (m.d_out, m.d_in) for m in wanted}
    params = sum(2 * (m.d_out + m.d_in) for m in wanted)
    size = (tmp_path / "a" / "adapter_model.safetensors").stat().st_size
    assert 2 * params < size < 2 * params * 1.2  # two bytes each, and the names
    assert json.loads((tmp_path / "a" / "adapter_config.json").read_text())["peft_type"] == "LORA"


def test_without_a_round_there_is_no_ratio() -> None:
    with pytest.raises(SpecError, match=r"rounds .* at least 1\. Got 0"):
        measure_spectrum(d=8, r=1, rounds=0)


@pytest.mark.slow
def test_the_adapter_is_measured_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def small(folder: Path, *, seed: int) -> None:
        write_adapter(folder, seed=seed, model="SmolLM2-135M", r=2)

    monkeypatch.setattr(geometry_speed, "write_adapter", small)
    speed = measure_adapter()
    assert speed.matrices == len(find_model("SmolLM2-135M").geometry.matching("all-linear"))
    assert speed.peak_bytes > 0
    assert 0 < speed.file_bytes
    assert min(speed.load_s, speed.spectra_s, speed.phi_s) > 0
