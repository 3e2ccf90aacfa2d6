"""Snapshots of ΔW come back as they were written, whole or not at all."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lora_lab.adapters import drop_snapshots_after, read_snapshots, write_snapshot
from lora_lab.errors import AdapterError
from lora_lab.lowrank import LowRank


def drawn(step: int) -> dict[str, LowRank]:
    generator = torch.Generator().manual_seed(step)
    stack = torch.randn(6, 10, generator=generator)  # two experts share its memory, as PEFT keeps them
    b = torch.randn(8, 6, generator=generator)
    return {
        "h.0.q": LowRank(torch.randn(5, 2, generator=generator), torch.randn(2, 7, generator=generator), 0.1),
        "experts[0]": LowRank(b[:, 0::2], stack[:3], 2.0),
        "experts[1]": LowRank(b[:, 1::2], stack[3:], 2.0),
    }


def steps_in(folder: Path) -> list[int]:
    return [step for step, _ in read_snapshots(folder)]


def test_factors_and_scalings_come_back_to_the_bit_in_the_order_of_steps(tmp_path: Path) -> None:
    for step in (20, 3, 1_000_000):
        write_snapshot(tmp_path / "snapshots", drawn(step), step=step)
    found = read_snapshots(tmp_path / "snapshots")
    assert [step for step, _ in found] == [3, 20, 1_000_000]
    for step, modules in found:
        assert list(modules) == list(drawn(step))
        for name, delta in drawn(step).items():
            assert torch.equal(modules[name].lora_a, delta.lora_a)
            assert torch.equal(modules[name].lora_b, delta.lora_b)
            assert modules[name].scaling == delta.scaling


def test_a_file_is_as_small_as_its_factors(tmp_path: Path) -> None:
    write_snapshot(tmp_path / "snapshots", drawn(40), step=40)
    (path,) = (tmp_path / "snapshots").iterdir()
    assert path.name == "step-000040.safetensors"
    numbers = sum(delta.lora_a.numel() + delta.lora_b.numel() for delta in drawn(40).values())
    assert sum(tensor.numel() for tensor in load_file(path).values()) == numbers
    assert path.stat().st_size < 4 * numbers + 1000


def test_where_nothing_was_kept_there_is_nothing(tmp_path: Path) -> None:
    assert read_snapshots(tmp_path / "snapshots") == ()
    drop_snapshots_after(tmp_path / "snapshots", 3)
    assert not (tmp_path / "snapshots").exists()


def test_what_is_later_than_the_adapter_goes_and_what_is_half_written_too(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        write_snapshot(tmp_path, drawn(step), step=step)
    (tmp_path / "step-000015.safetensors.new").write_bytes(b"half")
    assert steps_in(tmp_path) == [10, 20, 30]
    drop_snapshots_after(tmp_path, 20)
    assert steps_in(tmp_path) == [10, 20]
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("content", [b"", b"\x08\0\0\0\0\0\0\0{}      ", b"no safetensors"], ids=["empty", "no metadata", "text"])
def test_a_file_that_is_no_snapshot_is_refused_in_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "step-000001.safetensors").write_bytes(content)
    with pytest.raises(AdapterError, match=r"step-000001\.safetensors must be a snapshot of an adapter\. It cannot be read: .*\.$"):
        read_snapshots(tmp_path)


def test_a_snapshot_that_lacks_a_factor_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    metadata = {"step": "1", "scaling": json.dumps({"q": 1.0})}
    save_file({"q lora_a": torch.ones(2, 3)}, tmp_path / "step-000001.safetensors", metadata=metadata)
    with pytest.raises(AdapterError, match="q lora_b"):
        read_snapshots(tmp_path)
