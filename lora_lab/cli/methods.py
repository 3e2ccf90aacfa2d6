"""`methods`: every method against every other, at several budgets and learning rates, over seeds."""

import argparse
import sys
from typing import TYPE_CHECKING, Any

from lora_lab.cli.flags import bench_flags, command, data_of, names, number, optional, prepare, print_json, runner_flags
from lora_lab.cli.train import report_progress
from lora_lab.specs import METHODS
from lora_lab.units import count, file_size, seconds

if TYPE_CHECKING:
    from lora_lab.analysis.method_records import Comparison, MethodRow, MethodTable
    from lora_lab.sweeps.method_bench import MethodBench, MethodBenchSpec

# The core is imported inside each command: `--help` and the other commands wait for no torch.
# ruff: noqa: PLC0415


def add(commands: Any) -> None:
    """Put `methods` on the parser."""
    methods = command(commands, "methods", _methods, "compare methods over budgets, learning rates and seeds")
    bench_flags(methods)
    methods.add_argument("--method", default="all", help=f"all that the base can take, or several of {', '.join(METHODS)}")
    methods.add_argument("--budgets", help="values of r, such as 2,8,32; by default three a method, and the base's layers")
    methods.add_argument("--lr-factors", default="0.3,1,3", help="learning rates tried, as multiples of each method's own")
    methods.add_argument("--alpha", default="16", help="lora_alpha, or a multiple of the rank such as 2r")
    methods.add_argument("--seeds", default="0,1,2")
    runner_flags(methods)
    methods.add_argument("--csv", help="write the table to this file")
    methods.add_argument("--peft-json", help="write a file a run in the schema of PEFT's method_comparison to this folder")


def _methods(arguments: argparse.Namespace) -> int:
    from lora_lab.sweeps.method_bench import bench_methods

    spec = _spec(arguments)
    prepare(arguments)
    bench = bench_methods(
        arguments.bench,
        spec,
        data=data_of(arguments),
        runs=arguments.runs,
        runner=arguments.runner,
        address=arguments.address,
        device=arguments.device,
        watch=report_progress,
    )
    comparison = bench.comparison
    for run_id, message in bench.failed.items():
        print(f"{run_id}: {message}", file=sys.stderr)
    _write_files(arguments, bench, comparison)
    if arguments.json:
        print_json(_document(bench, comparison))
    else:
        _print_table(bench, comparison)
    return 1 if bench.failed else 0


def _spec(arguments: argparse.Namespace) -> "MethodBenchSpec":
    from lora_lab.sweeps.method_bench import MethodBenchSpec

    return MethodBenchSpec(
        methods=None if arguments.method == "all" else names(arguments.method),
        budgets=arguments.budgets and tuple(number("budgets", text, int) for text in names(arguments.budgets)),
        lr_factors=tuple(number("lr-factors", text, float) for text in names(arguments.lr_factors)),
        seeds=tuple(number("seeds", text, int) for text in names(arguments.seeds)),
        steps=optional("steps", arguments.steps, int),
        batch_size=optional("batch", arguments.batch, int),
        lora_alpha=arguments.alpha,
        lora_dropout=number("dropout", arguments.dropout, float),
        num_virtual_tokens=number("virtual-tokens", arguments.virtual_tokens, int),
        quant=arguments.quant,
        optimizer=arguments.optimizer,
    )


def _write_files(arguments: argparse.Namespace, bench: "MethodBench", comparison: "Comparison") -> None:
    from pathlib import Path

    from lora_lab.sweeps.method_export import csv_of, peft_files, write_text

    if arguments.csv:
        write_text(arguments.csv, csv_of(bench.table, comparison))
    if arguments.peft_json:
        for name, text in peft_files(bench.runs).items():
            write_text(Path(arguments.peft_json) / name, text)


def _document(bench: "MethodBench", comparison: "Comparison") -> dict[str, Any]:
    from lora_lab.plots.method_captions import methods_caption

    table = bench.table
    return {
        "bench": table.bench,
        "metric": table.metric_name,
        "rows": [row.to_json() for row in table.rows],
        "order": [placed.to_json() for placed in comparison.order],
        "pairs": [pair.to_json() for pair in comparison.pairs],
        "lora_and_full": comparison.lora_and_full.to_json() if comparison.lora_and_full else None,
        "sentence": methods_caption(table, comparison),
        "refused": bench.refused,
        "failed": bench.failed,
        "runs": [run.run_id for run in bench.runs],
        "skipped": list(bench.skipped),
        "wall_s": bench.wall_s,
    }


def _print_table(bench: "MethodBench", comparison: "Comparison") -> None:
    from lora_lab.plots.method_captions import methods_caption, seeds_note

    heads = f"{'score':>18} {'trains':>8} {'head':>7} {'file':>8} {'s/step':>7} {'memory':>8} {'still can':>18} {'rate':>8}"
    print(f"{'place':>6}  {'method':30} {heads}")
    chosen = {placed.row.name for placed in comparison.order}
    for placed in comparison.order:
        _print_row(placed.text, placed.row, bench.table)
    print("other budgets")
    for row in bench.table.rows:
        if row.name not in chosen:
            _print_row("", row, bench.table)
    for what, why in bench.refused.items():
        print(f"left out: {what}: {why}", file=sys.stderr)
    print(methods_caption(bench.table, comparison))
    print(seeds_note(bench.table))
    print(f"{len(bench.runs)} runs, {len(bench.skipped)} of them in the store already, {seconds(bench.wall_s)}")


def _print_row(place: str, row: "MethodRow", table: "MethodTable") -> None:
    from lora_lab.plots.method_captions import budget_label, kept_text, memory_text, rate_text, score_text

    head = count(row.head_params) if row.head_params else ""
    size = file_size(row.file_bytes) if row.file_bytes is not None else ""
    step = f"{row.step_s:.4f}" if row.step_s is not None else ""
    paid = f"{count(row.adapter_params):>8} {head:>7} {size:>8} {step:>7} {memory_text(row):>8}"
    scored = f"{score_text(row, table.metric):>18} {paid} {kept_text(row):>18} {rate_text(row):>8}"
    print(f"{place:>6}  {budget_label(row):30} {scored}")
