"""How the page names the machine."""

from joblib import cpu_count

from lora_lab.training import pick_device


def device_name(wanted: str | None) -> str:
    """ "cpu, 2 cores", or the accelerator's kind."""
    kind = pick_device(wanted).type
    return f"cpu, {cpu_count()} cores" if kind == "cpu" else kind
