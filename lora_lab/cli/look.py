"""`inspect`, `compare` and `merge`: what is in an adapter."""

import argparse
import sys
from pathlib import Path
from typing import Any

from lora_lab.cli.flags import command, number, print_json, runs_flag
from lora_lab.metrics import METRICS

# The core is imported inside each command: `--help` and the other commands wait for no torch.
# ruff: noqa: PLC0415


def add(commands: Any) -> None:
    """Put `inspect`, `merge` and `compare` on the parser."""
    inspect = command(commands, "inspect", _inspect, "the spectrum of every ΔW of an adapter")
    inspect.add_argument("adapter", help="a PEFT folder, a file in one, a Hub id, or a run's id")
    inspect.add_argument("--base", help="a bench, a folder or a Hub id: also amplification and intruder dimensions")
    inspect.add_argument("--k", default="10", help="how many leading directions of W + ΔW may be intruders")
    inspect.add_argument("--threshold", default="0.5", help="below this |cos| with every direction of W one is")
    runs_flag(inspect)

    merge = command(commands, "merge", _merge, "what merging an adapter into its base costs, and the merged model")
    merge.add_argument("run", metavar="RUN", help="a run's id")
    merge.add_argument("--out", help="a folder for the merged model, whole, as transformers saves it")
    runs_flag(merge)

    compare = command(commands, "compare", _compare, "φ between two runs or adapters")
    compare.add_argument("first", metavar="RUN1", help="a run's id, or an adapter as for inspect")
    compare.add_argument("second", metavar="RUN2")
    compare.add_argument("--of", default="delta", choices=("delta", "a"), help="singular vectors of ΔW, or of A")
    compare.add_argument("--side", default="in", choices=("in", "out"), help="input or output side")
    compare.add_argument("--module", help="one matrix only")
    runs_flag(compare)


def _inspect(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    from lora_lab.analysis import spectrum
    from lora_lab.benches.base_weights import open_base

    base = open_base(arguments.base) if arguments.base else None
    adapter = _open(arguments.adapter, arguments.runs, base)
    spectra = spectrum(adapter)
    beside = _beside_base(adapter, base, arguments) if base is not None else [{} for _ in spectra]
    if arguments.json:
        told = zip(spectra, beside, strict=True)
        modules = [{**asdict(one), "scaling_source": adapter.scaling_source, **more} for one, more in told]
        print_json({"format": adapter.format, "modules": modules, "warnings": list(adapter.warnings)})
        return 0
    _print_inspected(spectra, beside)
    for warning in adapter.warnings:
        print(warning, file=sys.stderr)
    return 0


def _beside_base(adapter: Any, base: Any, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """What W adds to every matrix, one W in memory at a time."""
    from dataclasses import asdict

    from lora_lab.analysis import amplification, intruders

    k, threshold = number("k", arguments.k, int), number("threshold", arguments.threshold, float)
    pairs = zip(amplification(adapter, base), intruders(adapter, base, k=k, threshold=threshold), strict=True)
    return [{"amplification": asdict(one), "intruder_dimensions": asdict(new)} for one, new in pairs]


def _print_inspected(spectra: Any, beside: list[dict[str, Any]]) -> None:
    more = f" {'factor':>8} {'intruders':>10}" if any(beside) else ""
    print(f"{'matrix':40} {'shape':>11} {'r':>4} {'‖ΔW‖':>9} {'stable':>7} {'effective':>10}{more}")
    for one, extra in zip(spectra, beside, strict=True):
        shape, ranks = f"{one.shape[0]}×{one.shape[1]}", (_rank(one.stable_rank), _rank(one.effective_rank))
        told = f"{one.name:40} {shape:>11} {one.r:>4} {one.frobenius:>9.4g} {ranks[0]:>7} {ranks[1]:>10}"
        if extra:
            new = extra["intruder_dimensions"]
            of = f"{new['count']} of {new['k']}"
            told += f" {_rank(extra['amplification']['factor']):>8} {of:>10}"
        print(told)


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


def _open(source: str, runs: str, base: Any = None) -> Any:
    """An adapter by its place, or by the id of a run in the store, which knows its own base."""
    from lora_lab.sweeps.subjects import subject_of

    return subject_of(source, base=base, runs=runs).adapter


def _rank(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
