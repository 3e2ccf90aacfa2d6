"""`inspect`, `compare` and `merge`: what is in an adapter."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from lora_lab.cli.flags import command, print_json
from lora_lab.metrics import METRICS

# The core is imported inside each command: `--help` and the other commands wait for no torch.
# ruff: noqa: PLC0415


def add(commands: Any) -> None:
    """Put `inspect`, `merge` and `compare` on the parser."""
    inspect = command(commands, "inspect", _inspect, "the spectrum of every ΔW of an adapter")
    inspect.add_argument("adapter", help="a PEFT folder, a file in one, a Hub id, or a run's id")
    inspect.add_argument("--runs", default=os.environ.get("LORA_LAB_RUNS", "runs"), help="where runs are kept")

    merge = command(commands, "merge", _merge, "what merging an adapter into its base costs, and the merged model")
    merge.add_argument("run", metavar="RUN", help="a run's id")
    merge.add_argument("--out", help="a folder for the merged model, whole, as transformers saves it")
    merge.add_argument("--runs", default=os.environ.get("LORA_LAB_RUNS", "runs"), help="where runs are kept")

    compare = command(commands, "compare", _compare, "φ between two runs or adapters")
    compare.add_argument("first", metavar="RUN1", help="a run's id, or an adapter as for inspect")
    compare.add_argument("second", metavar="RUN2")
    compare.add_argument("--of", default="delta", choices=("delta", "a"), help="singular vectors of ΔW, or of A")
    compare.add_argument("--side", default="in", choices=("in", "out"), help="input or output side")
    compare.add_argument("--module", help="one matrix only")
    compare.add_argument("--runs", default=os.environ.get("LORA_LAB_RUNS", "runs"), help="where runs are kept")


def _inspect(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    from lora_lab.analysis import spectrum

    adapter = _open(arguments.adapter, arguments.runs)
    spectra = spectrum(adapter)
    if arguments.json:
        modules = [{**asdict(one), "scaling_source": adapter.scaling_source} for one in spectra]
        print_json({"format": adapter.format, "modules": modules, "warnings": list(adapter.warnings)})
        return 0
    print(f"{'matrix':40} {'shape':>11} {'r':>4} {'‖ΔW‖':>9} {'stable':>7} {'effective':>10}")
    for one in spectra:
        shape, ranks = f"{one.shape[0]}×{one.shape[1]}", (_rank(one.stable_rank), _rank(one.effective_rank))
        print(f"{one.name:40} {shape:>11} {one.r:>4} {one.frobenius:>9.4g} {ranks[0]:>7} {ranks[1]:>10}")
    for warning in adapter.warnings:
        print(warning, file=sys.stderr)
    return 0


def _merge(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    from lora_lab.inference import export_merged, merge_report
    from lora_lab.sweeps import RunStore

    run = RunStore(arguments.runs).get(arguments.run)
    report = merge_report(run.spec, run.adapter_dir)
    if arguments.out:
        export_merged(run.spec, run.adapter_dir, Path(arguments.out))
    if arguments.json:
        print_json({"run_id": run.run_id, **asdict(report), "out": arguments.out})
        return 0
    metric = METRICS[report.metric]

    def shown(score: float | None) -> str:
        return "" if score is None else metric.text(score)

    print(f"{'adapter':28} {'logits moved by':>16} {metric.label:>9}   on {report.rows} test examples")
    print(f"{'beside the base, as trained':28} {'':>16} {shown(report.score):>9}")
    for way in (*report.ways, *([report.unquantized] if report.unquantized else [])):
        moved = "" if way.difference is None else f"{way.difference:.2e}"
        name = "on the unquantized base" if way.name == "unquantized" else f"merged, kept in {way.name}"
        print(f"{name:28} {moved:>16} {shown(way.score):>9}")
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    from lora_lab.analysis import overlap

    first, second = (_open(source, arguments.runs) for source in (arguments.first, arguments.second))
    found = overlap(first, second, of=arguments.of, side=arguments.side, module=arguments.module)
    if arguments.json:
        modules = [{"name": o.name, "phi": o.phi, "chance": o.chance, "dimension": o.dimension} for o in found]
        print_json({"of": arguments.of, "side": arguments.side, "modules": modules})
        return 0
    print(f"{'matrix':40} {'φ(1,1)':>8} {'chance':>8} {'φ(i,j)':>8} {'chance':>8}  at the largest i, j (~ tells nothing)")
    for one in found:
        if one.phi is None or one.chance is None:
            print(f"{one.name:40} no direction: one of the two is zero")
        else:
            corner = f"{one.phi[-1][-1]:>8.3f} {one.chance[-1][-1]:>8.3f}"
            mark = " ~" if one.has_cells_that_tell_nothing else ""
            print(f"{one.name:40} {one.phi[0][0]:>8.3f} {one.chance[0][0]:>8.3f} {corner}{mark}")
    return 0


def _open(source: str, runs: str) -> Any:
    """An adapter by its place, or by the id of a run in the store."""
    from lora_lab.adapters import load_adapter

    looks_like_id = len(source) <= 12 and all(c in "0123456789abcdef" for c in source)
    if looks_like_id and not Path(source).exists() and Path(runs).is_dir():
        from lora_lab.sweeps import RunStore

        return RunStore(runs).get(source).adapter()
    place = Path(source)
    return load_adapter(place / "adapter" if (place / "adapter" / "adapter_config.json").is_file() else source)


def _rank(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
