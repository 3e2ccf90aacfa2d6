"""`preview`: a task of text at a glance, before anything is trained on it."""

import argparse
from dataclasses import asdict
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from lora_lab.cli.flags import command, data_flags, data_of, number, prepare, print_json
from lora_lab.errors import SpecError

if TYPE_CHECKING:
    from lora_lab.benches.preview import Preview

# The core is imported inside each command: `--help` and the other commands wait for no torch.
# ruff: noqa: PLC0415

_BAR = 40  # characters of the longest


def add(commands: Any) -> None:
    """Put `preview` on the parser."""
    preview = command(commands, "preview", _preview, "look at a task of text before training: rows, labels, lengths in tokens")
    data_flags(preview)
    preview.add_argument("--rows", default="5", help="how many rows to show")


def _preview(arguments: argparse.Namespace) -> int:
    from lora_lab.benches import find_bench
    from lora_lab.benches.preview import preview_of

    rows = number("rows", arguments.rows, int)
    if rows < 0:
        raise SpecError(f"--rows must be an int of at least 0. Got {rows}.")
    prepare(arguments)
    bench = find_bench(arguments.bench, data_of(arguments))
    seen = preview_of(bench, rows=rows)
    if arguments.json:
        print_json({"bench": bench.name, "base_note": bench.note(), **asdict(seen)})
    else:
        print("\n".join([bench.about, *_lines(seen)]))
    return 0


def _lines(seen: "Preview") -> list[str]:
    from lora_lab.plots import labels_sentence, lengths_caption, rows_sentence

    return [rows_sentence(seen), *_examples(seen), labels_sentence(seen), *_histogram(seen), lengths_caption(seen)]


def _examples(seen: "Preview") -> list[str]:
    from lora_lab.plots import shortened

    shown = [f"{shortened(read, 110)}\n  -> {shortened(answer, 110)}" for read, answer in seen.examples]
    return ["", *shown, ""] if shown else []  # a row a paragraph


def _histogram(seen: "Preview") -> list[str]:
    most = max(seen.bin_counts)
    spans = [f"{low} to {high - 1}" for low, high in pairwise(seen.edges_tokens)]
    width = max(map(len, spans))
    rows = zip(spans, seen.bin_counts, strict=True)
    return ["training rows by tokens:", *(f"  {span:>{width}} {n:>7,} {'█' * -(-_BAR * n // most)}" for span, n in rows)]
