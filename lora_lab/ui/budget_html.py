"""The Budget place in HTML and SVG: tiles, the bill as bars, the formula term by term."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from lora_lab.budget import PARTS, Budget, Card, Ledger, Remedy, cards
from lora_lab.budget.explain import memory_lines
from lora_lab.budget.paper import Accuracy, Figure
from lora_lab.budget.sentences import budget_sentence, counter_sentence
from lora_lab.plots.block_drawing import block_drawing, block_note
from lora_lab.plots.budget_bill import PART_COLOURS
from lora_lab.plots.budget_tiles import SHOWN_CARDS, tiles
from lora_lab.plots.choices import TARGETS
from lora_lab.specs import METHODS
from lora_lab.ui.html import question, say
from lora_lab.units import count, gigabytes, percent


def targets(made: Budget) -> str:
    """One block to scale, what is adapted in it marked; every matrix, and every usual choice of them, is a button."""
    geometry = made.model.geometry
    chosen = {m.name for m in geometry.targeted(made.spec.targets)}
    chips = "".join(f'<button class="lab-chip" data-pick="targets:{",".join(names)}">{label}</button>' for label, names in TARGETS)
    takes = METHODS[made.spec.method].has_targets
    note = block_note(geometry) if takes else f"{METHODS[made.spec.method].label} names none"
    title = f'<div class="lab-h">Target matrices <small>{escape(note)}</small></div>'
    return f'{title}<div class="lab-presets">{chips}</div>{block_drawing(geometry, chosen, r=made.spec.r)}'


def answers(made: Budget, rows: dict[str, Budget], card: Card, remedy: Remedy) -> str:
    """The numbers, and the bill beside those of other ways."""
    own = METHODS[made.spec.method].label
    said = say(f"{budget_sentence(made)} {' '.join(made.notes)}")
    shown = f'{tiles(made, card, remedy)}{said}<div class="lab-gap"></div>'
    return f'{shown}<div class="lab-card" id="bill">{bill(rows, own, card)}</div>'


def bill(rows: dict[str, Budget], own: str, card: Card) -> str:
    """One stacked bar a row, to one scale, with the capacities of cards as lines."""
    most = max(*(one.ledger.peak for one in rows.values()), card.memory_bytes) * 1.04
    known = [one for one in cards() if one.name in SHOWN_CARDS and one.memory_bytes < most and one.name != card.name]
    marks = "".join(_mark(one, most, chosen=one is card) for one in (card, *_apart(known, most)))
    bars = "".join(_bar(name, one.ledger, most, 42 + 40 * i, own=name == own) for i, (name, one) in enumerate(rows.items()))
    height = 52 + 40 * len(rows)
    legend = "".join(f'<span><i style="background:{colour}"></i>{part}</span>' for part, colour in PART_COLOURS.items())
    head = question("Where does the memory go?", "GB at the peak of one step, before fragmentation and the CUDA context")
    svg = f'<svg class="lab-bill" viewBox="0 0 900 {height}" role="img" aria-label="the bill as bars">{marks}{bars}</svg>'
    return f'{head}{svg}<div class="lab-legend">{legend}</div><div class="lab-s">{escape(counter_sentence(rows[own]))}</div>'


_LEFT, _WIDTH, _NAME_WIDTH = 150, 660, 76


def _bar(name: str, ledger: Ledger, most: float, y: int, *, own: bool) -> str:
    x, pieces = float(_LEFT), ""
    for part in PARTS:
        size_bytes = getattr(ledger, part)
        width = _WIDTH * size_bytes / most
        title = f"<title>{part} {gigabytes(size_bytes)}</title>"
        pieces += f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="24" fill="{PART_COLOURS[part]}">{title}</rect>'
        x += width
    return (
        f'<g class="lab-bar-row{" on" if own else ""}" data-peak="{ledger.peak}">'
        f'<text x="{_LEFT - 10}" y="{y + 16}" text-anchor="end">{escape(name)}</text>{pieces}'
        f'<text x="{x + 8:.1f}" y="{y + 16}">{gigabytes(ledger.peak)}</text></g>'
    )


def _apart(found: Sequence[Card], most: float) -> list[Card]:
    """The cards whose names stand clear of each other on the scale, the largest first to stay."""
    kept: list[Card] = []
    for card in sorted(found, key=lambda one: -one.memory_bytes):
        if all(kept_one.memory_bytes - card.memory_bytes > most * _NAME_WIDTH / _WIDTH for kept_one in kept):
            kept.append(card)
    return kept


def _mark(card: Card, most: float, *, chosen: bool) -> str:
    x = _LEFT + _WIDTH * card.memory_bytes / most
    row = 12 if chosen else 26
    return (
        f'<g class="lab-mark{" on" if chosen else ""}"><line x1="{x:.1f}" x2="{x:.1f}" y1="{row + 4}" y2="400"/>'
        f'<text x="{x:.1f}" y="{row}" text-anchor="middle">{escape(card.name)}</text></g>'
    )


def largest_table(made: Budget, card: Card, largest: dict[str, int | None]) -> str:
    """The most that fits a card, one thing turned at a time."""
    names = {"max_r": METHODS[made.spec.method].r_is, "max_batch": "batch", "max_seq": "sequence"}
    rows = ((names[key], most) for key, most in largest.items() if names[key])
    body = "".join(f"<tr><td>{name}</td><td>{f'{most:,}' if most else 'none fits'}</td></tr>" for name, most in rows)
    head = question(f"What is the most that fits {card.name}?", "each alone, other things equal")
    return f'{head}<table class="lab-table" id="largest">{body}</table>'


@dataclass(frozen=True, slots=True)
class EqualRow:
    """A choice of targets, the rank that the parameters buy there, its budget, and what the paper measured with it."""

    name: str
    r: int | None
    made: Budget | None
    measured: Accuracy | None = None


def equal_table(rows: Sequence[EqualRow], params: int, *, with_accuracy: bool = False) -> str:
    """Equal budgets: for each choice of targets the rank that the same parameters buy, and what it takes."""
    subtitle = f"LoRA's largest r within {count(params)} trainable parameters, as in Table 5 of the paper"
    names = ("targets", "r", "parameters", "peak", *(("WikiSQL", "MultiNLI") if with_accuracy else ()))
    titles = "".join(f"<th>{title}</th>" for title in names)
    body = ""
    for row in rows:
        cells = [row.name, *_bought(row)]
        cells += [percent(row.measured.wikisql), percent(row.measured.multinli)] if row.measured else []
        body += f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
    head = question("What does the same budget buy elsewhere?", subtitle)
    below = '<div class="lab-s">Accuracies: GPT-3, tables 5 and 6 of the paper.</div>' if with_accuracy else ""
    return f'{head}<table class="lab-table" id="equal"><tr>{titles}</tr>{body}</table>{below}'


def _bought(row: EqualRow) -> tuple[str, ...]:
    return ("none",) if row.made is None else (str(row.r), f"{row.made.trainable_params:,}", gigabytes(row.made.ledger.peak))


def paper_table(figures: Sequence[Figure]) -> str:
    """The paper's own figures beside what its shapes give, and the gap."""
    titles = "".join(f"<th>{title}</th>" for title in ("", "the paper", "here", "gap", "what ours assumes"))
    rows = ""
    for one in figures:
        cells = (f"{one.name} ({one.source})", one.paper_text, one.ours_text, percent(one.gap), one.assumes)
        rows += f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
    subtitle = "the LoRA paper's counts and sizes beside ours; nothing is bent towards them"
    head = question("Do these formulas give the paper's figures?", subtitle)
    table = f'<div class="lab-scroll"><table class="lab-table lab-wrap" id="paper"><tr>{titles}</tr>{rows}</table></div>'
    return f'{head}<details class="lab-terms"><summary>{len(figures)} figures</summary>{table}</details>'


def terms(made: Budget) -> str:
    """The formula with the numbers put in: the count, then the bill."""
    counted = [(term.name, term.text, term.params) for term in made.terms]
    counted.append(("trained, a task head apart", "", sum(term.params for term in made.terms)))
    billed = [(f"{line.part}: {line.name}", line.text, line.size_bytes) for line in memory_lines(made)]
    billed.append(("peak", "", made.ledger.peak))
    tables = _terms_table("count-terms", "parameters", counted) + _terms_table("memory-terms", "bytes at the peak", billed)
    return f'<details class="lab-terms"><summary>The formula, term by term</summary>{tables}</details>'


def _terms_table(name: str, title: str, rows: Sequence[tuple[str, str, int]]) -> str:
    body = "".join(_term_row(what, text, f"{value:,}") for what, text, value in rows)
    return f'<table class="lab-table" id="{name}"><tr><th>{title}</th><th></th><th></th></tr>{body}</table>'


def _term_row(name: str, text: str, value: str) -> str:
    return f"<tr><td>{escape(name)}</td><td>{escape(text)}</td><td>{value}</td></tr>"


def traced(made: Budget, by_formula: Budget) -> str:
    """Trace and formula, part by part."""
    ours, theirs = by_formula.ledger.to_json(), made.ledger.to_json()
    parts = [*PARTS, "peak"]
    body = "".join(f"<tr><td>{part}</td><td>{gigabytes(ours[part])}</td><td>{gigabytes(theirs[part])}</td></tr>" for part in parts)
    off = percent(by_formula.ledger.difference_from(made.ledger), 2)
    return (
        f'<table class="lab-table" id="traced"><tr><th></th><th>formula</th><th>trace</th></tr>{body}</table>'
        f'<div class="lab-s">The formula is {off} off two real steps on the meta device.</div>'
    )
