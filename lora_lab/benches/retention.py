"""A text of plain English, committed with the lab, that no bench trains on: what a language model still can."""

from functools import cache
from pathlib import Path

from lora_lab.assets import DATA_DIR
from lora_lab.benches.bench import Split
from lora_lab.benches.examples import Completion
from lora_lab.benches.text import completions
from lora_lab.benches.writing import Writing

FIXED_TEXT = DATA_DIR / "retention.txt"
_TOKENS = 128  # a row


@cache
def fixed_text(folder: Path) -> Split:
    """The text as rows of the folder's tokens, a paragraph a row."""
    paragraphs = FIXED_TEXT.read_text(encoding="utf-8").strip().split("\n\n")
    return completions(folder, [Completion("", text) for text in paragraphs], Writing("loss", folder=folder), max_tokens=_TOKENS)
