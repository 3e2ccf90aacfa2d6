"""`perf`: the project's own speed, each figure a ratio against what somebody would do otherwise, in one run."""

import argparse
from typing import TYPE_CHECKING, Any

from lora_lab.cli.flags import command, names, number, optional, print_json, say
from lora_lab.errors import SpecError, out_of_range
from lora_lab.units import file_size, seconds, short_time

if TYPE_CHECKING:
    from lora_lab.perf.geometry_speed import AdapterSpeed, SpectrumSpeed
    from lora_lab.perf.sweep_speed import SweepSpeed

_SWEEPS, _GEOMETRY = ("digits", "reviews"), ("spectrum", "adapter")

# The core is imported inside each command: `--help` and the other commands wait for no torch.
# ruff: noqa: PLC0415


def add(commands: Any) -> None:
    """Put `perf` on the parser."""
    perf = command(commands, "perf", _perf, "time sweeps against a plain loop over PEFT, and ΔW's factors against dense matrices")
    perf.add_argument("--cases", default=",".join((*_SWEEPS, *_GEOMETRY)), help=", ".join((*_SWEEPS, *_GEOMETRY)))
    perf.add_argument("--rounds", default="3", help="how often each way is timed")
    perf.add_argument("--count", help="runs of a sweep; 16 on the digits, 8 on the reviews")
    perf.add_argument("--batch", help="batch size; 16 on the digits, 8 on the reviews")
    perf.add_argument("--steps", help="of a run; the bench's by default")


def _perf(arguments: argparse.Namespace) -> int:
    cases, rounds = names(arguments.cases), number("rounds", arguments.rounds, int)
    for name in cases:
        if name not in (*_SWEEPS, *_GEOMETRY):
            raise SpecError(out_of_range("case", "perf", f"one of {', '.join((*_SWEEPS, *_GEOMETRY))}", name))
    sweeps = [_sweep(name, arguments, rounds) for name in cases if name in _SWEEPS]
    spectrum, adapter = _spectrum(rounds) if "spectrum" in cases else None, _adapter() if "adapter" in cases else None
    if arguments.json:
        print_json(_document(sweeps, spectrum, adapter))
    else:
        _print_sweeps(sweeps)
        _print_geometry(spectrum, adapter)
    return 0


def _sweep(name: str, arguments: argparse.Namespace, rounds: int) -> "SweepSpeed":
    from lora_lab.perf.sweep_speed import case_of, measure_sweep

    wish = {"runs": optional("count", arguments.count, int), "batch_size": optional("batch", arguments.batch, int)}
    return measure_sweep(case_of(name, **wish, steps=optional("steps", arguments.steps, int)), rounds=rounds, notify=say)


def _spectrum(rounds: int) -> "SpectrumSpeed":
    from lora_lab.perf.geometry_speed import measure_spectrum

    return measure_spectrum(rounds=rounds)


def _adapter() -> "AdapterSpeed":
    from lora_lab.perf.geometry_speed import measure_adapter

    return measure_adapter(notify=say)


def _document(sweeps: "list[SweepSpeed]", spectrum: "SpectrumSpeed | None", adapter: "AdapterSpeed | None") -> dict[str, Any]:
    from dataclasses import asdict

    found: dict[str, Any] = {"sweeps": [{**asdict(speed), "ratio": speed.ratio} for speed in sweeps]}
    found |= {"spectrum": {**asdict(spectrum), "ratio": spectrum.ratio}} if spectrum else {}
    return found | ({"adapter": asdict(adapter)} if adapter else {})


def _print_sweeps(found: "list[SweepSpeed]") -> None:
    for speed in found:
        loops = ", ".join(f"{seconds(spent_s)} on {threads} threads" for threads, spent_s in speed.loop_s.items())
        spread = f"{speed.lowest:.2f} to {speed.highest:.2f} over {len(speed.ratios)} rounds"
        print(f"{speed.name}, {speed.steps} steps: × {speed.ratio:.2f} ({spread})")
        print(f"  a plain loop over PEFT takes {loops}; the sweep {seconds(speed.sweep_s)}")
        print(f"  the two end with losses that differ by at most {speed.largest_loss_difference:.1e} of the loss")


def _print_geometry(spectrum: "SpectrumSpeed | None", adapter: "AdapterSpeed | None") -> None:
    if spectrum:
        times = f"{short_time(spectrum.factors_s)} from the factors, {short_time(spectrum.dense_s)} by torch.linalg.svdvals"
        print(f"spectrum of {spectrum.d}×{spectrum.d}, r = {spectrum.r}: × {spectrum.ratio:,.0f}; {times}")
        print(f"  the singular values differ by at most {spectrum.largest_difference:.1e} of the largest")
    if adapter:
        what = f"{adapter.model}, r = {adapter.r}, {adapter.matrices} matrices, {file_size(adapter.file_bytes)}"
        print(f"{what}: read in {short_time(adapter.load_s)}, spectra in {short_time(adapter.spectra_s)}")
        print(
            f"  {file_size(adapter.peak_bytes)} of memory at the peak; φ on both sides with another in {short_time(adapter.phi_s)}"
        )
