"""The results of a store as HTML: configurations in order, pivots, runs to pick from."""

from collections.abc import Collection, Iterable, Sequence
from html import escape

from lora_lab.analysis.configuration_records import Ranked, Ranking
from lora_lab.plots import method_label, run_colour
from lora_lab.plots.html_parts import table
from lora_lab.plots.leader_captions import labels_by_name, on_test_text, validation_text
from lora_lab.sweeps import Run
from lora_lab.units import count, seconds

_MOST_ROWS = 12  # shown at once; the others are folded below


def ranking_table(ranking: Ranking) -> str:
    """A row a configuration, best mean first, with its place, its seeds and both splits."""
    if not ranking.ranked:
        return '<div class="lab-s">A configuration has its row when one of its runs has come to its end.</div>'
    labels = labels_by_name([one.row for one in ranking.ranked])
    rows = [_ranked_row(one, labels[one.row.name], ranking) for one in ranking.ranked]
    head = f"<tr><th>place</th><th>configuration</th><th>{escape(ranking.metric.label)}, validation</th><th>seeds</th>"
    head += "<th>test</th><th>trainable</th></tr>"
    first = (
        f'<div class="lab-wide"><table class="lab-table lab-methods" id="ranking">{head}{"".join(rows[:_MOST_ROWS])}</table></div>'
    )
    if len(rows) <= _MOST_ROWS:
        return first
    rest = f'<div class="lab-wide"><table class="lab-table lab-methods">{head}{"".join(rows[_MOST_ROWS:])}</table></div>'
    return f'{first}<details class="lab-terms"><summary>{len(rows) - _MOST_ROWS} more</summary>{rest}</details>'


def _ranked_row(one: Ranked, label: str, ranking: Ranking) -> str:
    row, tuning = one.row, one.row.spec.tuning
    swatch = f'<i class="lab-swatch" style="background:{run_colour(tuning.method, tuning.r)}"></i>'
    trained = "" if row.trainable_params is None else count(row.trainable_params)
    told = (validation_text(ranking.metric, row) or "diverged", str(len(row.seeds)), on_test_text(ranking.metric, row), trained)
    cells = "".join(f"<td>{escape(text)}</td>" for text in told)
    name = escape(label or method_label(row.spec))
    return f'<tr><td class="lab-place">{one.text}</td><td>{swatch}<b>{name}</b></td>{cells}</tr>'


def pivot_table(texts: tuple[Sequence[str], Sequence[Sequence[str]]], *, name: str, nothing: str) -> str:
    """A pivot's texts; `nothing` where no cell has a run."""
    titles, rows = texts
    if not rows:
        return f'<div class="lab-s">{escape(nothing)}</div>'
    return table(name, [title.replace("_", " ") for title in titles], rows)


def runs_to_pick(runs: Sequence[Run], labels: Sequence[str], links: Iterable[str], picked: Collection[str]) -> str:
    """A row a run with a box to tick; its id is a link to look inside."""
    if not runs:
        return '<div class="lab-s">No run of this bench is kept yet.</div>'
    titles = ("", "run", "configuration", "validation", "test", "trainable", "took", "status")
    head = "".join(f"<th>{title}</th>" for title in titles)
    rows = "".join(_run_row(run, label, link, run.run_id in picked) for run, label, link in zip(runs, labels, links, strict=True))
    return f'<div class="lab-scroll"><table class="lab-table lab-methods" id="kept-table"><tr>{head}</tr>{rows}</table></div>'


def _run_row(run: Run, label: str, link: str, on: bool) -> str:
    scores = [run.score(), run.score(split="test")]
    texts = ["" if score is None else run.metric.text(score) for score in scores]
    m = run.metrics
    trained = count(m["trainable_params"]) if m.get("trainable_params") is not None else ""
    took = seconds(m["wall_s"]) if m.get("wall_s") else ""
    state = f"{m['status']} at {m['step']}" if m["status"] == "stopped" else m["status"]
    named = escape(run.run_id)
    tick = (
        f'<button class="lab-tick" role="checkbox" aria-checked="{str(on).lower()}" data-pick="{named}"'
        f' aria-label="pick {named}">{"✓" if on else ""}</button>'
    )
    opened = f'<a class="lab-link" href="{link}" title="look inside">{named}</a>'
    told = "".join(f"<td>{escape(text)}</td>" for text in (label, *texts, trained, took, state))
    return f"<tr><td>{tick}</td><td>{opened}</td>{told}</tr>"
