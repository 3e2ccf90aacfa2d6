"""How fast ΔW is looked at: one spectrum against the dense way, and a whole adapter of a large model against the clock."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil
import torch
from safetensors.torch import save_file

from lora_lab.adapters import load_adapter
from lora_lab.analysis import overlap, spectrum
from lora_lab.budget import find_model
from lora_lab.lowrank import LowRank
from lora_lab.perf.sweep_speed import require_rounds

MODEL, R = "Llama-3-8B", 64
_KIB = 1024 if sys.platform != "darwin" else 1
Notify = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class SpectrumSpeed:
    """The singular values of a ΔW of (d, d) and rank r, from its factors and from the dense matrix.

    Attributes:
        factors_s: the median over the rounds, factors in float32.
        dense_s: of `torch.linalg.svdvals`, the dense matrix there already.
        ratios: of each round.
        largest_difference: of the r values, relative to the largest.
    """

    d: int
    r: int
    factors_s: float
    dense_s: float
    ratios: tuple[float, ...]
    largest_difference: float

    @property
    def ratio(self) -> float:
        """How many times faster the factors are: the median over the rounds."""
        return median(self.ratios)


@dataclass(frozen=True, slots=True)
class AdapterSpeed:
    """An adapter of all linear layers of a model, from its file.

    Attributes:
        load_s: to read the file.
        spectra_s: from the open adapter to the spectrum of every matrix.
        peak_bytes: of resident memory, over what the process had before the file was read.
        phi_s: φ on the input and on the output side of every matrix, between two such adapters.
    """

    model: str
    r: int
    matrices: int
    file_bytes: int
    load_s: float
    spectra_s: float
    peak_bytes: int
    phi_s: float


def measure_spectrum(*, d: int = 4096, r: int = 16, rounds: int = 3) -> SpectrumSpeed:
    """One spectrum both ways, in turn; a round takes some ten seconds at d = 4096.

    Raises:
        SpecError: no round.
    """
    require_rounds(rounds)
    generator = torch.Generator().manual_seed(0)
    b, a = torch.randn(d, r, generator=generator), torch.randn(r, d, generator=generator) / d**0.5
    dense = b @ a
    LowRank(b, a, 1.0).singular_values  # noqa: B018 (what is loaded the first time)
    fast, slow = [], []
    for _ in range(rounds):
        own = []
        for _ in range(20):
            began_s = time.perf_counter()
            values = LowRank(b, a, 1.0).singular_values
            own.append(time.perf_counter() - began_s)
        fast.append(median(own))
        began_s = time.perf_counter()
        reference = torch.linalg.svdvals(dense)
        slow.append(time.perf_counter() - began_s)
    difference = float((values - reference[:r].double()).abs().max() / values[0])
    ratios = tuple(theirs / ours for ours, theirs in zip(fast, slow, strict=True))
    return SpectrumSpeed(d, r, median(fast), median(slow), ratios, difference)


def measure_adapter(*, notify: Notify = lambda _: None) -> AdapterSpeed:
    """Write two adapters of Llama-3-8B, r = 64 on every linear layer, in bf16; read and compare them in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        first, second = Path(folder) / "first", Path(folder) / "second"
        for seed, place in enumerate((first, second)):
            write_adapter(place, seed=seed)
        notify(f"two adapters of {MODEL} are written, {(first / 'adapter_model.safetensors').stat().st_size:,} bytes each")
        command = [sys.executable, "-m", "lora_lab.perf.geometry_speed", str(first), str(second)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return AdapterSpeed(**json.loads(done.stdout.splitlines()[-1]))


def write_adapter(folder: Path, *, seed: int, model: str = MODEL, r: int = R) -> None:
    """A PEFT folder as one of that model has it, its factors drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for matrix in find_model(model).geometry.matching("all-linear"):
        for side, shape in (("A", (r, matrix.d_in)), ("B", (matrix.d_out, r))):
            drawn = torch.randn(shape, generator=generator, dtype=torch.float32).mul_(0.02)
            tensors[f"base_model.model.{matrix.name}.lora_{side}.weight"] = drawn.to(torch.bfloat16)
    folder.mkdir(parents=True)
    config = {"peft_type": "LORA", "r": r, "lora_alpha": 2 * r, "target_modules": "all-linear"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "adapter_model.safetensors")


def _measure_files(first: Path, second: Path) -> AdapterSpeed:
    before = psutil.Process().memory_info().rss
    began_s = time.perf_counter()
    adapter = load_adapter(first)
    load_s = time.perf_counter() - began_s
    began_s = time.perf_counter()
    spectra = spectrum(adapter)
    spectra_s, peak = time.perf_counter() - began_s, _peak_bytes() - before
    other = load_adapter(second)
    began_s = time.perf_counter()
    for side in ("in", "out"):
        overlap(adapter, other, side=side)
    phi_s = time.perf_counter() - began_s
    size = (first / "adapter_model.safetensors").stat().st_size
    return AdapterSpeed(MODEL, R, len(spectra), size, load_s, spectra_s, peak, phi_s)


def _peak_bytes() -> int:
    import resource  # noqa: PLC0415 (not there on every platform)

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB


if __name__ == "__main__":
    from dataclasses import asdict

    print(json.dumps(asdict(_measure_files(Path(sys.argv[1]), Path(sys.argv[2])))))
