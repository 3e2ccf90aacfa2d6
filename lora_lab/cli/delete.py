"""`delete`: runs taken out of a store."""

import argparse
from pathlib import Path
from typing import Any

from lora_lab.cli.flags import command, print_json, runs_flag
from lora_lab.errors import StoreError

# The core is imported inside each command: `--help` and the other commands wait for no torch.
# ruff: noqa: PLC0415


def add(commands: Any) -> None:
    """Put `delete` on the parser."""
    delete = command(commands, "delete", _delete, "remove runs from a store for good, all that are named or none")
    delete.add_argument("run_ids", metavar="RUN", nargs="+", help="a run's id, or as much of it as only one begins with")
    runs_flag(delete)


def _delete(arguments: argparse.Namespace) -> int:
    from lora_lab.sweeps import RunStore

    if not Path(arguments.runs).is_dir():
        raise StoreError(f"The runs folder must be one that exists. Got {arguments.runs!r}.")
    deleted = RunStore(arguments.runs).delete(arguments.run_ids)
    if arguments.json:
        print_json({"deleted": list(deleted)})
    else:
        print(f"deleted {', '.join(deleted)}")
    return 0
