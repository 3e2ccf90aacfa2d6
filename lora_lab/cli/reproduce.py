"""`reproduce`: section 7 of the paper on a bench, as one page."""

import argparse
import sys
from pathlib import Path
from typing import Any

from lora_lab.cli.flags import command, names, optional, print_json, runs_flag, say
from lora_lab.sweep_spec import AXES

# The core is imported inside each command: `--help` and the other commands wait for no torch.
# ruff: noqa: PLC0415


def add(commands: Any) -> None:
    """Put `reproduce` on the parser."""
    reproduce = command(commands, "reproduce", _reproduce, "the analyses of the paper's section 7 on a bench, as one HTML page")
    reproduce.add_argument("--bench", default="digits", help="digits takes minutes, e2e half an hour, reviews an hour")
    reproduce.add_argument("--out", default="report.html", help="the page to write")
    reproduce.add_argument("--seeds", help="at least two; the bench's own by default")
    reproduce.add_argument("--steps", help="of a run; the bench's own by default")
    reproduce.add_argument("--device", help="cuda, mps or cpu; the best there is by default")
    reproduce.add_argument("--record", help="a folder to keep the results in, as data/recorded has them")
    reproduce.add_argument("--whole", default="", help="ids of runs to keep there with their adapters, or all")
    runs_flag(reproduce)


def _reproduce(arguments: argparse.Namespace) -> int:
    from lora_lab.report.recordings import record
    from lora_lab.report.reproduction import reproduce

    seeds = AXES["seeds"].read_all(arguments.seeds) if arguments.seeds else None
    found = reproduce(
        arguments.bench,
        out=Path(arguments.out),
        runs=arguments.runs,
        seeds=seeds,
        steps=optional("steps", arguments.steps, int),
        device=arguments.device,
        notify=say,
    )
    if arguments.record:
        whole = [run.run_id for run in found.runs] if arguments.whole == "all" else names(arguments.whole)
        record(Path(arguments.record), found.evidence, found.source, found.runs, whole=whole)
    if arguments.json:
        print_json(found.to_json())
    else:
        for finding in found.findings:
            print(f"{finding.source:9} {finding.verdict:16} {finding.paragraph}")
        print(arguments.out, file=sys.stderr)
    return 1 if found.failed else 0
