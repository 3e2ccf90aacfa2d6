"""What a card is made of, as HTML for page and notebooks: its question, its sentence, a table, a fold."""

from collections.abc import Iterable, Sequence
from html import escape


def question(title: str, subtitle: str = "") -> str:
    """The question that a card answers."""
    return f'<div class="lab-q">{escape(title)}</div><div class="lab-s">{escape(subtitle)}</div>'


def say(sentence: str, *, kind: str = "") -> str:
    """A computed sentence, set off from the rest; nothing where there is none."""
    return f'<div class="lab-say {kind}" role="status">{escape(sentence)}</div>' if sentence else ""


def table(name: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Texts, escaped, the first column to the left."""
    top = "".join(f"<th>{escape(title)}</th>" for title in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="lab-wide"><table class="lab-table" id="{escape(name)}"><tr>{top}</tr>{body}</table></div>'


def folded(summary: str, inside: str, *, is_open: bool = False) -> str:
    """Something long behind its title."""
    return f'<details class="lab-terms"{" open" if is_open else ""}><summary>{escape(summary)}</summary>{inside}</details>'
