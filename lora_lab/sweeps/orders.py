"""How runs are to be trained, as `sweep_events` was told."""

from dataclasses import dataclass

from lora_lab.sweeps.groups import Grouped


@dataclass(frozen=True, slots=True)
class Orders:
    """See `sweep_events`."""

    device: str | None = None
    grouped: Grouped = "auto"
    address: str | None = None
