"""`results`: the runs of a store as a table, to read, as CSV or Parquet, and pivoted as the paper's Tables 5 and 6 are."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_lab.cli.flags import command, print_json, runs_flag
from lora_lab.cli.train import print_runs
from lora_lab.errors import SpecError, StoreError

if TYPE_CHECKING:
    import pandas as pd

    from lora_lab.sweeps import Run

# The core is imported inside each command: `--help` and the other commands wait for no torch.
# ruff: noqa: PLC0415


def add(commands: Any) -> None:
    """Put `results` on the parser."""
    results = command(commands, "results", _results, "the runs of a store as one table")
    runs_flag(results)
    results.add_argument("--bench", help="of one bench only")
    results.add_argument("--format", default="table", choices=("table", "csv", "parquet"))
    results.add_argument("--out", help="the file to write; CSV goes to standard output without it")
    results.add_argument("--pivot", choices=("r", "targets"), help="mean ± sd over seeds by rank, or by targets at one budget")
    results.add_argument("--value", default="score", help="what a pivot is of: score, test_score, loss or any other number")


def _results(arguments: argparse.Namespace) -> int:
    from lora_lab.sweeps.pivots import by_rank, by_targets
    from lora_lab.sweeps.results import records, results_table

    if arguments.format == "parquet" and not arguments.out:
        raise SpecError("--out must be the file to write with --format parquet. Got none.")
    runs = _runs(arguments)
    table = results_table(runs)
    pivots = {"r": by_rank, "targets": by_targets}
    frame = pivots[arguments.pivot](table, value=arguments.value) if arguments.pivot else None
    wrote = _write(arguments, table, frame)
    if arguments.json:
        pivot = {} if frame is None else {"pivot": _document(arguments, frame)}
        print_json({"runs": records(table), **pivot})
    elif not wrote:
        _print(runs, frame, arguments.value)
    return 0


def _runs(arguments: argparse.Namespace) -> "list[Run]":
    from lora_lab.sweeps import RunStore

    if not Path(arguments.runs).is_dir():
        raise StoreError(f"The runs folder must be one that exists. Got {arguments.runs!r}.")
    runs = RunStore(arguments.runs).runs()
    benches = sorted({run.spec.bench for run in runs})
    if arguments.bench is not None and arguments.bench not in benches:
        known = f"one of {', '.join(benches)}" if benches else "one that there are runs of"
        raise StoreError(f"The bench must be {known}. Got {arguments.bench!r}.")
    return [run for run in runs if arguments.bench in (None, run.spec.bench)]


def _write(arguments: argparse.Namespace, table: "pd.DataFrame", frame: "pd.DataFrame | None") -> bool:
    """Write the runs, or the pivot's cells, where a file or CSV is asked for. Whether that was all that is wanted."""
    from lora_lab.sweeps.pivots import pivot_cells
    from lora_lab.sweeps.results import csv_of, write_csv, write_parquet

    if arguments.format == "table":
        return False
    table = table if frame is None else pivot_cells(frame)
    if arguments.out:
        {"csv": write_csv, "parquet": write_parquet}[arguments.format](table, arguments.out)
        print(arguments.out, file=sys.stderr)
    elif not arguments.json:
        sys.stdout.write(csv_of(table))
    return True


def _document(arguments: argparse.Namespace, frame: "pd.DataFrame") -> dict[str, Any]:
    from lora_lab.sweeps.pivots import pivot_cells
    from lora_lab.sweeps.results import records

    rows, columns = list(frame.index.names), list(frame.columns.names)[:-1]
    return {"by": arguments.pivot, "value": arguments.value, "rows": rows, "columns": columns, "cells": records(pivot_cells(frame))}


def _print(runs: "list[Run]", frame: "pd.DataFrame | None", value: str) -> None:
    if frame is None:
        print_runs(runs)
    elif frame.empty:
        print("no finished run has what this table is of")
    else:
        _print_pivot(frame, value)


def _print_pivot(frame: "pd.DataFrame", value: str) -> None:
    """Row keys at the left, then a column a choice: mean ± sd, and in brackets of how many seeds."""
    from lora_lab.sweeps.pivots import pivot_texts

    titles, rows = pivot_texts(frame, value)
    lines = [titles, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
    print(f"{value}: mean ± sd, and over how many seeds" + ("; a share in points of 100" if value.endswith("score") else ""))
