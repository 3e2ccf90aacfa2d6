"""Methods: the method bench. Choose what to compare, start it, see who leads and what it costs."""

import zipfile
from collections.abc import Iterator
from dataclasses import replace
from html import escape
from typing import Any

import gradio as gr

from lora_lab.analysis.comparison import compare
from lora_lab.analysis.method_records import MethodTable
from lora_lab.benches import BENCH_NAMES, find_bench
from lora_lab.errors import LabError, SpecError
from lora_lab.plots.method_captions import methods_caption, plan_caption, refused_note, seeds_note
from lora_lab.plots.methods import COLUMNS, pareto, rate_curves
from lora_lab.specs import METHODS
from lora_lab.sweeps import Run
from lora_lab.sweeps.limits import check_public
from lora_lab.sweeps.method_bench import MethodBenchSpec, MethodPlan, expected_s, method_table, plan_methods
from lora_lab.sweeps.method_export import csv_of, peft_files, write_text
from lora_lab.ui import html
from lora_lab.ui.errors import user_errors, user_errors_streaming
from lora_lab.ui.job_place import JobPlace
from lora_lab.ui.lab import Lab
from lora_lab.ui.method_html import methods_legend, methods_table
from lora_lab.ui.selection import Selection

SEEDS = (0, 1, 2, 3, 4)
_TICK_S = 0.8
_KEPT_PLANS = 20


class MethodsView(JobPlace):
    """What to compare on the left, who leads and at what price on the right."""

    name, room = "Train", "Methods"

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab)
        self._plans: dict[tuple[str, Any, MethodBenchSpec], MethodPlan] = {}

    def _build_controls(self) -> None:
        chips = {"elem_classes": "lab-chips"}
        benches = [("digits · turned", "digits"), *((n.replace("digits:", "digits · "), n) for n in BENCH_NAMES[1:])]
        self.bench = gr.Radio(benches, value="digits", label="Bench", elem_id="bench", **chips)
        self.about = gr.HTML()
        labels = [(info.label, name) for name, info in METHODS.items()]
        self.methods = gr.Dropdown(labels, value=[], multiselect=True, label="Methods", elem_id="compared")
        self.left_out = gr.HTML(elem_id="left-out")
        self.budgets = gr.Textbox("", label="Budgets r", placeholder="2, 8, 32 and the base's layers", elem_id="budgets")
        self.factors = gr.Textbox(label="Learning rates, × each method's own", elem_id="factors")
        self.seeds = gr.CheckboxGroup(list(SEEDS), label="Seeds", elem_id="trials", **chips)
        self.steps = gr.Number(200, label="Steps", precision=0, minimum=1, elem_id="steps")
        self.plan = gr.HTML(elem_id="plan")
        with gr.Row():
            self.start = gr.Button("Start", variant="primary", elem_classes="lab-go", elem_id="start", min_width=100)
            self.stop = gr.Button("Stop", elem_classes="lab-stop", elem_id="stop", min_width=100, interactive=False)
        self.status = gr.HTML(elem_id="status")

    def _build_answers(self) -> None:
        self.seen, self.timer = gr.State(""), gr.Timer(_TICK_S, active=False)
        plot = {"show_label": False, "elem_classes": "lab-plot"}
        with gr.Column(elem_classes="lab-card"):
            subtitle = "each at the budget and learning rate that the validation split chose, scored on the test split"
            gr.HTML(html.question("Which method is best?", subtitle))
            self.table = gr.HTML(elem_id="methods")
            self.says = gr.HTML(elem_id="says")
            self.note = gr.HTML(elem_id="note")
            with gr.Row(elem_classes="lab-ask"):
                self.csv = gr.Button("Table as CSV", elem_classes="lab-stop", elem_id="csv", min_width=140, scale=0)
                self.peft = gr.Button("Runs in PEFT's schema", elem_classes="lab-stop", elem_id="peft", min_width=210, scale=0)
                self.csv_file = gr.DownloadButton(visible="hidden", elem_id="csv-file")
                self.peft_file = gr.DownloadButton(visible="hidden", elem_id="peft-file")
        with gr.Column(elem_classes="lab-card"):
            subtitle = (
                "a point a budget, filled where validation chose it, ± sd over seeds; the dotted line is the best for the price"
            )
            gr.HTML(html.question("What do you pay for it?", subtitle))
            columns = [(column.label, name) for name, column in COLUMNS.items()]
            with gr.Row(elem_classes="lab-ask"):
                self.pay = gr.Dropdown(columns, value="trainable_params", label="Across", elem_id="pay", min_width=150)
                self.get = gr.Dropdown(columns, value="score", label="Up", elem_id="get", min_width=150)
            self.legend = gr.HTML()
            self.pareto = gr.Plot(elem_id="pareto", **plot)
        with gr.Column(elem_classes="lab-card"):
            subtitle = "mean score on the validation split; the filled point was chosen; where it lay at an edge, rates were added"
            gr.HTML(html.question("Which learning rate?", subtitle))
            self.rates = gr.Plot(elem_id="rates", **plot)

    def _wire(self, page: gr.Blocks) -> None:
        choices = [self.bench, self.methods, self.budgets, self.factors, self.seeds, self.steps]
        told = [self.selection, self.header, self.about, self.methods, self.left_out, self.plan]
        live = [self.status, self.table, self.says, self.note, self.legend, self.pareto, self.rates, self.plan]
        live += [self.start, self.stop, self.timer, self.csv, self.peft, self.seen]
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        watched = (self.watch, [self.selection, self.seen], live)

        restored = page.load(self.restore, None, [self.selection, *choices, self.pay, self.get], **quiet)
        restored.then(self.show_plan, self.selection, told, **quiet).then(*watched, **quiet)
        chosen = self.bench.input(self.choose_bench, [self.bench, self.selection], [self.selection, self.steps], **quiet)
        chosen.then(self.show_plan, self.selection, told, **quiet).then(*watched, **quiet)
        rest = [self.methods.input, self.budgets.blur, self.budgets.submit, self.factors.blur, self.factors.submit]
        for event in [*rest, self.seeds.input, self.steps.input]:
            moved = event(self.choose, [self.selection, *choices], told, trigger_mode="always_last", **quiet)
            moved.then(*watched, **quiet)
        for axis in (self.pay, self.get):
            drawn = [self.selection, self.header, self.pareto]
            axis.input(self.choose_axes, [self.pay, self.get, self.selection], drawn, **quiet)

        begun = [self.selection, self.header, self.timer, self.stop, self.start]
        started = self.start.click(self.begin, self.selection, begun, api_name="compare", show_progress="hidden")
        started.then(*watched, **quiet)
        halted = [self.status, self.stop]
        self.stop.click(self.halt, self.selection, halted, api_name="halt", queue=False, show_progress="hidden")
        self.timer.tick(*watched, trigger_mode="once", **quiet)
        for button, make, file in ((self.csv, self.save_csv, self.csv_file), (self.peft, self.save_peft, self.peft_file)):
            made = button.click(make, self.selection, file, show_progress="minimal", api_visibility="private")
            made.success(None, js=html.SAVE_JS.format(file.elem_id), api_visibility="private")

    # Handlers: each reads controls, asks the core, and returns what its outputs show.

    def restore(self, request: gr.Request) -> list[Any]:
        """The selection that the address names, into state and controls."""
        selection = self._offered(Selection.from_query(dict(request.query_params)))
        selection = replace(selection, job=selection.job or self.lab.current_job())
        steps = selection.steps or find_bench(selection.bench).defaults.steps
        values = [selection.bench, list(selection.compared), selection.budgets, selection.factors, list(selection.trials), steps]
        return [selection, *values, selection.pay, selection.get]

    def choose_bench(self, bench: str, selection: Selection) -> list[Any]:
        """Another bench brings its own steps."""
        job = self.lab.jobs.get(selection.job)
        kept = selection.job if job and not job.ended else ""  # a bench under way stays in sight, and can be stopped
        return [replace(selection, bench=bench, lr=None, steps=None, job=kept), find_bench(bench).defaults.steps]

    def choose(self, selection: Selection, *values: Any) -> list[Any]:
        """Any other control moved."""
        bench, methods, budgets, factors, seeds, steps = values
        selection = replace(
            selection,
            bench=bench,
            compared=tuple(m for m in METHODS if m in methods),
            budgets=budgets.replace(" ", ""),
            factors=factors.replace(" ", "") or Selection.factors,
            trials=tuple(sorted(seeds)),
            steps=None if steps == find_bench(bench).defaults.steps else steps,
        )
        return self.show_plan(selection)

    @user_errors
    def show_plan(self, selection: Selection) -> list[Any]:
        """What the bench would train, before anything runs."""
        bench = find_bench(selection.bench)
        bench.prepare(notify=gr.Info)
        told = [selection, self.header_of(selection), html.about(bench)]
        try:
            plan = self._plan(selection)
        except LabError as err:
            return [*told, gr.skip(), "", html.say(str(err), kind="error")]
        fit = [m for m in METHODS if m not in plan.refused or m in selection.compared]
        choices = gr.Dropdown(choices=[(METHODS[m].label, m) for m in fit])  # no value: another may have been picked since
        note = "" if selection.compared else "None chosen: all that the base can take. "
        left_out = f'<div class="lab-s">{escape(note + refused_note(plan.refused))}</div>'
        return [*told, choices, left_out, self._plan_says(plan)]

    def choose_axes(self, pay: str, get: str, selection: Selection) -> list[Any]:
        """Two other columns against each other."""
        selection = replace(selection, pay=pay, get=get)
        return [selection, self.header_of(selection), pareto(self._table(selection), x=pay, y=get).update_layout(showlegend=False)]

    @user_errors_streaming
    def begin(self, selection: Selection) -> Iterator[list[Any]]:
        """Start the bench. In workers it goes on by itself; on ZeroGPU this handler drives it."""
        plan = self._plan(selection)
        if self.lab.public:
            check_public(plan.most_runs())
        yield from self.start_job(selection, *self.lab.new_job(plan.first_round(), more=plan.wanted, grouped="never"))

    def watch(self, selection: Selection, seen: str) -> list[Any]:
        """The answers as they are now; nothing is sent where nothing changed, and no table before another run is complete."""
        job = self._job(selection)
        ended = job is None or job.ended
        buttons = [gr.Button(interactive=ended), gr.Button(interactive=job is not None and job.state in ("waiting", "running"))]
        status = html.job_status(job)
        mark = f"{_settings(selection)} {job.runs_ended if job else ''} {job.state if job else ''}"
        if mark == seen:
            return [status, *[gr.skip()] * 7, *buttons, gr.Timer(active=not ended), gr.skip(), gr.skip(), mark]
        try:
            plan = self._plan(selection)
        except LabError:  # the plan has the sentence
            return [status, *[gr.skip()] * 7, *buttons, gr.Timer(active=not ended), gr.skip(), gr.skip(), mark]
        table = method_table(plan, self._runs(selection))
        comparison = compare(table)
        has_rows = bool(table.rows)
        return [
            status,
            methods_table(table, comparison),
            html.say(methods_caption(table, comparison)) if has_rows else "",
            f'<div class="lab-s">{escape(seeds_note(table))}</div>' if has_rows else "",
            methods_legend(table),
            pareto(table, x=selection.pay, y=selection.get).update_layout(showlegend=False),
            rate_curves(table).update_layout(showlegend=False),
            self._plan_says(plan) if ended else gr.skip(),
            *buttons,
            gr.Timer(active=not ended),
            gr.Button(interactive=has_rows),
            gr.Button(interactive=has_rows),
            mark,
        ]

    @user_errors
    def save_csv(self, selection: Selection) -> str:
        """The table as a file."""
        table = self._table(selection)
        path = self.lab.exports.path("methods.csv")
        write_text(path, csv_of(table, compare(table)))
        return str(path)

    @user_errors
    def save_peft(self, selection: Selection) -> str:
        """Every run of the bench in PEFT's schema, in one archive."""
        runs = self._runs(selection)
        wanted = {spec.run_id for spec in self._plan(selection).wanted(runs)}
        path = self.lab.exports.path("method_comparison.zip")
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text in peft_files(run for run in runs if run.run_id in wanted).items():
                archive.writestr(name, text)
        return str(path)

    # What the handlers share.

    def _offered(self, selection: Selection) -> Selection:
        """An address may name what the page does not offer: that falls back to the default."""
        default = Selection()
        return replace(
            selection,
            bench=selection.bench if selection.bench in BENCH_NAMES else default.bench,
            compared=tuple(m for m in METHODS if m in selection.compared),
            trials=tuple(seed for seed in selection.trials if seed in SEEDS) or default.trials,
            pay=selection.pay if selection.pay in COLUMNS else default.pay,
            get=selection.get if selection.get in COLUMNS else default.get,
        )

    def _runs(self, selection: Selection) -> list[Run]:
        return self.lab.visible_runs(selection.job)

    def _table(self, selection: Selection) -> MethodTable:
        return method_table(self._plan(selection), self._runs(selection))

    def _plan(self, selection: Selection) -> MethodPlan:
        """The plan, reckoned once for each choice.

        Raises:
            LabError: what is chosen cannot be compared.
        """
        bench, spec = find_bench(selection.bench), spec_of(selection)
        key = (bench.name, bench.data, spec)
        if key not in self._plans:
            for old in list(self._plans)[: -_KEPT_PLANS + 1]:
                self._plans.pop(old, None)
            self._plans[key] = plan_methods(bench, spec, geometry=self.lab.geometry(bench))
        return self._plans[key]

    def _plan_says(self, plan: MethodPlan) -> str:
        """How many runs, how many of them there are, and how long the rest may take."""
        runs = self.lab.store.runs()
        complete = {run.run_id for run in runs if run.is_complete}
        wanted = plan.wanted(runs)
        todo = [spec for spec in wanted if spec.run_id not in complete]
        rates, seeds, kept = len(plan.grids[0].rates), len(plan.spec.seeds), len(wanted) - len(todo)
        left_s = expected_s(todo, runs, device=self.lab.device)
        return html.say(plan_caption(len(plan.grids), rates, seeds, runs=len(wanted), kept=kept, left_s=left_s))


def spec_of(selection: Selection) -> MethodBenchSpec:
    """What is chosen, as the bench takes it.

    Raises:
        SpecError: a text that is no list of numbers, or no seed.
    """
    return MethodBenchSpec(
        methods=selection.compared or None,
        budgets=_numbers("budgets", selection.budgets, int) or None,
        lr_factors=_numbers("learning rates", selection.factors, float),
        seeds=selection.trials,
        steps=selection.steps,
    )


def _numbers(what: str, text: str, kind: type[Any]) -> tuple[Any, ...]:
    try:
        return tuple(kind(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise SpecError(f"The {what} must be numbers with commas between them. Got {text!r}.") from None


def _settings(selection: Selection) -> str:
    """What the answers depend on besides the runs."""
    s = selection
    return f"{s.bench} {s.compared} {s.budgets} {s.factors} {s.trials} {s.steps} {s.job}"
