"""What an adapter costs in time: its forward pass over the base's, and the sentences beside it."""

import math
from collections.abc import Iterable, Sequence

import plotly.graph_objects as go

from lora_lab.analysis.timings import Latency, LogitDifferences, Shape, Spread, Switching, Timing
from lora_lab.budget.paper import PaperLatency
from lora_lab.plots.captions import small_share
from lora_lab.plots.theme import PALETTE, figure, nothing_yet, run_colour
from lora_lab.specs import METHODS
from lora_lab.units import file_size, percent, short_time

_APART = 0.15  # of a shape's place on the axis, between variants
_NAMED = {"base": "Base", "merged": "LoRA, merged", "lora": "LoRA, beside the base"}
_SAID = {
    "merged": "merged LoRA",
    "lora": "LoRA beside the base",
    "adapter": "the Houlsby adapter",
    "adapter_pfeiffer": "the Pfeiffer adapter",
    "prefix": "the prefix",
}
_WAYS = {"resident": "Another adapter in memory", "adapter file": "one from its file", "model file": "another model from its file"}
_OVERHEAD = 0.5  # the time grows by less than this share of the work: much of a small pass is not arithmetic


def variant_label(name: str) -> str:
    """A variant as a legend names it."""
    return _NAMED.get(name) or METHODS[name].label


def latency_ratios(record: Latency, paper: Sequence[PaperLatency] = ()) -> go.Figure:
    """Time of each variant over the base's in the same round, by shape; a bar holds the median at 99 %, hollow is the paper's."""
    fig = figure(x="batch × tokens" if _has_tokens(record) else "batch size, × tokens", y="time ÷ the base's time", height_px=340)
    names = [name for name in record.names if name != "base"]
    if not names:
        return nothing_yet(fig, "Nothing was measured.")
    places = list(dict.fromkeys([*(at.shape for at in record.shapes), *(Shape(one.batch, one.tokens) for one in paper)]))
    for i, name in enumerate(names):
        _measured(fig, record, name, places, _APART * (i - (len(names) - 1) / 2))
    _printed(fig, paper, places, {name: _APART * (i - (len(names) - 1) / 2) for i, name in enumerate(names)}, record.r)
    fig.add_hline(1, line={"color": PALETTE["W0"], "width": 1.2})
    fig.update_yaxes(range=_range(fig))
    ticks = {"tickmode": "array", "tickvals": list(range(len(places))), "ticktext": [_tick(shape) for shape in places]}
    return fig.update_xaxes(**ticks, tickangle=0, automargin=True, title_standoff=8, range=[-0.6, len(places) - 0.4])


def _tick(shape: Shape) -> str:
    return str(shape.batch) if shape.tokens is None else f"{shape.batch}<br>× {shape.tokens}"


def _range(fig: go.Figure) -> list[float]:
    """Every point, and of bars as much as leaves the points apart: a bar of a machine that was busy may go beyond the plot."""
    points = [y for trace in fig.data for y in trace.y]
    reach = 1.5 * max(max(points) - 1, 1 - min(points), 0.05)
    bars = [(y + (up or 0), y - (down or 0)) for trace in fig.data if trace.error_y.array for y, up, down in _bars(trace)]
    high, low = max([*points, *(high for high, _ in bars)]), min([*points, *(low for _, low in bars), 1])
    return [max(low, min(points) - reach) - 0.03, min(high, max(points) + reach) + 0.03]


def _bars(trace: go.Scatter) -> Iterable[tuple[float, float | None, float | None]]:
    return zip(trace.y, trace.error_y.array, trace.error_y.arrayminus, strict=True)


def _measured(fig: go.Figure, record: Latency, name: str, places: list[Shape], offset: float) -> None:
    found = [(at.shape, timing) for at in record.shapes if (timing := at.of(name)) and timing.ratio]
    ratios = [timing.ratio for _, timing in found if timing.ratio]
    fig.add_scatter(
        x=[places.index(shape) + offset for shape, _ in found],
        y=[ratio.median for ratio in ratios],
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [None if ratio.high is None else ratio.high - ratio.median for ratio in ratios],
            "arrayminus": [None if ratio.low is None else ratio.median - ratio.low for ratio in ratios],
            "width": 3,
            "thickness": 1.4,
        },
        name=variant_label(name),
        meta=name,
        mode="markers",
        marker={"size": 9, "color": _colour(name, record.r), "symbol": "diamond" if name == "merged" else "circle"},
        customdata=[_hover(name, shape, timing) for shape, timing in found],
        hovertemplate="%{customdata}<extra></extra>",
    )


def _printed(fig: go.Figure, paper: Sequence[PaperLatency], places: list[Shape], offsets: dict[str, float], r: int) -> None:
    for first, name in enumerate(name for name in ("adapter_pfeiffer", "adapter") if paper):
        fig.add_scatter(
            x=[places.index(Shape(one.batch, one.tokens)) + offsets.get(name, 0.0) for one in paper],
            y=[one.ratio(name) for one in paper],
            name="hollow: the paper, GPT-2 medium on a GPU",
            meta=f"paper {name}",
            legendgroup="paper",
            showlegend=not first,
            mode="markers",
            marker={"size": 10, "color": _colour(name, r), "symbol": "circle-open", "line": {"width": 2}},
            customdata=[f"{one.batch} × {one.tokens}, adapters of {one.adapter_params}" for one in paper],
            hovertemplate=f"the paper, {variant_label(name)}<br>%{{customdata}}: %{{y:.3f}} times the base's<extra></extra>",
        )


def _hover(name: str, shape: Shape, timing: Timing) -> str:
    s, ratio = timing.seconds, timing.ratio
    lines = [f"{variant_label(name)}, {shape.label}", f"{short_time(s.median)}, half of the rounds {_span(s.q1, s.q3)}"]
    if ratio is not None:
        bound = "" if ratio.low is None or ratio.high is None else f" (99 %: {ratio.low:.3f} to {ratio.high:.3f})"
        lines.append(f"{ratio.median:.3f} times the base's{bound}")
    return "<br>".join(lines)


def _span(low_s: float, high_s: float) -> str:
    return f"{short_time(low_s)} to {short_time(high_s)}"


def _colour(name: str, r: int) -> str:
    return PALETTE["ΔW"] if name == "merged" else run_colour(name, 1 if name == "lora" else r)


def _has_tokens(record: Latency) -> bool:
    return any(at.shape.tokens is not None for at in record.shapes)


def refusals(record: Latency) -> tuple[str, ...]:
    """What was not timed and why, each reason once."""
    by_reason: dict[str, list[str]] = {}
    for one in record.refused:
        by_reason.setdefault(one.why, []).append(variant_label(one.name))
    return tuple(why if why.startswith(names[0]) else f"{_listed(names)}: {why}" for why, names in by_reason.items())


def latency_caption(record: Latency) -> str:
    """Which variants can be told from the base, and where each surely costs most, with the bounds at 99 %."""
    by_name = {name: _timings(record, name) for name in record.names if name != "base"}
    if not any(timing.told is not None for found in by_name.values() for _, timing in found):
        return "With fewer than 8 rounds nothing can be told from the base." if by_name else ""
    hidden = [name for name, found in by_name.items() if not any(timing.told for _, timing in found)]
    shown = [_most(name, found) for name, found in by_name.items() if name not in hidden]
    parts = [f"{_listed([_SAID[name] for name in hidden])} cannot be told from the base"] if hidden else []
    text = "; ".join([*parts, *shown])
    graph = " Merged, it is the base's own graph: what shows there is the machine." if "merged" not in hidden else ""
    return f"{text[0].upper()}{text[1:]}.{graph if 'merged' in by_name else ''}"


def _timings(record: Latency, name: str) -> list[tuple[Shape, Timing]]:
    return [(at.shape, timing) for at in record.shapes if (timing := at.of(name))]


def _most(name: str, found: list[tuple[Shape, Timing]]) -> str:
    """The shape where the variant is surely furthest from the base, with the bounds."""
    told = [(shape, timing.ratio) for shape, timing in found if timing.told and timing.ratio]
    shape, ratio = max(told, key=lambda one: _surely(one[1]))
    assert ratio.low is not None
    assert ratio.high is not None
    longer = ratio.low > 1
    bounds = (ratio.low - 1, ratio.high - 1) if longer else (1 - ratio.high, 1 - ratio.low)
    between = f"{_share(bounds[0])} to {_share(bounds[1])}"
    return f"{_SAID[name]} takes {_share(abs(ratio.median - 1))} {'longer' if longer else 'less'} at {shape.label} ({between})"


def _surely(ratio: Spread) -> float:
    """How far from 1 the nearer end of the interval is."""
    return min(abs(math.log(bound)) for bound in (ratio.low, ratio.high) if bound)


def _share(share: float) -> str:
    return percent(share, 0 if share >= 0.1 else 1)


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def on_a_gpu(record: Latency) -> tuple[str, ...]:
    """What the figures do and do not say about a GPU, a sentence each."""
    said = [
        "Merged, LoRA is the base's own graph, module for module and shape for shape: it costs nothing more on any device, and "
        "what is measured of it here is how well this machine repeats itself."
    ]
    if record.device != "cpu":
        return (*said, f"These are times of {record.device}, not of the paper's card: another card gives another share.")
    return (
        *said,
        _growth(record),
        "On a GPU a small batch waits for one kernel after another to start, so layers in sequence cost another share there than "
        "on this CPU, the more the smaller the batch, as the paper's columns show; no GPU was measured, so none is given.",
    )


def _growth(record: Latency) -> str:
    """How the base's time grows with the work, and what that says."""
    ordered = sorted(record.shapes, key=lambda at: at.shape.size)
    small, large = ordered[0], ordered[-1]
    first, last = small.of("base"), large.of("base")
    if first is None or last is None or small.shape.size == large.shape.size:
        return "On this CPU the threads share memory and caches with whatever else runs."
    work, time = large.shape.size / small.shape.size, last.seconds.median / first.seconds.median
    bound = "much of a small pass is not arithmetic" if time < _OVERHEAD * work else "even a small pass is mostly arithmetic"
    return (
        f"From {small.shape.label} to {large.shape.label} the input grows {work:.3g} times and the base's time {time:.2g}: {bound}."
    )


def logits_caption(record: LogitDifferences) -> str:
    """How far merging moves a logit in each precision, as a share of the largest."""
    found = [f"{small_share(way.relative)} in {way.dtype}" for way in record.ways if way.relative is not None]
    if not found:
        return ""
    return f"Merging moves a logit by at most {_listed(found)} of the largest one: the same number, rounded in other places."


def switching_caption(record: Switching) -> str:
    """When each way has its first answer, what it reads, and the paper's footnote with these files."""
    ways = [f"{_WAYS[way.name]}{_read(way.read_bytes)} answers after {short_time(way.seconds.median)}" for way in record.ways]
    alone = f"{', '.join(ways)}; the answer alone takes {short_time(record.answer.median)}."
    share = f"{record.model_bytes / record.adapter_bytes:,.0f} times as many bytes"
    tasks = f"{record.tasks} tasks take {file_size(record.as_models_bytes)} as models and {file_size(record.as_adapters_bytes)}"
    cached = f"Both files came from the operating system's cache; from a disk or a network the model is {share} to read."
    return f"{alone} {cached} {tasks} as one model with {record.tasks} adapters."


def _read(size_bytes: int) -> str:
    return f" ({file_size(size_bytes)})" if size_bytes else ""
