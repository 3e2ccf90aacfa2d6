"""How the page names the machine."""

import os

from lora_lab.training import pick_device


def device_name(wanted: str | None) -> str:
    """ "cpu, 2 cores", or the accelerator's kind."""
    kind = pick_device(wanted).type
    return f"cpu, {os.cpu_count()} cores" if kind == "cpu" else kind
