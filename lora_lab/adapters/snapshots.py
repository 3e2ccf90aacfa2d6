"""ΔW on the way: the factors at some steps, a small file each, in a folder beside the adapter that the run ends with.

snapshots/step-000040.safetensors    `<matrix> lora_a` (r, d_in) and `<matrix> lora_b` (d_out, r), scalings in the metadata
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lora_lab.errors import AdapterError
from lora_lab.lowrank import LowRank

SNAPSHOTS = "snapshots"  # the folder within a run's
_BEGIN, _END = "step-", ".safetensors"
_A, _B = " lora_a", " lora_b"
Snapshot = tuple[int, Mapping[str, LowRank]]


def write_snapshot(folder: Path, modules: Mapping[str, LowRank], *, step: int) -> None:
    """Keep every ΔW as it is after `step`; a reader sees a whole file or none."""
    folder.mkdir(exist_ok=True)
    tensors = {f"{name}{_A}": _own(delta.lora_a) for name, delta in modules.items()}
    tensors |= {f"{name}{_B}": _own(delta.lora_b) for name, delta in modules.items()}
    scalings = json.dumps({name: delta.scaling for name, delta in modules.items()})
    path = folder / f"{_BEGIN}{step:06d}{_END}"
    fresh = path.with_name(f"{path.name}.new")
    save_file(tensors, fresh, metadata={"step": str(step), "scaling": scalings})
    os.replace(fresh, path)


def _own(factor: Tensor) -> Tensor:
    return factor.detach().cpu().clone(memory_format=torch.contiguous_format)


def read_snapshots(folder: Path) -> tuple[Snapshot, ...]:
    """(step, ΔW by matrix) of every snapshot in the folder, the earliest first; none where there is no folder.

    Raises:
        AdapterError: one cannot be read.
    """
    return tuple((step, _read(path)) for step, path in snapshot_files(folder))


def drop_snapshots_after(folder: Path, step: int) -> None:
    """Remove what is later than the adapter that was kept, and what a killed process had half written."""
    kept = {path for at, path in snapshot_files(folder) if at <= step}
    for path in folder.iterdir() if folder.is_dir() else ():
        if path not in kept:
            path.unlink()


def snapshot_files(folder: Path) -> Iterator[tuple[int, Path]]:
    """(step, path) of every snapshot in the folder, the earliest first."""
    steps = {path: path.name.removeprefix(_BEGIN).removesuffix(_END) for path in folder.glob(f"{_BEGIN}*{_END}")}
    yield from sorted((int(step), path) for path, step in steps.items() if step.isdecimal())


def _read(path: Path) -> dict[str, LowRank]:
    try:
        with safe_open(path, framework="pt") as file:
            scalings: dict[str, float] = json.loads(file.metadata()["scaling"])
            return {
                name: LowRank(file.get_tensor(f"{name}{_B}"), file.get_tensor(f"{name}{_A}"), scaling)
                for name, scaling in scalings.items()
            }
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as err:
        raise AdapterError(f"{path} must be a snapshot of an adapter. It cannot be read: {err}.") from None
