"""Small pieces of HTML in the page's look."""

from collections.abc import Iterable, Sequence
from html import escape

from lora_lab.analysis.records import ChainRule
from lora_lab.geometry import Geometry, Matrix
from lora_lab.inference import MergeReport
from lora_lab.metrics import METRICS, Metric
from lora_lab.plots import PALETTE, merge_way, r_meaning, row_label, run_colour, small_share
from lora_lab.roles import ROLES, label_of, stack_of
from lora_lab.specs import RunSpec
from lora_lab.sweeps.jobs import Job
from lora_lab.sweeps.summary import Cell, RankTable
from lora_lab.units import seconds

PICK_JS = """
element.addEventListener('click', (e) => {
  const picked = e.target.closest('[data-pick]');
  if (picked) trigger('click', {pick: picked.dataset.pick});
});
element.addEventListener('keydown', (e) => {
  const picked = e.target.closest('[data-pick]');
  if (picked && (e.key === 'Enter' || e.key === ' ')) { e.preventDefault(); trigger('click', {pick: picked.dataset.pick}); }
});
"""


def question(title: str, subtitle: str = "") -> str:
    """The question that a card answers."""
    return f'<div class="lab-q">{escape(title)}</div><div class="lab-s">{escape(subtitle)}</div>'


def say(sentence: str, *, kind: str = "") -> str:
    """A computed sentence, set off from the rest; nothing where there is none."""
    return f'<div class="lab-say {kind}" role="status">{escape(sentence)}</div>' if sentence else ""


def block_drawing(block: Sequence[Matrix], targets: set[str], *, r: int) -> str:
    """The matrices of one block to scale, B and A beside the targeted ones; each is a button."""
    if not block:
        return say("The matrices appear when the base is known.")
    scale = 84 / max(max(m.d_out, m.d_in) for m in block)
    cells, x = [], 14.0
    for m in block:
        w, h = max(m.d_in * scale, 6), max(m.d_out * scale, 6)
        cells.append(_matrix_cell(m, x, w, h, chosen=m.name in targets, thickness=max(2.5, r * scale)))
        x += max(w + max(2.5, r * scale) + 5, 46) + 8
    return f'<svg class="lab-block" viewBox="0 0 {x:.0f} 152" width="{x:.0f}" height="152">{"".join(cells)}</svg>'


def _matrix_cell(m: Matrix, x: float, w: float, h: float, *, chosen: bool, thickness: float) -> str:
    top = 108 - h
    t = min(thickness, 14)
    factors = ""
    if chosen:
        factors = (
            f'<rect x="{x}" y="{top - t - 3}" width="{w}" height="{t}" rx="1" fill="{PALETTE["A"]}"/>'
            f'<rect x="{x + w + 3}" y="{top}" width="{t}" height="{h}" rx="1" fill="{PALETTE["B"]}"/>'
        )
    middle, label = x + w / 2, short_name(m)
    return (
        f'<g class="lab-matrix{" on" if chosen else ""}" data-pick="{escape(label)}" tabindex="0" role="checkbox"'
        f' aria-checked="{str(chosen).lower()}" aria-label="{escape(label)}, {m.d_out} by {m.d_in}">'
        f'<rect class="hit" x="{x - 4}" y="0" width="{max(w, 30) + 14}" height="150"/>'
        f'<rect class="w0" x="{x}" y="{top}" width="{w}" height="{h}" rx="2"/>{factors}'
        f'<text x="{middle}" y="125">{escape(label)}</text>'
        f'<text class="shape" x="{middle}" y="138">{m.d_out}×</text><text class="shape" x="{middle}" y="148">{m.d_in}</text></g>'
    )


def norm_map(norms: dict[str, float], geometry: Sequence[Matrix], *, picked: str) -> str:
    """‖ΔW‖_F of every adapted matrix, layers down and roles across; each cell is a button."""
    adapted = [m for m in geometry if m.name in norms]
    roles = [*ROLES, *(short_name(m) for m in adapted)]
    columns = sorted({short_name(m) for m in adapted}, key=roles.index)
    rows = list(dict.fromkeys(stack_of(m.name) for m in adapted))
    most = max(norms.values(), default=0) or 1
    at = {(stack_of(m.name), short_name(m)): m.name for m in adapted}
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = ""
    for row in rows:
        cells = "".join(_norm_cell(at.get((row, column)), norms, most, picked) for column in columns)
        body += f"<tr><th>{escape(_row_title(row, rows))}</th>{cells}</tr>"
    return f'<table class="lab-map"><tr><th></th>{head}</tr>{body}</table>'


def short_name(m: Matrix) -> str:
    """A matrix within its layer: its role, or its path where the role is not known."""
    return m.role if m.role != "other" else m.name.removeprefix(stack_of(m.name) + ".")


def _row_title(row: str, rows: list[str]) -> str:
    if not row:
        return ""
    prefixes = {other.rsplit(".", 1)[0] for other in rows if other}
    prefix, layer = row.rsplit(".", 1)
    return f"layer {layer}" if len(prefixes) == 1 else f"{prefix.split('.')[0]} {layer}"


def _norm_cell(name: str | None, norms: dict[str, float], most: float, picked: str) -> str:
    if name is None:
        return "<td></td>"
    share = norms[name] / most
    colour = f"background:color-mix(in srgb, {PALETTE['ΔW']} {round(12 + 80 * share)}%, transparent)"
    ink = "light" if share > 0.85 else ""
    on = " on" if name == picked else ""
    return (
        f'<td><button class="lab-cell {ink}{on}" style="{colour}" data-pick="{escape(name)}"'
        f' title="{escape(name)}" aria-pressed="{str(bool(on)).lower()}">{norms[name]:.3g}</button></td>'
    )


def rank_table(table: RankTable) -> str:
    """Mean score ± sd over seeds, a row a configuration, a column a rank; the gap where nothing was measured.

    A method without rank has one cell over all columns.
    """
    if not any(cell for _, cells in table.rows for cell in cells):
        return '<div class="lab-s">The first run that ends is the first cell of this table.</div>'
    head = "".join(f"<th>r {r}</th>" for r in table.ranks) or "<th>no rank</th>"
    body = "".join(_rank_row(spec, cells, table) for spec, cells in table.rows)
    return f'<div class="lab-wide"><table class="lab-table" id="rank-table"><tr><th>adapter</th>{head}</tr>{body}</table></div>'


def _rank_row(spec: RunSpec, cells: Sequence[Cell | None], table: RankTable) -> str:
    name, *details = [*row_label(spec, alpha_by_rank=table.alpha_by_rank).split(" · "), *filter(None, [r_meaning(spec)])]
    swatch = f'<i class="lab-swatch" style="background:{run_colour(spec.tuning.method, 8)}"></i>'
    label = f"<td>{swatch}<b>{escape(name)}</b> <small>{escape(' · '.join(details))}</small></td>"
    if spec.tuning.has_r:
        return f"<tr>{label}{''.join(f'<td>{_cell_text(cell, table.metric)}</td>' for cell in cells)}</tr>"
    no_rank = "<small>without a rank:</small> " if table.ranks else ""
    return (
        f'<tr>{label}<td class="wide" colspan="{max(len(table.ranks), 1)}">{no_rank}{_cell_text(cells[0], table.metric)}</td></tr>'
    )


def _cell_text(cell: Cell | None, metric: Metric) -> str:
    if cell is None:
        return ""
    spread = f" ± {metric.text(cell.sd)}" if cell.sd is not None else ""
    return f'{metric.text(cell.mean)}{spread} <small title="seeds">({cell.seeds})</small>'


def runs_table(rows: Iterable[Sequence[str]], links: Iterable[str]) -> str:
    """A row a run, its id a link to look inside where there is one."""
    titles = (
        "run",
        "method",
        "r",
        "α",
        "targets",
        "lr",
        "seed",
        "trainable",
        "peak memory",
        "score",
        "loss (nats)",
        "status",
        "",
    )
    head = "".join(f"<th>{title}</th>" for title in titles)
    body = ""
    for row, link in zip(rows, links, strict=True):
        name, *rest = (escape(text) for text in row)
        opened = f'<a class="lab-link" href="{link}" title="look inside">{name}</a>' if link else name
        body += f"<tr><td>{opened}</td>{''.join(f'<td>{text}</td>' for text in rest)}</tr>"
    if not body:
        return '<div class="lab-s">No run is kept yet: press Start.</div>'
    return f'<div class="lab-scroll"><table class="lab-table" id="runs-table"><tr>{head}</tr>{body}</table></div>'


def chain_rule_table(states: Sequence[tuple[str, ChainRule]]) -> str:
    """Both products with their shapes and what autograd measured, a column a state of the same run."""
    if not states:
        return ""
    one = states[0][1]
    a, b, g = (f'<b style="color:{PALETTE[side]}">{name}</b>' for side, name in (("A", "A"), ("B", "B"), ("W0", "G")))
    shapes = {"out r": f"{one.d_out} × {one.r}", "r in": f"{one.r} × {one.d_in}", "out in": f"{one.d_out} × {one.d_in}"}
    small = {key: f"<small>({text})</small>" for key, text in shapes.items()}
    turned = f"<small>({one.d_in} × {one.r})</small>", f"<small>({one.r} × {one.d_out})</small>"
    rows = (
        (f"{g} = ∂L/∂W {small['out in']}", [record.grad_norm_w for _, record in states]),
        (f"∂L/∂{b} {small['out r']} = s · {g} {small['out in']} · {a}ᵀ {turned[0]}", [r.grad_norm_b for _, r in states]),
        (f"∂L/∂{a} {small['r in']} = s · {b}ᵀ {turned[1]} · {g} {small['out in']}", [r.grad_norm_a for _, r in states]),
    )
    head = "".join(f"<th>norm {escape(when)}</th>" for when, _ in states)
    body = "".join(f"<tr><td>{rule}</td>{''.join(f'<td>{norm:.3g}</td>' for norm in norms)}</tr>" for rule, norms in rows)
    title = f"{escape(label_of(one.name))}, s = {one.scaling:g}"
    table = f'<table class="lab-table lab-rule" id="rule-table"><tr><th>{title}</th>{head}</tr>{body}</table>'
    return f'<div class="lab-wide">{table}</div>'


def merge_table(report: MergeReport) -> str:
    """Score and how far the logits are from those of the run as it was trained, a row a way to merge."""

    def shown(score: float | None) -> str:
        return "" if score is None else METRICS[report.metric].text(score)

    rows = [("as trained", "", shown(report.score))]
    rows += [(merge_way(way), small_share(way.difference) or "not to be had", shown(way.score)) for way in report.ways]
    if report.unquantized:
        rows.append(
            ("on the base before it was quantized", small_share(report.unquantized.difference), shown(report.unquantized.score))
        )
    body = "".join("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in rows)
    head = f"<tr><th></th><th>logits differ by</th><th>{METRICS[report.metric].label} on {report.rows}</th></tr>"
    return f'<div class="lab-wide"><table class="lab-table" id="merge-table">{head}{body}</table></div>'


def job_status(job: Job | None) -> str:
    """Steps done, time left, or how it ended."""
    if job is None:
        return ""
    bar = f'<div class="lab-bar"><i style="width:{job.share_done:.1%}"></i></div>'
    said = {
        "waiting": "Waiting for another sweep to end…",
        "running": "" if job.steps_done else "Measuring the base…" if job.events_seen else "Starting the workers…",
        "stopping": "Stopping: every run in hand keeps what it has learned.",
        "finished": "Done.",
        "stopped": "Stopped. What was learned is kept.",
        "failed": "",
    }[job.state]
    left = f" · {seconds(job.time_left_s)} left" if job.state == "running" and job.time_left_s is not None else ""
    progress = f"step {job.steps_done:,} of {job.total_steps:,}{left}"
    error = say(job.message, kind="error") if job.message else ""
    return f'<div class="lab-status" data-state="{job.state}">{bar}<span>{progress}</span> <span>{said}</span></div>{error}'


_PLACES = (("Budget", "./budget"), ("Train", "./"), ("Look", "./look"))
_ROOMS = {"Train": (("Sweep", "./"), ("Methods", "./methods"), ("Latency", "./latency"), ("Try it", "./try"))}


def header(place: str, query: str, *, device: str, room: str = "") -> str:
    """Name, places, the rooms of this place, device. Its script writes the query into the address."""
    tail = f"?{query}" if query else ""
    rooms = f'<nav class="lab-rooms" aria-label="{place}">{_links(_ROOMS[place], room, tail)}</nav>' if place in _ROOMS else ""
    return (
        f'<div class="lab-header" data-query="{escape(tail)}"><b>LoRA Lab</b><nav>{_links(_PLACES, place, tail)}</nav>{rooms}'
        f'<div class="lab-right"><span class="lab-chip">{escape(device)}</span>'
        '<button class="lab-chip" data-act="share" title="copy the address of what you see">share</button>'
        '<button class="lab-chip" data-act="theme" title="light or dark" aria-label="light or dark">◐</button></div></div>'
    )


def _links(places: Sequence[tuple[str, str]], here: str, tail: str) -> str:
    on = " class=on aria-current=page"
    return "".join(f'<a href="{path}{escape(tail)}"{on if name == here else ""}>{name}</a>' for name, path in places)


HEADER_JS = """
const sync = () => {
  const bar = element.querySelector('.lab-header');
  if (bar) history.replaceState(null, '', location.pathname + bar.dataset.query + location.hash);
};
watch('value', sync);
const kept = localStorage.getItem('lora-lab-theme');
if (kept) document.body.classList.toggle('dark', kept === 'dark');
element.addEventListener('click', (e) => {
  const act = e.target.closest('[data-act]')?.dataset.act;
  if (act === 'theme') {
    const dark = document.body.classList.toggle('dark');
    localStorage.setItem('lora-lab-theme', dark ? 'dark' : 'light');
  }
  if (act === 'share') {
    if (navigator.clipboard) {
      navigator.clipboard.writeText(location.href);
      e.target.textContent = 'copied';
      setTimeout(() => { e.target.textContent = 'share'; }, 1200);
    } else {
      prompt('The address of what you see:', location.href);
    }
  }
});
"""


def geometry_note(geometry: Geometry) -> str:
    """How many blocks the drawing stands for."""
    layers = {m.layer for m in geometry.matrices if m.layer is not None}
    return f"one of {len(layers)} blocks, drawn to scale; click to adapt" if layers else ""
