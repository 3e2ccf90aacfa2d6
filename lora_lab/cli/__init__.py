"""The command line: reads flags, calls the core, prints. One module a group of commands.

Each module's `add` puts its commands on the parser. The core is imported inside each command.
"""

import argparse
import sys
from collections.abc import Sequence

from lora_lab.cli import budget, delete, drift, gradients, latency, look, methods, perf, preview, reproduce, results, search, train
from lora_lab.errors import LabError

_GROUPS = (budget, preview, train, search, methods, results, delete, look, drift, gradients, reproduce, latency, perf)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code: 0, 1 where runs failed, 2 for a user's mistake."""
    arguments = _parser().parse_args(argv)
    try:
        code: int = arguments.command(arguments)
    except LabError as err:
        print(f"lora-lab: {err}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("lora-lab: stopped; what was learned so far is in the store.", file=sys.stderr)
        return 130
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lora-lab", description="Train LoRA adapters and look inside them.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for group in _GROUPS:
        group.add(commands)
    return parser
