"""GPUs and their memory, as the driver reports it: a little less than the box says."""

import json
import re
from dataclasses import dataclass
from functools import cache

from lora_lab.assets import DATA_DIR
from lora_lab.errors import SpecError

_UNITS = {"GB": 10**9, "GIB": 2**30, "MB": 10**6, "MIB": 2**20, "TB": 10**12, "TIB": 2**40}


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU and the bytes that it has."""

    name: str
    memory_bytes: int
    kind: str = ""


@cache
def cards() -> tuple[Card, ...]:
    """The catalogue in `data/gpus.json`, smallest first."""
    records = json.loads((DATA_DIR / "gpus.json").read_text())
    return tuple(Card(r["name"], r["memory_mib"] * 2**20, r["kind"]) for r in records)


def find_card(text: str) -> Card:
    """A card by name, or a size such as `24GB` (10^9 bytes) or `24GiB` (2^30).

    Raises:
        SpecError: neither, or no more than nothing.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]i?B)", text.strip(), re.IGNORECASE)
    if match and match[2].upper() in _UNITS and float(match[1]) > 0:
        return Card(text.strip(), round(float(match[1]) * _UNITS[match[2].upper()]))
    wanted = _key(text)
    found = [card for card in cards() if wanted in (_key(card.name), _key(card.name).removeprefix("rtx"))]
    if not found:
        found = [card for card in cards() if wanted and _key(card.name).startswith(wanted)]
    if len(found) != 1:
        known = ", ".join(card.name for card in cards())
        raise SpecError(f"A card must be a size such as 24GB or one of {known}. Got {text!r}.")
    return found[0]


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower()).removeprefix("nvidia").removeprefix("geforce")
