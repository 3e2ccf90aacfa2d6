"""The four numbers of a budget as tiles of HTML."""

from html import escape

from lora_lab.budget import Budget, Card, Remedy, cards
from lora_lab.budget.sentences import remedy_sentence
from lora_lab.units import count, file_size, gigabytes, percent

SHOWN_CARDS = ("T4", "RTX 4090", "L40S", "A100 80GB", "H200")


def tiles(made: Budget, card: Card, remedy: Remedy) -> str:
    """Trainable parameters, the adapter's file, peak memory, and which cards hold it."""
    full, adapters = made.disk_bytes(100)
    head = f" and a head of {made.head_params:,}" if made.head_params else ""
    trained = f"{made.trainable_params:,}{head}, {percent(made.trainable_share, 3)} of the base"
    on_disk = f"100 tasks: {file_size(adapters)}, full {file_size(full)}"
    counter = f"by {made.source}, allocated, at the {made.peak_moment}"
    body = (
        _tile("trainable parameters", count(made.trainable_params), trained, "params"),
        _tile("adapter file", file_size(made.adapter_file_bytes), on_disk, "file"),
        _tile("peak GPU memory", gigabytes(made.ledger.peak), counter, "peak"),
        _fits_tile(made, card, remedy),
    )
    return f'<div class="lab-tiles">{"".join(body)}</div>'


def _tile(title: str, value: str, below: str, key: str) -> str:
    return (
        f'<div class="lab-tile" id="tile-{key}"><div class="lab-s">{escape(title)}</div><div class="lab-big">{escape(value)}</div>'
        f'<div class="lab-s">{escape(below)}</div></div>'
    )


def _fits_tile(made: Budget, card: Card, remedy: Remedy) -> str:
    named = {known.name: known for known in cards()}
    shown = [named[name] for name in SHOWN_CARDS if name != card.name]
    lamps = "".join(
        f'<span class="lab-lamp {"yes" if made.fits(one) else "no"}">{escape(one.name)}</span>' for one in (card, *shown)
    )
    return (
        f'<div class="lab-tile" id="tile-fits"><div class="lab-s">fits, with context and fragmentation</div><div>{lamps}</div>'
        f'<div class="lab-s">{escape(remedy_sentence(remedy, card))}</div></div>'
    )
