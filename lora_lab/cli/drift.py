"""`drift`: when ΔW found the directions that it ends with."""

import argparse
from typing import TYPE_CHECKING, Any

from lora_lab.cli.flags import command, number, print_json, runs_flag

if TYPE_CHECKING:
    from lora_lab.analysis.records import Drift, DriftPoint

# The core is imported inside each command: `--help` and the other commands wait for no torch.
# ruff: noqa: PLC0415


def add(commands: Any) -> None:
    """Put `drift` on the parser."""
    drift = command(commands, "drift", _drift, "φ of ΔW on the way with ΔW at the end, of a run trained with --snapshots")
    drift.add_argument("run", metavar="RUN", help="a run's id")
    drift.add_argument("--module", help="one matrix only")
    drift.add_argument("--side", default="in", choices=("in", "out"), help="input or output side")
    drift.add_argument("--k", default="4", help="how many leading directions")
    runs_flag(drift)


def _drift(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    from lora_lab.sweeps import RunStore

    run = RunStore(arguments.runs).get(arguments.run)
    found = run.drift(module=arguments.module, k=number("k", arguments.k, int), side=arguments.side)
    if arguments.json:
        print_json({"run_id": run.run_id, "modules": [asdict(one) for one in found]})
    else:
        _print(found)
    return 0


def _print(found: "tuple[Drift, ...]") -> None:
    from lora_lab.plots.drifts import drift_caption

    steps = [point.step for point in found[0].points]
    print(f"{'φ with the end, after step':40} {'k':>3} {' '.join(f'{step:>7}' for step in steps)} {'chance':>7}")
    for one in found:
        cells = " ".join(f"{_cell(point):>7}" for point in one.points)
        chance = one.points[-1].chance
        print(f"{one.name:40} {one.k:>3} {cells} {'' if chance is None else f'{chance:.3f}':>7}")
    print(drift_caption(found))


def _cell(point: "DriftPoint") -> str:
    return "" if point.phi is None else f"{point.phi:.3f}"
