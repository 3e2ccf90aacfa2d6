"""The tables of Latency."""

from collections.abc import Iterable, Sequence
from html import escape

from lora_lab.analysis.timings import Latency, LogitDifferences, Spread, Switching, Timing
from lora_lab.budget.paper import PaperLatency
from lora_lab.plots import PALETTE, refusals, run_colour, small_share, variant_label
from lora_lab.units import file_size, mean_ms, short_time

_WAYS = {
    "resident": "another adapter, in memory",
    "adapter file": "another adapter, from its file",
    "model file": "another model, from its file",
}


def _table(name: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells are HTML."""
    top = "".join(f"<th>{title}</th>" for title in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="lab-wide"><table class="lab-table" id="{name}"><tr>{top}</tr>{body}</table></div>'


def latency_table(record: Latency) -> str:
    """A row a variant, a column a shape: the median, and how many times the base's it is."""
    head = ["", *(at.shape.label for at in record.shapes)]
    rows = [[_named(name, record.r), *(_timed(at.of(name)) for at in record.shapes)] for name in record.names]
    return _table("latency-table", head, rows) + _machine(record) + _refused(record)


def _named(name: str, r: int) -> str:
    colour = {"base": PALETTE["W0"], "merged": PALETTE["ΔW"]}.get(name) or run_colour(name, 1 if name == "lora" else r)
    return f'<i class="lab-swatch" style="background:{colour}"></i>{escape(variant_label(name))}'


def _timed(timing: Timing | None) -> str:
    if timing is None:
        return ""
    return _half(timing.seconds) + _times(timing)


def _times(timing: Timing) -> str:
    """The ratio: heavy where it can be told from 1."""
    if timing.ratio is None:
        return ""
    ratio = f"× {timing.ratio.median:.3f}"
    if timing.told is None:
        return f" <small>{ratio}</small>"
    bound = f"99 %: {timing.ratio.low:.3f} to {timing.ratio.high:.3f}"
    shown = f"<b>{ratio}</b>" if timing.told else f"<small>{ratio}</small>"
    return f' <span title="{bound}, {"told" if timing.told else "not told"} from the base">{shown}</span>'


def _machine(record: Latency) -> str:
    rounds = record.shapes[0].timings[0].seconds.rounds if record.shapes else 0
    threads = f", {record.threads} thread{'s' if record.threads > 1 else ''}" if record.device == "cpu" else ""
    said = f"median of {rounds} rounds, and its ratio to the base, bold where 99 % of it leaves out 1; {record.device}{threads}, "
    return f'<div class="lab-s">{escape(f"{said}{record.dtype}")}</div>'


def _refused(record: Latency) -> str:
    return "".join(f'<div class="lab-s">{escape(sentence)}</div>' for sentence in refusals(record))


def logits_table(record: LogitDifferences) -> str:
    """A row a precision: the largest difference, and what it is of the largest logit."""
    rows = [
        [
            way.dtype,
            escape(way.why) if way.difference is None else f"{way.difference:.3g}",
            "" if way.largest_logit is None else f"{way.largest_logit:.4g}",
            small_share(way.relative),
        ]
        for way in record.ways
    ]
    said = f'<div class="lab-s">{escape(f"{record.adapter}; {record.examples}")}</div>'
    return said + _table("logits-table", ("computed in", "largest difference", "largest logit", "share"), rows)


def switching_table(record: Switching) -> str:
    """A row a way to change the task: when the first answer is there, and what is read for it."""
    rows = [["no change: the answer alone", _half(record.answer), ""]]
    rows += [[_WAYS[way.name], _half(way.seconds), file_size(way.read_bytes) if way.read_bytes else ""] for way in record.ways]
    said = f'<div class="lab-s">{escape(record.adapter)}; a batch of one</div>'
    return said + _table("switching-table", ("to another task by", "first answer after", "read"), rows)


def _half(s: Spread) -> str:
    return f'<span title="half of {s.rounds} rounds: {short_time(s.q1)} to {short_time(s.q3)}">{short_time(s.median)}</span>'


def paper_table(paper: Sequence[PaperLatency]) -> str:
    """Table 1 as it is printed, in ms, with the ratios."""
    head = ["", *(f"{one.batch} × {one.tokens}" for one in paper)]
    names = {"base": "Fine-tuning or merged LoRA", "adapter_pfeiffer": "Adapter (Lin)", "adapter": "Adapter (Houlsby)"}
    rows = [[label, *(_printed(one, name) for one in paper)] for name, label in names.items()]
    params = ["<small>adapters of</small>", *(f"<small>{escape(one.adapter_params)} parameters</small>" for one in paper)]
    return _table("paper-table", head, [*rows, params])


def _printed(one: PaperLatency, name: str) -> str:
    ratio = "" if name == "base" else f"<br><small>× {one.ratio(name):.3f}</small>"
    return mean_ms(*one.seconds[name]) + ratio
