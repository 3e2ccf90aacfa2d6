"""Try it: one prompt, answered by the base and by runs side by side."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from html import escape
from typing import Any

import gradio as gr

from lora_lab.benches import BENCH_NAMES, Bench, find_bench
from lora_lab.benches.writing import Writing
from lora_lab.errors import DataError, LabError
from lora_lab.inference import (
    BASE,
    Answerer,
    LiveModels,
    Question,
    answer_kind,
    base_quant,
    inputs_of,
    judge,
    latest,
    question_of,
    stream_answers,
    written_prompt,
)
from lora_lab.plots import labels_of, run_colour
from lora_lab.specs import METHODS, unique
from lora_lab.sweeps import Run
from lora_lab.sweeps.limits import MOST_NEW_TOKENS, check_public_question
from lora_lab.sweeps.summary import best_kept
from lora_lab.ui import html, try_html
from lora_lab.ui.errors import user_errors, user_errors_streaming
from lora_lab.ui.lab import Lab
from lora_lab.ui.place import MEASURES, Place
from lora_lab.ui.selection import Selection

MOST_ASKED = 4  # runs beside the base: of some methods each is a model of its own
_MOST_TOKENS, _FEW_TOKENS = 256, 64
_ASK_FIRST = "Press Ask."
_KINDS = {"text": "Prompt", "labels": "Text", "number": "Text"}


class TryView(Place):
    """Whom to ask and what on the left, the answers in columns on the right."""

    name = "Train"

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab)
        self.models = LiveModels()

    def _build_controls(self) -> None:
        gr.HTML('<div class="lab-q">Try it <span class="lab-s">one prompt, the base and runs side by side</span></div>')
        self.bench = gr.Radio([], label="Bench", elem_classes="lab-chips", elem_id="bench")
        self.about = gr.HTML(elem_id="about")
        self.asked = gr.Dropdown([], label="Runs beside the base", multiselect=True, max_choices=MOST_ASKED, elem_id="asked")
        self.empty = gr.HTML(elem_id="empty")
        self.prompt = gr.Textbox(label="Prompt", lines=6, max_lines=14, max_length=4000, elem_id="prompt")
        self.image = gr.Number(0, label="Test image", precision=0, minimum=0, elem_id="image", visible=False)
        self.another = gr.Button("Another example", elem_classes="lab-stop", elem_id="another")
        most = MOST_NEW_TOKENS if self.lab.public else _MOST_TOKENS
        self.tokens = gr.Slider(1, most, value=_FEW_TOKENS, step=1, label="At most so many tokens", elem_id="tokens")
        with gr.Row():
            self.ask_it = gr.Button("Ask", variant="primary", elem_classes="lab-go", elem_id="ask", min_width=100)
            self.stop = gr.Button("Stop", elem_classes="lab-stop", elem_id="halt", min_width=100, interactive=False)

    def _build_answers(self) -> None:
        self.said = gr.State({})
        self.answers = gr.HTML(elem_id="answers")
        with gr.Column(elem_classes="lab-card"):
            self.question = gr.HTML(elem_id="question")

    def _wire(self, page: gr.Blocks) -> None:
        head = [self.selection, self.header]
        example = [self.prompt, self.image, self.question]
        answers = [self.answers, self.said]
        told = [*head, self.bench, self.about, self.asked, self.empty, *example, self.tokens, *answers]
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        page.load(self.restore, None, told, **quiet)
        self.bench.input(self.choose_bench, [self.bench, self.selection], told, **quiet)
        self.asked.input(self.choose_runs, [self.asked, self.selection], [*head, *answers], **quiet)
        self.another.click(self.another_example, self.selection, [*head, *example, *answers], **quiet)
        numbered = [self.image.submit, self.image.blur]
        for event in numbered:
            event(self.choose_image, [self.image, self.selection], [*head, *example, *answers], **quiet)
        measured = {"concurrency_limit": 1, "concurrency_id": MEASURES, "show_progress": "hidden"}
        asking = self.ask_it.click(
            self.ask, [self.selection, self.prompt, self.tokens], [*answers, self.stop], api_name="ask", **measured
        )
        asking.then(self.rest, None, self.stop, **quiet)
        stopped = [*answers, self.stop]
        self.stop.click(self.halt, [self.selection, self.prompt, self.said], stopped, cancels=[asking], queue=False, **quiet)

    # Handlers.

    @user_errors
    def restore(self, request: gr.Request) -> list[Any]:
        """What the address names."""
        return self.show(self._offered(Selection.from_query(dict(request.query_params))))

    @user_errors
    def choose_bench(self, key: str, selection: Selection) -> list[Any]:
        """Another bench brings its own runs and examples."""
        selection = replace(selection, bench=key, asked=(), example=0)
        own = next((run for run in self._visible(selection) if _key(run) == key and run.spec.data), None)
        return self.show(_of_run(selection, own) if own else selection)

    @user_errors
    def choose_runs(self, asked: list[str], selection: Selection) -> list[Any]:
        """Others beside the base, or nobody."""
        selection = replace(selection, asked=tuple(asked) or (BASE,))
        return [selection, self.header_of(selection), *self._columns(selection, {}, note=_ASK_FIRST)]

    @user_errors
    def another_example(self, selection: Selection) -> list[Any]:
        """The next one of the test split."""
        return self._at(selection, self._question(selection).next_row)

    @user_errors
    def choose_image(self, number: int | None, selection: Selection) -> list[Any]:
        """The image of that number."""
        return self._at(selection, number or 0)

    def _at(self, selection: Selection, row: int) -> list[Any]:
        selection = replace(selection, example=row)
        question = question_of(self._bench(selection), row)
        answers = self._columns(selection, {}, note=_ASK_FIRST)
        return [selection, self.header_of(selection), *self._example(selection, question), *answers]

    def show(self, selection: Selection) -> list[Any]:
        """Everything, for this selection, nothing asked yet."""
        try:
            bench = self._bench(selection)
            bench.prepare(notify=gr.Info)
            question = self._question(selection)
        except LabError as err:
            return self._unusable(selection, str(err))
        selection = replace(selection, example=question.row)
        runs = self._runs(selection)
        chosen = self._chosen(selection)
        labels = labels_of([run.spec for run in runs])
        choices = [(label, run.run_id) for label, run in zip(labels, runs, strict=True)]
        kind, task = answer_kind(bench), bench.splits().test.task
        most = {"value": min(task.max_new_tokens, self.tokens.maximum)} if isinstance(task, Writing) else {}
        return [
            selection,
            self.header_of(selection),
            self._benches(selection),
            f'<div class="lab-s">{escape(bench.about)}</div>',
            gr.Dropdown(choices=choices, value=[run.run_id for run in chosen], visible=bool(runs)),
            "" if runs else self._no_run(selection),
            *self._example(selection, question),
            gr.Slider(visible=kind == "text", **most),
            *self._columns(selection, {}, note=_ASK_FIRST),
        ]

    @user_errors_streaming
    def ask(self, selection: Selection, prompt: str, tokens: int) -> Iterator[list[Any]]:
        """Everyone answers; what they have said so far, some times a second."""
        if self.lab.public:
            check_public_question(prompt, int(tokens))
        bench, question = self._bench(selection), self._question(selection)
        writes = answer_kind(bench) == "text"
        ids = written_prompt(bench, prompt, question) if writes else []
        answerers: list[Answerer] = []
        yield self._answered(selection, prompt, {}, note="Loading the base…")
        for one in self.models.answerers(bench, [(run.spec, run.adapter_dir) for run in self._chosen(selection)]):
            answerers.append(one)
            yield self._answered(selection, prompt, {}, note="Loading…")
        task = bench.splits().test.task
        if not isinstance(task, Writing):
            judged = judge(answerers, inputs_of(bench, question, prompt), labels=answer_kind(bench) == "labels")
            yield self._answered(selection, prompt, {one.who: one for one in judged})
            return
        with closing(latest(stream_answers(answerers, ids, task, max_new_tokens=int(tokens)))) as told:
            for said in told:
                yield self._answered(selection, prompt, said)

    def rest(self) -> Any:
        """Nothing is under way."""
        return gr.Button(interactive=False)

    @user_errors
    def halt(self, selection: Selection, prompt: str, said: try_html.Answers) -> list[Any]:
        """What was said when it was stopped stays."""
        return [*self._columns(selection, said, prompt=prompt, note="Stopped."), self.rest()]

    # What the handlers share.

    def _answered(self, selection: Selection, prompt: str, said: try_html.Answers, *, note: str = "") -> list[Any]:
        return [*self._columns(selection, said, prompt=prompt, note=note), gr.Button(interactive=True)]

    def _columns(self, selection: Selection, said: try_html.Answers, *, prompt: str | None = None, note: str = "") -> list[Any]:
        """The cards, and what they show; right and wrong where the prompt is the example's own."""
        bench, question, runs = self._bench(selection), self._question(selection), self._chosen(selection)
        known = question if prompt is None or bool(question.pixels) or prompt == question.text else None
        shown = [_base_column(bench, runs), *_run_columns(runs)]
        return [try_html.columns(shown, said, known, bench.label_names(), note=note), said]

    def _example(self, selection: Selection, question: Question) -> list[Any]:
        bench, is_image = self._bench(selection), bool(question.pixels)
        return [
            gr.Textbox(value=question.text, label=_KINDS[answer_kind(bench)], visible=not is_image),
            gr.Number(value=question.row, label=f"Test image, 0 to {question.rows - 1}", visible=is_image),
            try_html.asked(question, bench.label_names()),
        ]

    def _unusable(self, selection: Selection, sentence: str) -> list[Any]:
        """A bench whose base or data cannot be had."""
        none = gr.Dropdown(choices=[], value=[], visible=False)
        shown = [selection, self.header_of(selection), self._benches(selection), "", none, html.say(sentence)]
        return [*shown, gr.Textbox(visible=False), gr.Number(visible=False), "", gr.Slider(visible=False), "", {}]

    def _no_run(self, selection: Selection) -> str:
        link = f'<a class="lab-link" href="./?{escape(selection.query())}">Train one</a>'
        return f'<div class="lab-say">There is no run on this bench to put beside the base. {link} first.</div>'

    def _benches(self, selection: Selection) -> Any:
        """The lab's benches, and those of the user's own that have runs."""
        own = {
            _key(run): f"{_tail(run.spec.bench)} on {_tail(run.spec.data.path)}"
            for run in self._visible(selection)
            if run.spec.data
        }
        named = {name: name.replace("digits:", "digits · ") for name in BENCH_NAMES} | {"digits": "digits · turned"}
        value = f"{selection.base} {selection.data}" if selection.is_own else selection.bench
        return gr.Radio(choices=[(label, key) for key, label in (named | own).items()], value=value)

    def _offered(self, selection: Selection) -> Selection:
        """An address may name a bench that there is not; one that names none is of the newest run's."""
        runs = self._visible(selection)
        if selection.is_own and any(_is_of(run, selection) for run in runs):
            return selection
        if selection.bench not in BENCH_NAMES:
            selection = replace(selection, bench=Selection.bench, asked=())
        if runs and selection.bench == Selection.bench and not any(_is_of(run, selection) for run in runs):
            return _of_run(selection, runs[0])
        return selection

    def _bench(self, selection: Selection) -> Bench:
        runs = self._runs(selection) if selection.is_own else []
        return find_bench(selection.bench_name, runs[0].spec.data if runs else selection.data_spec)

    def _question(self, selection: Selection) -> Question:
        """The example that the selection names, the first where there is none of that number."""
        bench = self._bench(selection)
        try:
            return question_of(bench, selection.example)
        except DataError:
            return question_of(bench, 0)

    def _visible(self, selection: Selection) -> list[Run]:
        return self.lab.visible_runs(selection.job)

    def _runs(self, selection: Selection) -> list[Run]:
        """The bench's runs that this visitor may see, newest first."""
        return [run for run in self._visible(selection) if _is_of(run, selection)]

    def _chosen(self, selection: Selection) -> list[Run]:
        """Who is asked beside the base: whom the selection names, else the run looked at, the best and the newest."""
        runs = {run.run_id: run for run in self._runs(selection)}
        if selection.asked:
            return [runs[run_id] for run_id in selection.asked if run_id in runs][:MOST_ASKED]
        best = best_kept(runs.values())
        wanted = [runs.get(selection.run), best, *runs.values()]
        return list(unique(run for run in wanted if run))[:2]


def _key(run: Run) -> str:
    return f"{run.spec.bench} {run.spec.data.path}" if run.spec.data else run.spec.bench


def _is_of(run: Run, selection: Selection) -> bool:
    path = run.spec.data.path if run.spec.data else ""
    return run.spec.bench == selection.bench_name and path == (selection.data if selection.is_own else "")


def _of_run(selection: Selection, run: Run) -> Selection:
    """The selection with the run's bench."""
    data = run.spec.data
    if data is None:
        return replace(selection, bench=run.spec.bench)
    columns = replace(selection, text_column=data.text_column, label_column=data.label_column)
    return replace(columns, bench="yours", base=run.spec.bench, data=data.path)


def _tail(path: str) -> str:
    return path.rstrip("/").rsplit("/", 1)[-1]


def _base_column(bench: Bench, runs: list[Run]) -> try_html.Column:
    quant = base_quant([run.spec for run in runs])
    head = "under a head that nobody has trained" if bench.trains_head else "as it was before any run"
    about = head if quant == "none" else f"{head}, in {quant}"
    return try_html.Column(BASE, "base", about, try_html.BASE_COLOUR)


def _run_columns(runs: list[Run]) -> list[try_html.Column]:
    found = []
    for run, label in zip(runs, labels_of([run.spec for run in runs]), strict=True):
        method, score = METHODS[run.spec.tuning.method].label, run.score()
        name = label if label.startswith(method) else f"{method} · {label}"
        about = f"{run.metric.label} {run.metric.text(score)}" if score is not None else ""
        found.append(try_html.Column(run.run_id, name, about, run_colour(run.spec.tuning.method, run.spec.tuning.r)))
    return found
