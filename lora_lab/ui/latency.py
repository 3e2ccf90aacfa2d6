"""Latency: what an adapter costs in time, merged, beside the base, and in sequence."""

from collections.abc import Iterator
from dataclasses import replace
from html import escape
from typing import Any

import gradio as gr

from lora_lab.analysis.timings import Latency, Shape, parse_shape
from lora_lab.benches import BENCH_NAMES, find_bench
from lora_lab.budget.paper import table_1
from lora_lab.errors import LabError, SpecError
from lora_lab.inference import (
    Subject,
    default_shapes,
    differences_of_random,
    differences_of_run,
    find_subject,
    latency_by_shape,
    measure_switching,
)
from lora_lab.plots import labels_of, latency_caption, latency_ratios, logits_caption, on_a_gpu, switching_caption
from lora_lab.plots.choices import RANKS
from lora_lab.specs import LORA_KIN
from lora_lab.sweeps import Run
from lora_lab.ui import html, latency_html
from lora_lab.ui.errors import user_errors, user_errors_streaming
from lora_lab.ui.place import MEASURES, Place
from lora_lab.ui.selection import Selection
from lora_lab.ui.zero import runs_inline

REPEATS = (10, 20, 50, 100)
_TEXTS = tuple(map(parse_shape, ("1x32", "1x128", "1x256", "4x128", "8x128", "32x128")))
_IMAGES = tuple(map(parse_shape, ("1", "8", "64", "256")))
_PUBLIC_REPEATS, _PUBLIC_SHAPES, _PUBLIC_TOKENS = 20, 3, 1024


class LatencyView(Place):
    """A bench and shapes on the left, times on the right."""

    name, room = "Train", "Latency"

    def _build_controls(self) -> None:
        chips: dict[str, Any] = {"elem_classes": "lab-chips"}
        benches = [(name.replace("digits:", "digits · "), name) for name in BENCH_NAMES]
        benches[0] = ("digits · turned", "digits")
        gr.HTML(html.question("Does the adapter cost time?", "one forward pass of the base, and of what adapts it, in turn"))
        self.bench = gr.Radio(benches, value="digits", label="Bench", elem_id="bench", **chips)
        self.about = gr.HTML()
        self.r = gr.Radio(list(RANKS), value=8, label="r: rank, bottleneck width, prefix tokens", elem_id="r", **chips)
        self.shapes = gr.CheckboxGroup([], label="Batch × tokens", elem_id="shapes", **chips)
        self.repeats = gr.Radio(list(REPEATS), value=20, label="Rounds", elem_id="repeats", **chips)
        self.run = gr.Dropdown([], label="Adapter to merge", elem_id="merged-run")
        self.plan = gr.HTML(elem_id="plan")
        self.measure = gr.Button("Measure", variant="primary", elem_classes="lab-go", elem_id="measure")

    def _build_answers(self) -> None:
        with gr.Column(elem_classes="lab-card"):
            subtitle = "time over the base's in the same round; a bar that crosses 1 (99 %) tells nothing"
            gr.HTML(html.question("Does the adapter cost time?", subtitle))
            self.plot = gr.Plot(show_label=False, elem_classes="lab-plot", elem_id="latency-plot", visible=False)
            self.says = gr.HTML(html.say(_UNMEASURED), elem_id="latency-says")
            self.table = gr.HTML(elem_id="latency-times")
        with gr.Row(elem_classes="lab-cards"):
            with gr.Column(elem_classes="lab-card"):
                subtitle = "logits of the merged model against those with the adapter beside the base"
                gr.HTML(html.question("Does merging change the answers?", subtitle))
                self.logits = gr.HTML(elem_id="logits")
            with gr.Column(elem_classes="lab-card"):
                subtitle = "until another task's first answer is there; random adapters"
                gr.HTML(html.question("What does switching cost?", subtitle))
                self.switching = gr.HTML(elem_id="switching")
        with gr.Row(elem_classes="lab-cards"):
            with gr.Column(elem_classes="lab-card"):
                subtitle = "Table 1: ms by batch × tokens, GPT-2 medium on a Quadro RTX 8000, mean ± sd of 100 trials"
                gr.HTML(html.question("What does the paper have?", subtitle))
                gr.HTML(latency_html.paper_table(table_1()))
            with gr.Column(elem_classes="lab-card"):
                gr.HTML(html.question("What does this say about a GPU?", "and what it does not"))
                self.gpu = gr.HTML(elem_id="gpu")

    def _wire(self, page: gr.Blocks) -> None:
        controls = [self.bench, self.r, self.shapes, self.repeats, self.run]
        told = [self.selection, self.header, *controls, self.about, self.plan, self.measure]
        answers = [self.plot, self.says, self.table, self.gpu, self.logits, self.switching]
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        page.load(self.restore, None, told, **quiet)
        self.bench.input(self.choose_bench, [self.bench, self.selection], [*told, *answers], **quiet)
        for control in controls[1:]:
            control.input(self.choose, [self.selection, *controls], told, trigger_mode="always_last", **quiet)
        measured = {"concurrency_limit": 1, "concurrency_id": MEASURES, "show_progress": "minimal", "api_name": "latency"}
        self.measure.click(self.run_all, self.selection, answers, **measured)

    # Handlers.

    @user_errors
    def restore(self, request: gr.Request) -> list[Any]:
        """What the address names."""
        return self.show(Selection.from_query(dict(request.query_params)))

    @user_errors
    def choose_bench(self, bench: str, selection: Selection) -> list[Any]:
        """Another bench has shapes of its own, and nothing is measured of it yet."""
        shown = self.show(replace(selection, bench=bench, shapes=(), run=""))
        return [*shown, gr.Plot(visible=False), html.say(_UNMEASURED), "", "", "", ""]

    @user_errors
    def choose(self, selection: Selection, bench: str, r: int, shapes: list[str], repeats: int, run: str) -> list[Any]:
        """Any other control moved."""
        chosen = tuple(shapes)
        return self.show(replace(selection, bench=bench, rank=r, shapes=chosen, repeats=repeats, run=run or ""))

    def show(self, selection: Selection) -> list[Any]:
        """The controls, and what would be measured."""
        selection = self._offered(selection)
        bench = find_bench(selection.bench)
        try:
            bench.prepare(notify=gr.Info)
            offered, own = self._shapes(selection.bench)
        except LabError as err:
            offered, own = (), ()
            plan, ready = html.say(str(err), kind="error"), False
        else:
            plan, ready = "", True
        known = {_typed(shape): shape for shape in offered}
        chosen = tuple(text for text in selection.shapes if text in known)
        selection = replace(selection, shapes=chosen)
        runs = self._runs(selection)
        labels = labels_of([run.spec for run in runs])
        random = (f"a random LoRA of r = {selection.rank}", "")
        choices = [random, *((label, run.run_id) for label, run in zip(labels, runs, strict=True))]
        picked = selection.run if any(run.run_id == selection.run for run in runs) else ""
        return [
            selection,
            self.header_of(selection),
            selection.bench,
            selection.rank,
            gr.CheckboxGroup(
                choices=[(shape.label.removeprefix("batch "), text) for text, shape in known.items()],
                value=list(chosen or map(_typed, own)),
                label="Batch × tokens" if any(shape.tokens for shape in offered) else "Batch sizes",
            ),
            selection.repeats,
            gr.Dropdown(choices=choices, value=picked, visible=len(choices) > 1),
            html.about(bench),
            plan,
            gr.Button(interactive=ready),
        ]

    @user_errors_streaming
    def run_all(self, selection: Selection) -> Iterator[list[Any]]:
        """Times shape by shape, then logits, then switching, each shown when it is there."""
        selection = self._offered(selection)
        shapes = tuple(map(parse_shape, selection.shapes)) or self._shapes(selection.bench)[1]
        if self.lab.public:
            check_public(shapes, selection.repeats)
        device = "cpu" if runs_inline() else self.lab.device
        subject = find_subject(selection.bench)
        for record in latency_by_shape(subject, shapes, r=selection.rank, repeats=selection.repeats, device=device):
            yield [*_times(record), gr.skip(), gr.skip()]
        kept = [gr.skip()] * 4
        yield [*kept, self._logits(subject, selection), gr.skip()]
        yield [*kept, gr.skip(), _switching(subject, selection.rank, device)]

    # What the handlers share.

    def _offered(self, selection: Selection) -> Selection:
        """An address may name what the page does not offer: that falls back to the default."""
        default = Selection()
        return replace(
            selection,
            bench=selection.bench if selection.bench in BENCH_NAMES else default.bench,
            rank=selection.rank if selection.rank in RANKS else default.rank,
            repeats=selection.repeats if selection.repeats in REPEATS else default.repeats,
        )

    def _shapes(self, bench: str) -> tuple[tuple[Shape, ...], tuple[Shape, ...]]:
        """(what is offered for a bench, what is chosen where nothing else is)."""
        own = default_shapes(self.lab.geometry(find_bench(bench)))
        return (_IMAGES if own[0].tokens is None else _TEXTS), own

    def _runs(self, selection: Selection) -> list[Run]:
        """Finished runs of the bench whose adapter merges into the base as it is."""
        runs = [run for run in self.lab.visible_runs(selection.job) if run.spec.bench == selection.bench and run.is_complete]
        return [run for run in runs if run.spec.quant == "none" and _merges(run)]

    def _logits(self, subject: Subject, selection: Selection) -> str:
        run = next((run for run in self._runs(selection) if run.run_id == selection.run), None)
        try:
            if run is not None:
                record = differences_of_run(subject, run.spec, run.adapter_dir)
            else:
                record = differences_of_random(subject, r=selection.rank)
        except LabError as err:
            return html.say(str(err))
        return latency_html.logits_table(record) + html.say(logits_caption(record))


_UNMEASURED = "Nothing is measured yet. Measure takes seconds on the digits, a minute on a larger base."


def check_public(shapes: tuple[Shape, ...], repeats: int) -> None:
    """Refuse what takes too long on a shared machine.

    Raises:
        SpecError: more than 20 rounds, 3 shapes, or 1,024 tokens or images in one.
    """
    bounds = (
        ("rounds", _PUBLIC_REPEATS, repeats),
        ("shapes", _PUBLIC_SHAPES, len(shapes)),
        ("tokens or images in a batch", _PUBLIC_TOKENS, max(shape.size for shape in shapes)),
    )
    for what, most, got in bounds:
        if got > most:
            raise SpecError(f"A measurement on this public page must have at most {most:,} {what}. Got {got:,}.")


def _times(record: Latency) -> list[Any]:
    """Plot, caption, table, and what it says about a GPU."""
    gpu = "".join(f"<p>{escape(sentence)}</p>" for sentence in on_a_gpu(record))
    plot = gr.Plot(value=latency_ratios(record, table_1()), visible=True)
    return [plot, html.say(latency_caption(record)), latency_html.latency_table(record), f'<div class="lab-prose">{gpu}</div>']


def _switching(subject: Subject, r: int, device: str | None) -> str:
    try:
        record = measure_switching(subject, r=r, device=device)
    except LabError as err:
        return html.say(str(err))
    return latency_html.switching_table(record) + html.say(switching_caption(record))


def _merges(run: Run) -> bool:
    return run.spec.tuning.method in LORA_KIN and not run.spec.tuning.virtual_tokens


def _typed(shape: Shape) -> str:
    return str(shape.batch) if shape.tokens is None else f"{shape.batch}x{shape.tokens}"
