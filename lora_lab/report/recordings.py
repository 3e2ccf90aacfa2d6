"""Reproductions that were run once and are kept: opened at once, by the page and in notebooks, with where they come from.

data/recorded/reviews/
  provenance.json         command, versions, date, device, wall time
  evidence.json.gz        scores, overlaps and amplifications: all that the report is of
  runs.json.gz            every run: spec, metrics, the spectrum of every matrix
  directions.safetensors  every run: the leading eight singular directions of every matrix on both sides, in half precision
  adapters/               PEFT folders by run id: of every run of the digits, of the named runs of the others
"""

import gzip
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from lora_lab.adapters import load_adapter
from lora_lab.assets import DATA_DIR
from lora_lab.benches import find_bench
from lora_lab.errors import DataError, out_of_range
from lora_lab.lowrank import LowRank
from lora_lab.report.evidence_json import evidence_of_json, evidence_to_json
from lora_lab.report.provenance import Provenance
from lora_lab.report.records import Evidence
from lora_lab.specs import RunSpec
from lora_lab.sweeps.run import Run

RECORDED_DIR = DATA_DIR / "recorded"
DIRECTIONS = 8
_SIGNIFICANT = 6


@dataclass(frozen=True)
class RecordedRun:
    """One run as far as it is kept: its spectra whole, its directions to the eighth."""

    run_id: str
    spec: RunSpec
    metrics: Mapping[str, Any]
    spectra: Mapping[str, tuple[float, ...]]
    folder: Path

    @property
    def is_whole(self) -> bool:
        """Whether its adapter is kept, and not only what leads in it."""
        return (self.folder / "adapters" / self.run_id).is_dir()

    def adapter(self) -> Mapping[str, LowRank]:
        """ΔW of every matrix; where the adapter is not kept cut to its eight leading directions, from vectors in half precision."""
        if self.is_whole:
            return load_adapter(self.folder / "adapters" / self.run_id)
        found = {}
        with safe_open(self.folder / "directions.safetensors", "pt") as kept:
            for name, values in self.spectra.items():
                u, v = (kept.get_tensor(f"{self.run_id} {name} {side}").double() for side in "uv")
                k = u.shape[1]
                if k:
                    found[name] = LowRank(u * torch.tensor(values[:k], dtype=torch.float64), v.mT, 1.0)
        return found


@dataclass(frozen=True)
class Recorded:
    """A recorded reproduction."""

    folder: Path

    @cached_property
    def evidence(self) -> Evidence:
        """What the report is of."""
        return evidence_of_json(_read(self.folder / "evidence.json.gz"))

    @cached_property
    def source(self) -> Provenance:
        """Where it comes from."""
        return Provenance(**json.loads((self.folder / "provenance.json").read_text(encoding="utf-8")))

    @cached_property
    def runs(self) -> tuple[RecordedRun, ...]:
        """Every run that it rests on."""
        return tuple(
            RecordedRun(
                run["run_id"],
                RunSpec.from_json(run["spec"]),
                run["metrics"],
                {name: tuple(values) for name, values in run["spectra"].items()},
                self.folder,
            )
            for run in _read(self.folder / "runs.json.gz")
        )


def recorded_names() -> tuple[str, ...]:
    """The benches that have a recorded reproduction."""
    return tuple(sorted(path.parent.name for path in RECORDED_DIR.glob("*/provenance.json")))


def recorded(bench: str) -> Recorded:
    """The recorded reproduction of a bench.

    Raises:
        DataError: there is none.
    """
    if bench not in recorded_names():
        raise DataError(out_of_range("bench", "recorded", f"one of {', '.join(recorded_names())}", bench))
    return Recorded(RECORDED_DIR / bench)


def record(folder: Path, evidence: Evidence, source: Provenance, runs: Iterable[Run], *, whole: Iterable[str] = ()) -> None:
    """Keep a reproduction in a folder, in place of what is there.

    Args:
        folder: where.
        evidence: of the report.
        source: where it comes from.
        runs: that it rests on.
        whole: ids of runs to be kept with their adapters.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "provenance.json").write_text(json.dumps(source.to_json(), indent=1) + "\n", encoding="utf-8")
    _write(folder / "evidence.json.gz", evidence_to_json(evidence))
    told: list[dict[str, Any]] = []
    kept_whole = set(whole)
    tensors: dict[str, Tensor] = {}
    for run in runs:
        adapter = run.adapter()
        spectra = {name: [_rounded(value) for value in delta.singular_values.tolist()] for name, delta in adapter.items()}
        told.append({"run_id": run.run_id, "spec": run.spec.to_json(), "metrics": run.metrics, "spectra": spectra})
        tensors |= {f"{run.run_id} {key}": tensor for key, tensor in _directions(adapter)}
        if run.run_id in kept_whole:
            _keep_adapter(run, folder / "adapters" / run.run_id)
    _write(folder / "runs.json.gz", told)
    save_file(tensors, folder / "directions.safetensors")


def _keep_adapter(run: Run, folder: Path) -> None:
    """The adapter's folder; a base without a Hub id is called by its bench, as its place here means nothing elsewhere."""
    shutil.copytree(run.adapter_dir, folder)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = find_bench(run.spec.bench).base_name or run.spec.bench
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _directions(adapter: Mapping[str, LowRank]) -> Iterator[tuple[str, Tensor]]:
    for name, delta in adapter.items():
        u, _, vh = delta.compact_svd()
        for side, vectors in (("u", u), ("v", vh.mT)):
            yield f"{name} {side}", vectors[:, :DIRECTIONS].to(torch.float16).contiguous()


def _rounded(value: float) -> float:
    return float(f"{value:.{_SIGNIFICANT}g}")


def _write(path: Path, content: Any) -> None:
    """Compressed without a date, so that the same content is the same bytes."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False).encode()
    path.write_bytes(gzip.compress(text, mtime=0))


def _read(path: Path) -> Any:
    return json.loads(gzip.decompress(path.read_bytes()))
