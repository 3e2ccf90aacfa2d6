"""Where a report's numbers come from: which command, versions and device, when, and how long it took."""

import platform
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import lora_lab

_PACKAGES = ("torch", "transformers", "peft", "numpy")


@dataclass(frozen=True, slots=True)
class Provenance:
    """How a report came about.

    Attributes:
        trained_s: wall time of the runs that were trained for it; those that were in the store already took none.
        trained: how many these are.
        runs: all that it rests on.
    """

    command: str
    date: str
    device: str
    runs: int
    trained: int
    trained_s: float
    base_note: str
    versions: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """As it is kept beside recorded results."""
        return asdict(self)


def provenance(command: str, *, device: str, runs: int, trained: int, trained_s: float, base_note: str = "") -> Provenance:
    """The provenance of what is done now, here."""
    versions = {"lora-lab": lora_lab.__version__, "python": platform.python_version(), **{p: version(p) for p in _PACKAGES}}
    return Provenance(command, datetime.now(UTC).date().isoformat(), device, runs, trained, trained_s, base_note, versions)
