"""`python -m lora_lab.budget.build_catalogue`: read every config of the catalogue on the meta device and write its shapes.

To add a model, add its name, config and source to `data/models.json` and run this.
"""

import json

from lora_lab.budget.meta import build_model
from lora_lab.budget.models import CATALOGUE, to_entry
from lora_lab.live_geometry import read_geometry


def rebuilt() -> dict[str, dict[str, object]]:
    """The catalogue, every shape read anew from its config."""
    entries = json.loads(CATALOGUE.read_text())
    return {
        name: to_entry(
            read_geometry(build_model(entry["config"])), entry["config"], source=entry["source"], verified=entry["verified"]
        )
        for name, entry in entries.items()
    }


def as_text(catalogue: dict[str, dict[str, object]]) -> str:
    """JSON with a line a part, so that a change of one matrix is a change of one line."""
    entries = []
    for name, entry in catalogue.items():
        parts = ",\n".join(f"   {json.dumps(part)}" for part in entry["parts"])  # type: ignore[attr-defined]
        rest = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in entry.items() if key != "parts")
        entries.append(f' {json.dumps(name)}: {{\n{rest},\n  "parts": [\n{parts}\n  ]\n }}')
    return "{\n" + ",\n".join(entries) + "\n}\n"


if __name__ == "__main__":
    CATALOGUE.write_text(as_text(rebuilt()))
