"""What "Try it" shows: the example that is asked, and a card for each that answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from lora_lab.benches.examples import Cell, Completion
from lora_lab.benches.sqlite import check_query
from lora_lab.inference import Judged, Question, Said
from lora_lab.ui.html import question as heading
from lora_lab.units import percent

Answers = Mapping[str, Said | Judged]
_PIXEL, _MOST_LABELS, _MOST_ROWS = 22, 10, 8


@dataclass(frozen=True, slots=True)
class Column:
    """One that answers, as its card is headed."""

    who: str
    label: str
    about: str
    colour: str


def asked(question: Question, label_names: Sequence[str]) -> str:
    """What is right, and the table that a query is run on."""
    known = f"test example {question.row} (they are 0 to {question.rows - 1}); no run was trained on it"
    title = heading("What is right?", known)
    if question.example is None:
        named = label_names[int(question.label or 0)] if label_names else f"{question.label:g}"
        return f'{title}<div class="lab-known">It is <b>{escape(named)}</b>.</div>'
    return title + _completion(question.example)


def picture(question: Question) -> str:
    """The image, a square a pixel, white where it is 1; nothing where text is asked."""
    pixels = question.pixels
    if not pixels:
        return ""
    squares = "".join(
        f'<rect x="{x * _PIXEL}" y="{y * _PIXEL}" width="{_PIXEL}" height="{_PIXEL}" fill="rgb({g},{g},{g})"/>'
        for y, row in enumerate(pixels)
        for x, g in enumerate(round(255 * grey) for grey in row)
    )
    w, h = len(pixels[0]) * _PIXEL, len(pixels) * _PIXEL
    size = f'viewBox="0 0 {w} {h}" width="{w}" height="{h}"'
    return f'<svg class="lab-pixels" {size} role="img" aria-label="the test image" shape-rendering="crispEdges">{squares}</svg>'


def columns(shown: Sequence[Column], answers: Answers, question: Question | None, names: Sequence[str], *, note: str = "") -> str:
    """A card for each, the base first.

    Args:
        shown: who answers.
        answers: what they have said so far.
        question: the example that is asked; None where it is a prompt of the visitor's own, of which nobody knows what is right.
        names: of the labels.
        note: what stands where nothing is said yet, and ends what was stopped.
    """
    return f'<div class="lab-columns">{"".join(_card(one, answers.get(one.who), question, names, note) for one in shown)}</div>'


def _card(column: Column, said: Said | Judged | None, question: Question | None, names: Sequence[str], note: str) -> str:
    if said is None:
        state, body = "waiting", f'<div class="lab-s">{escape(note)}</div>'
    elif isinstance(said, Judged):
        state, body = "done", _judged(said, question, names)
    else:
        state = "done" if said.is_done else "stopped" if note else "writing"
        body = _written(said, question, state, note)
    swatch = f'<i class="lab-swatch" style="background:{column.colour}"></i>'
    head = f'<div class="lab-who">{swatch}<b>{escape(column.label)}</b> <small>{escape(column.about)}</small></div>'
    marks = f'style="--who:{column.colour}" data-who="{escape(column.who)}" data-state="{state}"'
    return f'<div class="lab-card lab-answer" {marks}>{head}{body}</div>'


def _written(said: Said, question: Question | None, state: str, note: str) -> str:
    caret = '<i class="lab-caret"></i>' if state == "writing" else ""
    text = f'<div class="lab-written">{escape(said.text.strip())}{caret}</div>'
    example = question.example if question and said.is_done else None
    checked = _checked(said.text, example) if example and example.table else ""
    rate = f", {said.tokens_per_s:.1f} a second" if said.tokens_per_s else ""
    ended = " · cut there" if said.is_cut else f" · {note}" if state == "stopped" else ""
    return f'{text}{checked}<div class="lab-s lab-rate">{said.tokens} tokens{rate}{escape(ended)}</div>'


def _checked(text: str, example: Completion) -> str:
    """What the answer's first query finds in the table."""
    ran = check_query(text, example)
    verdict = '<b class="yes">✓ the right answer</b>' if ran.is_right else '<b class="no">✗ not the right answer</b>'
    subject = "It" if ran.query == text.strip() else f"<code>{escape(ran.query)}</code>"
    found = f"{subject} is no query that can be run." if ran.rows is None else f"{subject} finds {_rows(ran.rows)}"
    return f'<div class="lab-found">{verdict}<div>{found}</div></div>'


def _rows(rows: Sequence[Sequence[Cell | bytes]]) -> str:
    if not rows:
        return "no row."
    more = f" and {len(rows) - _MOST_ROWS} rows more" if len(rows) > _MOST_ROWS else ""
    return "; ".join(f"<code>{escape(', '.join(map(_cell, row)))}</code>" for row in rows[:_MOST_ROWS]) + more


def _cell(cell: Cell | bytes) -> str:
    return "nothing" if cell is None else f"{cell:g}" if isinstance(cell, float) else str(cell)


def _judged(said: Judged, question: Question | None, names: Sequence[str]) -> str:
    right = question.label if question else None
    if said.number is not None:
        known = f'<div class="lab-s">right is {right:g}</div>' if right is not None else ""
        return f'<div class="lab-big">{said.number:.3g}</div>{known}'
    by_share = sorted(range(len(said.shares)), key=lambda i: -said.shares[i])[:_MOST_LABELS]
    kept = sorted({*by_share, int(right)} if right is not None else by_share)
    bars = "".join(_bar(names[i], said.shares[i], is_right=i == right, is_first=i == said.label) for i in kept)
    verdict = "" if right is None else _verdict(said.label == right)
    return f'{verdict}<div class="lab-shares">{bars}</div>'


def _verdict(is_right: bool) -> str:
    return f'<div class="lab-found"><b class="{"yes" if is_right else "no"}">{"✓ right" if is_right else "✗ wrong"}</b></div>'


def _bar(name: str, share: float, *, is_right: bool, is_first: bool) -> str:
    kind = f"lab-share{' first' if is_first else ''}{' right' if is_right else ''}"
    mark = ' <b title="the right label">✓</b>' if is_right else ""
    return (
        f'<div class="{kind}"><span class="name" title="{escape(name)}">{escape(name)}{mark}</span>'
        f'<span class="track"><i style="width:{share:.1%}"></i></span><span class="value">{percent(share)}</span></div>'
    )


def _completion(example: Completion) -> str:
    others = [text for text in example.references if text.strip() != example.completion.strip()][:2]
    also = "".join(f'<div class="lab-s">or: {escape(text.strip())}</div>' for text in others)
    right = f'<div class="lab-written">{escape(example.completion.strip())}</div>{also}'
    return right + _table(example) if example.table else right


def _table(example: Completion) -> str:
    table = example.table
    assert table is not None
    found = check_query(example.completion, example).rows or ()
    head = "".join(f"<th>{escape(name)}</th>" for name in table.columns)
    body = "".join(f"<tr>{''.join(f'<td>{escape(_cell(cell))}</td>' for cell in row)}</tr>" for row in table.rows)
    rows = f'<table class="lab-table" id="asked-table"><tr>{head}</tr>{body}</table>'
    title = f"It finds {_rows(found)} in the table {escape(table.name)}, whose rows no model sees:"
    return f'<div class="lab-found">{title}</div><div class="lab-wide">{rows}</div>'
