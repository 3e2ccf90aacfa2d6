"""Train: choose a grid, see what it costs, start it, watch it learn."""

from collections.abc import Iterator
from dataclasses import replace
from html import escape
from typing import Any

import gradio as gr

from lora_lab.benches import BENCH_NAMES, Bench, find_bench
from lora_lab.budget import head_params, lora_params
from lora_lab.errors import LabError, SpecError
from lora_lab.geometry import Geometry
from lora_lab.plots import accuracy_curves, curve_lines, learning_caption, loss_curves, row_label, spectrum, spectrum_lines
from lora_lab.roles import label_of
from lora_lab.specs import RunSpec, SweepSpec, unique
from lora_lab.sweeps import Job, Run, RunMemory, RunProgress, expand, memory_of
from lora_lab.sweeps.limits import check_public
from lora_lab.sweeps.summary import base_name, best_accuracy, rank_table
from lora_lab.ui import html
from lora_lab.ui.errors import user_errors, user_errors_streaming
from lora_lab.ui.place import Place
from lora_lab.ui.selection import ALPHAS, Selection
from lora_lab.ui.zero import runs_inline, zero_events
from lora_lab.units import count, gigabytes, percent

RANKS = (1, 2, 4, 8, 16, 32, 64)
SEEDS = (0, 1, 2, 3)
_TICK_S = 0.6
_MOST_SHOWN = 24  # runs of the store beside each other; Look opens any of them


class TrainView(Place):
    """Which grid to train on the left, how it learns on the right."""

    name = "Train"

    def _build_controls(self) -> None:
        benches = [(name.replace("digits:", "digits · "), name) for name in BENCH_NAMES]
        benches[0] = ("digits · turned", "digits")
        own = [] if self.lab.public else [("yours…", "yours")]
        self.bench = gr.Radio([*benches, *own], value="digits", label="Bench", elem_classes="lab-chips", elem_id="bench")
        self.about = gr.HTML()
        with gr.Column(visible=False, elem_classes="lab-own") as self.own:
            self.base = gr.Textbox(label="Base: a folder or a Hub id", placeholder="sentence-transformers/all-MiniLM-L6-v2")
            self.data = gr.File(label="Data: CSV or JSONL", file_types=[".csv", ".jsonl"], type="filepath", height=132)
            with gr.Row():
                self.text_column = gr.Textbox("text", label="Text column", min_width=80)
                self.label_column = gr.Textbox("label", label="Label column", min_width=80)
        self.ranks = gr.CheckboxGroup(list(RANKS), value=[1, 2, 4, 8], label="Ranks r", elem_classes="lab-chips", elem_id="ranks")
        self.alpha = gr.Radio(list(ALPHAS), value="16", label="Scaling numerator α", elem_classes="lab-chips", elem_id="alpha")
        self.targets_title = gr.HTML()
        self.block = gr.HTML(js_on_load=html.PICK_JS, elem_id="block")
        self.counts = gr.HTML(elem_id="counts")
        self.seeds = gr.CheckboxGroup(list(SEEDS), value=[0, 1], label="Seeds", elem_classes="lab-chips", elem_id="seeds")
        with gr.Row():
            self.lr = gr.Number(0.005, label="Learning rate", minimum=0, min_width=120, elem_id="lr")
            self.steps = gr.Number(200, label="Steps", precision=0, minimum=0, min_width=120, elem_id="steps")
        self.plan = gr.HTML(elem_id="plan")
        with gr.Row():
            self.start = gr.Button("Start", variant="primary", elem_classes="lab-go", elem_id="start", min_width=100)
            self.stop = gr.Button("Stop", elem_classes="lab-stop", elem_id="stop", min_width=100, interactive=False)
        self.status = gr.HTML(elem_id="status")

    def _build_answers(self) -> None:
        self.seen, self.timer = gr.State(""), gr.Timer(_TICK_S, active=False)
        with gr.Row(elem_classes="lab-cards"):
            with gr.Column(elem_classes="lab-card"):
                gr.HTML(html.question("Does the loss fall?", "on the examples it trains on; a shade a rank, a dash a seed"))
                self.loss = gr.Plot(show_label=False, elem_classes="lab-plot", elem_id="loss")
            with gr.Column(elem_classes="lab-card"):
                gr.HTML(html.question("Does it generalise?", "accuracy on examples that it never trains on"))
                self.accuracy = gr.Plot(show_label=False, elem_classes="lab-plot", elem_id="accuracy")
        self.learned = gr.HTML(elem_id="learned")
        with gr.Column(elem_classes="lab-card"):
            subtitle = "singular values of one matrix as they are now; the dotted lines are the ranks"
            gr.HTML(html.question("What shape does ΔW take?", subtitle))
            self.matrix = gr.Dropdown([], label="Matrix", show_label=False, elem_id="matrix", container=False)
            self.spectrum = gr.Plot(show_label=False, elem_classes="lab-plot", elem_id="spectrum")
        with gr.Column(elem_classes="lab-card"):
            gr.HTML(
                html.question(
                    "How much rank is enough?",
                    "held-out accuracy, mean ± sd over the seeds (how many)",
                )
            )
            self.ranking = gr.HTML()
        with gr.Column(elem_classes="lab-card"):
            gr.HTML(html.question("Which runs are there?", "each that ended is a PEFT adapter in the runs folder"))
            self.table = gr.HTML()

    def _wire(self, page: gr.Blocks) -> None:
        texts = [self.base, self.data, self.text_column, self.label_column]
        choices = [self.ranks, self.alpha, self.seeds, self.lr, self.steps]
        controls = [self.bench, *texts, *choices]
        costs = [self.selection, self.header, self.about, self.own, self.targets_title, self.block, self.counts, self.plan]
        live = [self.status, self.loss, self.accuracy, self.learned, self.matrix, self.spectrum, self.ranking, self.table]
        live += [self.plan, self.start, self.stop, self.timer, self.seen]
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}

        restored = page.load(self.restore, None, [self.selection, *controls], **quiet)
        shown = restored.then(self.show_costs, self.selection, costs, **quiet)
        shown.then(self.watch, [self.selection, self.seen], live, **quiet)

        benched = [self.selection, self.lr, self.steps]
        chosen = self.bench.input(self.choose_bench, [self.bench, self.selection], benched, **quiet)
        chosen.then(self.show_costs, self.selection, costs, **quiet).then(self.watch, [self.selection, self.seen], live, **quiet)
        named = [self.base.submit, self.base.blur, self.data.upload, self.data.clear, self.text_column.blur, self.label_column.blur]
        for event in [*named, *(choice.input for choice in choices)]:
            event(self.choose, [self.selection, *controls], costs, trigger_mode="always_last", **quiet)
        self.block.click(self.pick_target, self.selection, costs, **quiet)
        spectral = [self.selection, self.header, self.spectrum]
        self.matrix.input(self.choose_matrix, [self.matrix, self.selection], spectral, **quiet)

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
        try:
            defaults = find_bench(selection.bench_name, selection.data_spec).defaults
            lr = selection.lr or defaults.learning_rate
            steps = defaults.steps if selection.steps is None else selection.steps
        except LabError:
            lr, steps = 1e-3, 200
        values = [selection.bench, selection.base, selection.data or None, selection.text_column, selection.label_column]
        return [selection, *values, list(selection.r), selection.alpha, list(selection.seeds), lr, steps]

    def choose_bench(self, bench: str, selection: Selection) -> list[Any]:
        """Another bench brings its own learning rate and steps."""
        job = self.lab.jobs.get(selection.job)
        kept = selection.job if job and not job.ended else ""  # a sweep under way stays in sight, and can be stopped
        selection = replace(selection, bench=bench, lr=None, steps=None, job=kept, matrix="")
        if selection.is_own:
            return [selection, 1e-3, 200]
        defaults = find_bench(bench, None).defaults
        return [selection, defaults.learning_rate, defaults.steps]

    def choose(self, selection: Selection, *values: Any) -> list[Any]:
        """Any other control moved."""
        bench, base, data, text, label, ranks, alpha, seeds, lr, steps = values
        defaults = None if bench == "yours" else find_bench(bench, None).defaults
        selection = replace(
            selection,
            bench=bench,
            base=base or "",
            data=data or "",
            text_column=text,
            label_column=label,
            r=tuple(sorted(ranks)),
            alpha=alpha,
            seeds=tuple(sorted(seeds)),
            lr=None if defaults and lr == defaults.learning_rate else lr,
            steps=None if defaults and steps == defaults.steps else steps,
        )
        return self.show_costs(selection)

    def pick_target(self, selection: Selection, event: gr.EventData) -> list[Any]:
        """A matrix of the drawing was clicked: adapt it, or no longer."""
        role = event.pick
        targets = tuple(t for t in selection.targets if t != role) if role in selection.targets else (*selection.targets, role)
        return self.show_costs(replace(selection, targets=targets))

    def choose_matrix(self, matrix: str, selection: Selection) -> list[Any]:
        """Another matrix for the spectrum."""
        selection = replace(selection, matrix=matrix)
        return [selection, self.header_of(selection), _live_spectrum(self._runs(selection), matrix)]

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
            sentence = "Name a base and give a data file." if unfilled else str(err)
            return [selection, self.header_of(selection), html.say(sentence), own, "", "", "", ""]
        selection = replace(selection, targets=tuple(t for t in selection.targets if geometry.matching(t)))
        chosen = {m.name for m in geometry.targeted(selection.targets)}
        drawing = html.block_drawing(geometry.block(), chosen, r=max(selection.r, default=1))
        title = f'<div class="lab-h">Target matrices <small>{html.geometry_note(geometry)}</small></div>'
        about = f'<div class="lab-s">{escape(bench.about)}</div>'
        costs, plan = _costs(bench, geometry, selection), self._plan_sentence(bench, geometry, selection)
        return [selection, self.header_of(selection), about, own, title, drawing, costs, plan]

    @user_errors_streaming
    def begin(self, selection: Selection) -> Iterator[list[Any]]:
        """Start the sweep. In workers it goes on by itself; on ZeroGPU this handler drives it."""
        bench = find_bench(selection.bench_name, selection.data_spec)
        specs = self._specs(bench, self.lab.geometry(bench), selection)
        if self.lab.public:
            check_public(specs)
        name, job = self.lab.new_job(specs)
        selection = replace(selection, job=name)
        buttons = [gr.Button(interactive=True), gr.Button(interactive=False)]
        begun = [selection, self.header_of(selection), gr.Timer(active=True), *buttons]
        yield from self._drive(job, begun)

    def _drive(self, job: Job, begun: list[Any]) -> Iterator[list[Any]]:
        if not runs_inline():
            job.start()
            yield begun
            return
        yield begun
        for _ in job.pump(zero_events(job.specs, str(self.lab.store.root), self.lab.device), closes=True):
            yield [gr.skip()] * len(begun)

    def halt(self, selection: Selection) -> list[Any]:
        """Stop, and say at once that it is being done."""
        job = self._job(selection)
        if job:
            job.stop()
        return [html.job_status(job), gr.Button(interactive=False)]

    def watch(self, selection: Selection, seen: str) -> list[Any]:
        """The answers as they are now; nothing is sent where nothing changed."""
        job = self._job(selection)
        mark = f"{selection.job} {job.state} {job.events_seen}" if job else selection.bench_name
        if mark == seen:
            return [gr.skip()] * 13
        runs = self._runs(selection)
        lines = curve_lines(runs)
        names = unique(name for run in runs if run.spectrum for name in run.spectrum.singular_values)
        matrix = selection.matrix if selection.matrix in names else (names[-1] if names else None)
        ended = job is None or job.ended
        table = rank_table(runs)
        return [
            html.job_status(job),
            loss_curves(lines),
            accuracy_curves(lines),
            html.say(learning_caption(best_accuracy(runs), table.base_accuracy, ended=ended, base_name=base_name(runs))),
            gr.Dropdown(choices=[(_matrix_label(n), n) for n in names], value=matrix),
            _live_spectrum(runs, matrix),
            html.rank_table(table),
            self._table(runs, selection),
            self._plan(selection) if job and ended else gr.skip(),
            gr.Button(interactive=ended),
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
            selection,
            bench=selection.bench if selection.bench in benches else default.bench,
            r=tuple(r for r in selection.r if r in RANKS),
            alpha=selection.alpha if selection.alpha in [value for _, value in ALPHAS] else default.alpha,
            seeds=tuple(seed for seed in selection.seeds if seed in SEEDS),
        )

    def _job(self, selection: Selection) -> Job | None:
        return self.lab.jobs.get(selection.job)

    def _runs(self, selection: Selection) -> list[RunProgress]:
        """The job's runs; without a job, the runs of this bench that the store has."""
        job = self._job(selection)
        if job:
            return list(job.runs.values())
        kept = [run for run in self.lab.visible_runs(selection.job) if run.spec.bench == selection.bench_name][:_MOST_SHOWN]
        kept.sort(key=lambda run: (row_label(run.spec), run.spec.tuning.r, run.spec.seed))
        return [run.progress() for run in kept]

    def _specs(self, bench: Bench, geometry: Geometry, selection: Selection) -> tuple[RunSpec, ...]:
        for name, chosen in (("r", selection.r), ("targets", selection.targets), ("seeds", selection.seeds)):
            if not chosen:
                raise SpecError(f"The {name} of a sweep must be at least one choice. Got none.")
        grid = SweepSpec(
            r=selection.r,
            lora_alpha=(selection.alpha,),
            targets=(selection.targets,),
            seeds=selection.seeds,
            learning_rate=(selection.lr,) if selection.lr is not None else None,
            steps=selection.steps,
        )
        return expand(bench, grid, geometry=geometry)

    def _plan(self, selection: Selection) -> str:
        bench = find_bench(selection.bench_name, selection.data_spec)
        return self._plan_sentence(bench, self.lab.geometry(bench), selection)

    def _plan_sentence(self, bench: Bench, geometry: Geometry, selection: Selection) -> str:
        try:
            specs = self._specs(bench, geometry, selection)
        except LabError as err:
            return html.say(str(err), kind="error")
        complete = self.lab.store.complete_ids()
        had = [spec for spec in specs if spec.run_id in complete]
        kept = f", {len(had)} of them in the store already" if had else ""
        noun = "run" if len(specs) == 1 else "runs"
        return html.say(f"{len(specs)} {noun} of {specs[0].steps} steps at learning rate {specs[0].learning_rate:g}{kept}.")

    def _table(self, runs: list[RunProgress], selection: Selection) -> str:
        rows, links = [], []
        kept = {run.run_id: run for run in self.lab.visible_runs(selection.job)}
        for run in runs:
            rows.append(_row(run, self._memory(kept.get(run.spec.run_id))))
            looked = replace(selection, run=run.spec.run_id)
            links.append(f"./look?{escape(looked.query())}" if run.done and run.spec.run_id in kept else "")
        return html.runs_table(rows, links)

    def _memory(self, run: Run | None) -> str:
        """Peak memory of a run that is kept, by formula and as measured."""
        if run is None:
            return ""
        try:
            return _memory_text(memory_of(run, self.lab.geometry(find_bench(run.spec.bench, run.spec.data))))
        except LabError:  # the base is no longer to be had
            return ""


def _costs(bench: Bench, geometry: Geometry, selection: Selection) -> str:
    """Trainable parameters for every rank chosen."""
    head = head_params(geometry, bench.head_modules(geometry))
    if not selection.targets:
        return html.say("No matrix is chosen: click at least one.", kind="error")
    cells = []
    for r in selection.r:
        params = lora_params(geometry, selection.targets, r=r)
        cells.append(f"<span>r {r}: <b>{params:,}</b> ({percent(geometry.share_of(params), 2)})</span>")
    plus = f"<span>and {count(head)} for the head</span>" if head else ""
    of = f"<span>trainable, of {count(geometry.total_params)}</span>"
    return f'<div class="lab-counts" aria-live="polite">{"".join(cells)}{of}{plus}</div>'


def _live_spectrum(runs: list[RunProgress], matrix: str | None) -> Any:
    seen = [(run.spec, run.spectrum.singular_values) for run in runs if run.spectrum]
    found = [(spec, values[matrix]) for spec, values in seen if matrix in values]
    return spectrum(spectrum_lines([spec for spec, _ in found], [values for _, values in found]))


def _matrix_label(name: str) -> str:
    return f"{label_of(name)}  ({name})"


def _memory_text(memory: RunMemory) -> str:
    formula, measured = memory.formula_bytes, memory.measured_allocated_bytes
    parts = [f"formula {'≤ ' if memory.is_bound else ''}{gigabytes(formula)}"] if formula is not None else []
    return ", ".join([*parts, *([f"{gigabytes(measured)} measured"] if measured is not None else [])])


def _row(run: RunProgress, memory: str) -> tuple[str, ...]:
    spec, lora = run.spec, run.spec.tuning
    named = (spec.run_id, str(lora.r), f"{lora.lora_alpha:g}", ", ".join(lora.target_modules), f"{spec.learning_rate:g}")
    trained = count(run.start.trainable_params) if run.start else ""
    accuracy, loss = (percent(run.score.accuracy), f"{run.score.loss:.3f}") if run.score else ("", "")
    status = run.done.status if run.done else (f"step {run.step}" if run.start else "waiting")
    return (*named, str(spec.seed), trained, memory, accuracy, loss, status)
