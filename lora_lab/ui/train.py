"""Train: choose a grid, see what it costs, start it, watch it learn."""

from collections.abc import Iterator
from dataclasses import replace
from html import escape
from typing import Any, get_args

import gradio as gr

from lora_lab.benches import BENCH_NAMES, Bench, find_bench
from lora_lab.benches.digits import VARIANTS
from lora_lab.errors import LabError
from lora_lab.geometry import Geometry
from lora_lab.plots import curve_lines, loss_curves, questions, reach_caption, reach_curve, row_label, score_curves, spectrum
from lora_lab.plots.block_drawing import block_drawing, block_note
from lora_lab.plots.choices import RANKS, SEEDS
from lora_lab.plots.lines import live_spectrum_lines
from lora_lab.plots.rank_table import rank_table_html
from lora_lab.plots.sweep_captions import learned_caption
from lora_lab.roles import matrix_label
from lora_lab.specs import METHODS, RunSpec, Task
from lora_lab.sweeps import RunProgress, expand
from lora_lab.sweeps.limits import check_public
from lora_lab.sweeps.progress import adapted_matrices, most_adapted
from lora_lab.sweeps.sentences import plan_sentence, start_label
from lora_lab.sweeps.summary import base_name, best_run, rank_table
from lora_lab.ui import data_card, html, own_data
from lora_lab.ui.data_card import DataCard
from lora_lab.ui.errors import user_errors, user_errors_streaming
from lora_lab.ui.grid import (
    OPTIMIZERS,
    QUANTS,
    STARTS,
    costs,
    default_steps,
    drawn_targets,
    grid_of,
    offered,
    targets_note,
)
from lora_lab.ui.job_place import JobPlace
from lora_lab.ui.own_data import OwnData
from lora_lab.ui.place import MEASURES
from lora_lab.ui.selection import ALPHAS, Selection
from lora_lab.ui.train_cards import (
    controls,
    gradient_card,
    reached,
    runs_card,
    shape_label,
    square_and_rectangle,
)

_TICK_S = 0.6
_MOST_SHOWN = 24  # runs of the store beside each other; Look opens any of them


class TrainView(JobPlace):
    """Which grid to train on the left, how it learns on the right."""

    name, room = "Train", "Sweep"

    def _build_controls(self) -> None:
        benches = [(name.replace("digits:", "digits · "), name) for name in BENCH_NAMES]
        benches[0] = ("digits · turned", "digits")
        own = [] if self.lab.public else [("yours…", "yours")]
        self.bench = gr.Radio([*benches, *own], value="digits", label="Bench", elem_classes="lab-chips", elem_id="bench")
        self.about = gr.HTML()
        self.own = OwnData()
        labels = [(info.label, name) for name, info in METHODS.items()]
        self.methods = gr.Dropdown(labels, value=["lora"], multiselect=True, label="Methods", elem_id="methods")
        self.ranks = gr.CheckboxGroup(list(RANKS), value=[1, 2, 4, 8], label="Ranks r", elem_classes="lab-chips", elem_id="ranks")
        self.alpha = gr.Radio(list(ALPHAS), value="16", label="Scaling numerator α", elem_classes="lab-chips", elem_id="alpha")
        self.targets_title = gr.HTML()
        self.block = gr.HTML(js_on_load=html.PICK_JS, elem_id="block")
        self.counts = gr.HTML(elem_id="counts")
        self.seeds = gr.CheckboxGroup(list(SEEDS), value=[0, 1], label="Seeds", elem_classes="lab-chips", elem_id="seeds")
        with gr.Row():
            self.lr = gr.Number(None, label="Learning rate", placeholder="0.005", minimum=0, min_width=120, elem_id="lr")
            self.steps = gr.Number(200, label="Steps", precision=0, minimum=0, min_width=120, elem_id="steps")
        self._build_more()
        self.plan = gr.HTML(elem_id="plan")
        with gr.Row():
            self.start = gr.Button("Start", variant="primary", elem_classes="lab-go", elem_id="start", min_width=100)
            self.stop = gr.Button("Stop", elem_classes="lab-stop", elem_id="stop", min_width=100, interactive=False)
        self.status = gr.HTML(elem_id="status")

    def _build_more(self) -> None:
        chips = {"elem_classes": "lab-chips"}
        starts, quants = ([(label, value) for value, label in named.items()] for named in (STARTS, QUANTS))
        with gr.Accordion("More", open=False, elem_id="more", elem_classes="lab-more"):
            self.init = gr.CheckboxGroup(starts, value=["default"], label="Start values of A and B", elem_id="init", **chips)
            self.quant = gr.Radio(quants, value="", label="Base kept in", elem_id="base-quant", **chips)
            self.optim = gr.Dropdown(
                list(OPTIMIZERS), value="AdamW", label="Optimizer", allow_custom_value=True, elem_id="optim", filterable=True
            )
            with gr.Row():
                self.dropout = gr.Number(0, label="Dropout", minimum=0, maximum=1, step=0.05, min_width=120, elem_id="dropout")
                self.tokens = gr.Number(
                    8, label="Virtual tokens", precision=0, minimum=1, min_width=120, elem_id="tokens", visible=False
                )
            self.snapshots = gr.Number(
                0, label="Snapshots of ΔW", info="for its drift, in Look", precision=0, minimum=0, elem_id="snapshots"
            )

    def _build_answers(self) -> None:
        self.seen, self.timer = gr.State(""), gr.Timer(_TICK_S, active=False)
        self.data_card = DataCard()
        self._build_curves()
        with gr.Row(elem_classes="lab-cards"):
            self._build_spectrum_and_flow()
        self._build_rule_and_reach()
        with gr.Column(elem_classes="lab-card"):
            gr.HTML(
                html.question(
                    "Which runs are there?",
                    "each that ended is kept in the runs folder, as PEFT saves it where PEFT has it; click one to look inside",
                )
            )
            self.table = gr.HTML()

    def _build_curves(self) -> None:
        with gr.Row(elem_classes="lab-cards"):
            with gr.Column(elem_classes="lab-card"):
                gr.HTML(html.question(*questions.LOSS))
                self.loss = gr.Plot(show_label=False, elem_classes="lab-plot", elem_id="loss")
            with gr.Column(elem_classes="lab-card"):
                gr.HTML(html.question(*questions.SCORE))
                self.accuracy = gr.Plot(show_label=False, elem_classes="lab-plot", elem_id="accuracy")
        self.learned = gr.HTML(elem_id="learned")
        with gr.Column(elem_classes="lab-card"):
            gr.HTML(html.question(*questions.RANKS))
            self.ranking = gr.HTML()

    def _build_spectrum_and_flow(self) -> None:
        with gr.Column(elem_classes="lab-card"):
            gr.HTML(html.question(*questions.SHAPE))
            self.matrix = gr.Dropdown([], label="Matrix", show_label=False, elem_id="matrix", container=False)
            self.spectrum = gr.Plot(show_label=False, elem_classes="lab-plot", elem_id="spectrum")
        with gr.Column(elem_classes="lab-card"):
            gr.HTML(html.question(questions.FLOW.title, f"{questions.FLOW.subtitle}; the other runs stand behind, pale"))
            self.flowing = gr.Dropdown([], label="Run", show_label=False, elem_id="flowing", container=False)
            self.flow = gr.Plot(show_label=False, elem_classes="lab-plot", elem_id="flow")
            self.flow_says = gr.HTML(elem_id="flow-says")

    def _build_rule_and_reach(self) -> None:
        with gr.Column(elem_classes="lab-card", elem_id="rule-card", visible=False) as self.rule_card:
            gr.HTML(html.question(*questions.RULE))
            self.rule = gr.HTML(elem_id="rule")
        with gr.Column(elem_classes="lab-card", elem_id="reach-card") as self.reach_card:
            subtitle = (
                "a known full-rank change of one matrix of the digits base, fitted by LoRA of growing rank; it takes some seconds"
            )
            gr.HTML(html.question("What can rank r reach?", subtitle))
            with gr.Row(elem_classes="lab-ask"):
                square, wide = square_and_rectangle()
                offered = [(shape_label(m), m.name) for m in (square, wide)]
                self.reached = gr.Radio(
                    offered, value=square.name, show_label=False, elem_classes="lab-chips", elem_id="reach-matrix", scale=4
                )
                self.measure = gr.Button("Measure it", elem_classes="lab-stop", elem_id="reach", min_width=130, scale=0)
            self.reach_plot = gr.Plot(show_label=False, elem_classes="lab-plot", elem_id="reach-plot", visible=False)
            self.reach_says = gr.HTML(elem_id="reach-says")

    def _wire(self, page: gr.Blocks) -> None:
        rarer = [self.init, self.quant, self.optim, self.dropout, self.tokens, self.snapshots]
        choices = [self.methods, self.ranks, self.alpha, self.seeds, self.lr, self.steps, *rarer]
        controls = [self.bench, *self.own.controls, *choices]
        told = [self.selection, self.header, self.about, self.own.box, self.targets_title, self.block, self.counts, self.plan]
        told += [self.methods, self.ranks, self.alpha, self.lr, self.init, self.dropout, self.tokens, self.reach_card, self.start]
        live = [self.status, self.loss, self.accuracy, self.learned, self.matrix, self.spectrum, self.ranking, self.table]
        flow = [self.flowing, self.flow, self.flow_says, self.rule_card, self.rule]
        live += [*flow, self.plan, self.start, self.stop, self.timer, self.seen]
        of_data = [*self.own.told, self.steps, *self.data_card.parts]
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}

        restored = page.load(self.restore, None, [self.selection, *controls], **quiet)
        shown = restored.then(self.show_costs, self.selection, told, **quiet)
        shown.then(self.watch, [self.selection, self.seen], live, **quiet)
        shown.then(self.show_data, self.selection, of_data, **quiet)

        benched = [self.selection, self.lr, self.steps, self.reach_plot, self.reach_says]
        chosen = self.bench.input(self.choose_bench, [self.bench, self.selection], benched, **quiet)
        shown = chosen.then(self.show_costs, self.selection, told, **quiet)
        shown.then(self.watch, [self.selection, self.seen], live, **quiet)
        shown.then(self.show_data, self.selection, of_data, **quiet)
        for choice in choices:
            choice.input(self.choose, [self.selection, *controls], told, trigger_mode="always_last", **quiet)
        for event in self.own.events():
            given = event(self.choose, [self.selection, *controls], told, trigger_mode="always_last", **quiet)
            given.then(self.show_data, self.selection, of_data, **quiet)
        self.block.click(self.pick_target, self.selection, told, **quiet)
        spectral = [self.selection, self.header, self.spectrum, *flow]
        self.matrix.input(self.choose_matrix, [self.matrix, self.selection], spectral, **quiet)
        self.flowing.input(
            self.choose_flow, [self.flowing, self.matrix, self.selection], [self.selection, self.header, *flow], **quiet
        )
        drawn = [self.reach_plot, self.reach_says]
        measured = {"concurrency_limit": 1, "concurrency_id": MEASURES, "show_progress": "minimal", "api_name": "reach"}
        self.measure.click(self.measure_reach, [self.selection, self.reached], drawn, **measured)

        begun = [self.selection, self.header, self.timer, self.stop, self.start]
        started = self.start.click(self.begin, self.selection, begun, api_name="start", show_progress="hidden")
        started.then(self.watch, [self.selection, self.seen], live, **quiet)
        self.stop.click(self.halt, self.selection, [self.status, self.stop], api_name="stop", queue=False, show_progress="hidden")
        self.timer.tick(self.watch, [self.selection, self.seen], live, trigger_mode="once", **quiet)

    # Handlers: each reads controls, asks the core, and returns what its outputs show.

    def restore(self, request: gr.Request) -> list[Any]:
        """The selection that the address names, into state and controls."""
        selection = self._offered(Selection.from_query(dict(request.query_params)))
        selection = replace(selection, job=selection.job or self.lab.current_job())
        steps = default_steps(selection) if selection.steps is None else selection.steps
        values = [selection.bench, *own_data.values(selection)]
        grid = [list(selection.methods), list(selection.r), selection.alpha, list(selection.seeds), selection.lr, steps]
        rarer = [list(selection.init), selection.base_quant, selection.optim, selection.dropout]
        rarer += [selection.tokens, selection.snapshots]
        return [selection, *values, *grid, *rarer]

    def choose_bench(self, bench: str, selection: Selection) -> list[Any]:
        """Another bench brings its own learning rate and steps."""
        job = self.lab.jobs.get(selection.job)
        kept = selection.job if job and not job.ended else ""  # a sweep under way stays in sight, and can be stopped
        selection = replace(selection, bench=bench, lr=None, steps=None, job=kept, matrix="")
        return [selection, None, default_steps(selection), gr.Plot(visible=False), ""]

    def choose(self, selection: Selection, *values: Any) -> list[Any]:
        """Any other control moved."""
        own, chosen = values[1 : 1 + own_data.CONTROLS], values[1 + own_data.CONTROLS :]
        methods, ranks, alpha, seeds, lr, steps, init, quant, optim, dropout, tokens, snapshots = chosen
        shown_steps = default_steps(selection)
        selection = replace(
            own_data.chosen(selection, own),
            bench=values[0],
            methods=tuple(methods),
            r=tuple(sorted(ranks)),
            alpha=alpha,
            seeds=tuple(sorted(seeds)),
            lr=lr,
            steps=None if steps == shown_steps else steps,
            init=tuple(name for name in STARTS if name in init) or Selection.init,
            base_quant=quant,
            optim=optim or Selection.optim,
            dropout=float(dropout or 0),
            tokens=Selection.tokens if tokens is None else tokens,
            snapshots=snapshots or 0,
        )
        return self.show_costs(selection)

    def pick_target(self, selection: Selection, event: gr.EventData) -> list[Any]:
        """A matrix of the drawing was clicked: adapt it, or no longer."""
        geometry = self.lab.geometry(find_bench(selection.bench_name, selection.data_spec))
        targets = geometry.toggled(drawn_targets(selection), event.pick)
        return self.show_costs(replace(selection, targets=targets))

    def choose_matrix(self, matrix: str, selection: Selection) -> list[Any]:
        """Another matrix for the spectrum."""
        selection = replace(selection, matrix=matrix)
        runs = self._runs(selection)
        flow = gradient_card(self.lab, selection, runs, matrix, asked=True)
        return [selection, self.header_of(selection), spectrum(live_spectrum_lines(runs, matrix)), *flow]

    def choose_flow(self, run_id: str, matrix: str, selection: Selection) -> list[Any]:
        """Another run for the gradients; it is the one to look into too."""
        selection = replace(selection, run=run_id or "")
        flow = gradient_card(self.lab, selection, self._runs(selection), matrix, asked=True)
        return [selection, self.header_of(selection), *flow]

    @user_errors
    def measure_reach(self, selection: Selection, matrix: str) -> list[Any]:
        """Fit a known change of one matrix with growing rank."""
        record = reached(selection.bench if selection.bench in VARIANTS else "digits", matrix)
        return [gr.Plot(value=reach_curve(record), visible=True), html.say(reach_caption(record))]

    @user_errors
    def show_costs(self, selection: Selection) -> list[Any]:
        """What the grid would train, before anything runs."""
        own = gr.update(visible=selection.is_own)
        try:
            bench = find_bench(selection.bench_name, selection.data_spec)
            bench.prepare(notify=gr.Info)
            geometry = self.lab.geometry(bench)
        except LabError as err:
            unfilled = selection.is_own and not (selection.base and selection.data)
            sentence = "Name a base and give it data." if unfilled else str(err)
            shown = [selection, self.header_of(selection), html.say(sentence), own, "", "", "", ""]
            return [*shown, *[gr.skip()] * 7, gr.Column(visible=False), gr.skip()]
        selection = replace(selection, targets=tuple(t for t in selection.targets if geometry.matching(t)))
        chosen = {m.name for t in drawn_targets(selection) for m in geometry.matching(t)}
        drawing = block_drawing(geometry, chosen, r=max(selection.r, default=1))
        note = f'<div class="lab-s">{escape(targets_note(selection))}</div>'
        title = f'<div class="lab-h">Target matrices <small>{block_note(geometry)}</small></div>{note}'
        specs, plan, label = self._planned(bench, geometry, selection)
        shown = [
            selection,
            self.header_of(selection),
            html.about(bench),
            own,
            title,
            drawing,
            costs(bench, geometry, selection),
            plan,
        ]
        reach_card, start = gr.Column(visible=selection.bench in VARIANTS), gr.Button(label)
        return [*shown, *controls(bench, geometry, selection, specs), reach_card, start]

    def show_data(self, selection: Selection) -> list[Any]:
        """What there is to know of data that are text: before anything is trained, and not at every click."""
        own = selection.is_own and selection.steps is None
        steps = gr.Number(value=default_steps(selection)) if own else gr.skip()
        return [*own_data.shown(selection), steps, *data_card.shown(self.lab, selection)]

    @user_errors_streaming
    def begin(self, selection: Selection) -> Iterator[list[Any]]:
        """Start the sweep. In workers it goes on by itself; on ZeroGPU this handler drives it."""
        bench = find_bench(selection.bench_name, selection.data_spec)
        specs = self._specs(bench, self.lab.geometry(bench), selection)
        if self.lab.public:
            check_public(specs)
        yield from self.start_job(selection, *self.lab.new_job(specs))

    def watch(self, selection: Selection, seen: str) -> list[Any]:
        """The answers as they are now; nothing is sent where nothing changed."""
        job = self._job(selection)
        mark = f"{selection.job} {job.state} {job.events_seen}" if job else selection.bench_name
        if mark == seen:
            return [gr.skip()] * 18
        runs = self._runs(selection)
        lines = curve_lines(runs)
        names = adapted_matrices(runs)
        matrix = selection.matrix if selection.matrix in names else most_adapted(runs)
        ended = job is None or job.ended
        table, named = rank_table(runs), base_name(runs)
        says = learned_caption(runs, best_run(runs), base=table.base_score, base_name=named, ended=ended)
        plan, start = self._plan(selection) if job and ended else (gr.skip(), gr.Button(interactive=ended))
        return [
            html.job_status(job),
            loss_curves(lines),
            score_curves(lines),
            html.say(says),
            gr.Dropdown(choices=[(matrix_label(n), n) for n in names], value=matrix),
            spectrum(live_spectrum_lines(runs, matrix)),
            rank_table_html(table),
            runs_card(self.lab, runs, selection),
            *gradient_card(self.lab, selection, runs, matrix, asked=ended),
            plan,
            start,
            gr.Button(interactive=job is not None and job.state in ("waiting", "running")),
            gr.Timer(active=not ended),
            mark,
        ]

    # What the handlers share.

    def _offered(self, selection: Selection) -> Selection:
        """An address may name what the page does not offer: that falls back to the default."""
        default = Selection()
        benches = BENCH_NAMES if self.lab.public else (*BENCH_NAMES, "yours")
        return replace(
            offered(selection),
            bench=selection.bench if selection.bench in benches else default.bench,
            task=selection.task if selection.task in get_args(Task) else default.task,
            r=tuple(r for r in selection.r if r in RANKS),
            alpha=selection.alpha if selection.alpha in [value for _, value in ALPHAS] else default.alpha,
            seeds=tuple(seed for seed in selection.seeds if seed in SEEDS),
        )

    def _runs(self, selection: Selection) -> list[RunProgress]:
        """The job's runs; without a job, the runs of this bench that the store has."""
        job = self._job(selection)
        if job:
            return list(job.runs.values())
        kept = [run for run in self.lab.visible_runs(selection.job) if run.spec.bench == selection.bench_name][:_MOST_SHOWN]
        kept.sort(key=lambda run: (row_label(run.spec), run.spec.tuning.r, run.spec.seed))
        return [run.progress() for run in kept]

    def _specs(self, bench: Bench, geometry: Geometry, selection: Selection) -> tuple[RunSpec, ...]:
        return expand(bench, grid_of(selection), geometry=geometry)

    def _plan(self, selection: Selection) -> tuple[str, gr.Button]:
        """The sentence about the runs, and Start as it is when nothing is under way."""
        bench = find_bench(selection.bench_name, selection.data_spec)
        _, sentence, label = self._planned(bench, self.lab.geometry(bench), selection)
        return sentence, gr.Button(label, interactive=True)

    def _planned(self, bench: Bench, geometry: Geometry, selection: Selection) -> tuple[tuple[RunSpec, ...], str, str]:
        """The runs, none where the grid cannot be; the sentence about them; and what Start is called."""
        try:
            specs = self._specs(bench, geometry, selection)
        except LabError as err:
            return (), html.say(str(err), kind="error"), "Start"
        complete = self.lab.store.complete_ids()
        return specs, html.say(plan_sentence(specs, complete)), start_label(specs, complete)
