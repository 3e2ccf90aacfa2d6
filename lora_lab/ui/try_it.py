"""Try it: one prompt, answered by the base and by runs side by side."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from html import escape
from typing import Any

import gradio as gr

from lora_lab.benches.writing import Writing
from lora_lab.errors import LabError
from lora_lab.inference import (
    BASE,
    Answerer,
    LiveModels,
    answer_kind,
    inputs_of,
    judge,
    latest,
    question_of,
    stream_answers,
    test_split,
    written_prompt,
)
from lora_lab.plots import labels_of
from lora_lab.sweeps import Run
from lora_lab.sweeps.limits import MOST_CHARACTERS, MOST_NEW_TOKENS, check_public_question
from lora_lab.ui import html, try_html
from lora_lab.ui.errors import user_errors, user_errors_streaming
from lora_lab.ui.lab import Lab
from lora_lab.ui.place import MEASURES, Place
from lora_lab.ui.selection import Selection
from lora_lab.ui.try_html import Answers
from lora_lab.ui.try_scene import MOST_ASKED, Scene, bench_choices, bench_key, of_run, offered

_MOST_TOKENS, _FEW_TOKENS = 256, 64
_ASK_FIRST = "Press Ask."
_KINDS = {"text": "Prompt", "labels": "Text", "number": "Text"}


class TryView(Place):
    """Whom to ask and what on the left, the answers in columns on the right."""

    name, room = "Train", "Try it"

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab)
        self.models = LiveModels()

    def _build_controls(self) -> None:
        gr.HTML(html.question("Try it", "one prompt, answered by the base and by runs side by side"))
        self.bench = gr.Radio([], label="Bench", elem_classes="lab-chips", elem_id="bench")
        self.about = gr.HTML(elem_id="about")
        self.asked = gr.Dropdown([], label="Runs beside the base", multiselect=True, max_choices=MOST_ASKED, elem_id="asked")
        self.empty = gr.HTML(elem_id="empty")
        self.prompt = gr.Textbox(label="Prompt", lines=6, max_lines=14, max_length=MOST_CHARACTERS, elem_id="prompt")
        self.image = gr.Number(0, label="Test image", precision=0, minimum=0, elem_id="image", visible=False)
        self.picture = gr.HTML(elem_id="picture")
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
        example = [self.prompt, self.image, self.picture, self.question]
        answers = [self.answers, self.said]
        told = [*head, self.bench, self.about, self.asked, self.empty, *example, self.tokens, *answers]
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        page.load(self.restore, None, told, **quiet)
        self.bench.input(self.choose_bench, [self.bench, self.selection], told, **quiet)
        # not `input`: the cross that clears a dropdown sends none
        self.asked.change(self.choose_runs, [self.asked, self.selection], [*head, *answers], trigger_mode="always_last", **quiet)
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
        selection = Selection.from_query(dict(request.query_params))
        return self.show(offered(selection, self._visible(selection)))

    @user_errors
    def choose_bench(self, key: str, selection: Selection) -> list[Any]:
        """Another bench brings its own runs and examples."""
        selection = replace(selection, bench=key, asked=(), example=0)
        own = next((run for run in self._visible(selection) if run.spec.data and bench_key(run) == key), None)
        return self.show(of_run(selection, own) if own else selection)

    @user_errors
    def choose_runs(self, asked: list[str], selection: Selection) -> list[Any]:
        """Others beside the base, or nobody; nothing where the page itself set them."""
        if [run.run_id for run in self._scene(selection).chosen] == asked:
            return [gr.skip()] * 4
        selection = replace(selection, asked=tuple(asked) or (BASE,))
        return [selection, self.header_of(selection), *self._scene(selection).cards({}, note=_ASK_FIRST)]

    @user_errors
    def another_example(self, selection: Selection) -> list[Any]:
        """The next one of the test split."""
        return self._at(selection, self._scene(selection).question.next_row)

    @user_errors
    def choose_image(self, number: int | None, selection: Selection) -> list[Any]:
        """The image of that number."""
        question_of(self._scene(selection).bench, number or 0)  # a number that there is not is said
        return self._at(selection, number or 0)

    def _at(self, selection: Selection, row: int) -> list[Any]:
        selection = replace(selection, example=row)
        scene = self._scene(selection)
        return [selection, self.header_of(selection), *_example(scene), *scene.cards({}, note=_ASK_FIRST)]

    def show(self, selection: Selection) -> list[Any]:
        """Everything, for this selection, nothing asked yet."""
        visible = self._visible(selection)
        choices, key = bench_choices(selection, visible)
        benches = gr.Radio(choices=choices, value=key)
        try:
            scene = Scene.of(selection, visible, notify=gr.Info)
        except LabError as err:
            return [selection, self.header_of(selection), benches, *_unusable(str(err))]
        selection = replace(selection, example=scene.question.row)
        task = test_split(scene.bench).task
        most = {"value": min(task.max_new_tokens, self.tokens.maximum)} if isinstance(task, Writing) else {}
        return [
            selection,
            self.header_of(selection),
            benches,
            html.about(scene.bench),
            _asked(scene),
            "" if scene.runs else _no_run(selection),
            *_example(scene),
            gr.Slider(visible=bool(most), **most),
            *scene.cards({}, note=_ASK_FIRST),
        ]

    @user_errors_streaming
    def ask(self, selection: Selection, prompt: str, tokens: int) -> Iterator[list[Any]]:
        """Everyone answers; what they have said so far, some times a second."""
        if self.lab.public:
            check_public_question(prompt, int(tokens))
        scene, stoppable = self._scene(selection), gr.Button(interactive=True)
        try:
            yield [*scene.cards({}, note="Loading the base…"), stoppable]
            for said in self._said(scene, prompt, int(tokens)):
                yield [*scene.cards(said, prompt=prompt, note="" if said else "Loading…"), stoppable]
        except LabError as err:
            yield [*scene.cards({}, note=str(err)), stoppable]
            raise

    def _said(self, scene: Scene, prompt: str, tokens: int) -> Iterator[Answers]:
        """Nothing while models are loaded, then what each has said."""
        bench, task = scene.bench, test_split(scene.bench).task
        ids = written_prompt(bench, prompt, scene.question) if isinstance(task, Writing) else []
        answerers: list[Answerer] = []
        for one in self.models.answerers(bench, scene.trained):
            answerers.append(one)
            yield {}
        if isinstance(task, Writing):
            with closing(latest(stream_answers(answerers, ids, task, max_new_tokens=tokens))) as told:
                yield from told
        else:
            judged = judge(answerers, inputs_of(bench, scene.question, prompt), labels=answer_kind(bench) == "labels")
            yield {one.who: one for one in judged}

    def rest(self) -> Any:
        """Nothing is under way."""
        return gr.Button(interactive=False)

    @user_errors
    def halt(self, selection: Selection, prompt: str, said: Answers) -> list[Any]:
        """What was said when it was stopped stays."""
        return [*self._scene(selection).cards(said, prompt=prompt, note="Stopped."), self.rest()]

    def _visible(self, selection: Selection) -> list[Run]:
        return self.lab.visible_runs(selection.job)

    def _scene(self, selection: Selection) -> Scene:
        return Scene.of(selection, self._visible(selection))


def _asked(scene: Scene) -> Any:
    labels = labels_of([run.spec for run in scene.runs])
    choices = [(label, run.run_id) for label, run in zip(labels, scene.runs, strict=True)]
    chosen = [run.run_id for run in scene.chosen]
    return gr.Dropdown(choices=choices, value=chosen, multiselect=True, visible=bool(choices))


def _example(scene: Scene) -> list[Any]:
    question, is_image = scene.question, bool(scene.question.pixels)
    return [
        gr.Textbox(value=question.text, label=_KINDS[answer_kind(scene.bench)], visible=not is_image),
        gr.Number(value=question.row, label=f"Test image, 0 to {question.rows - 1}", visible=is_image),
        try_html.picture(question),
        try_html.asked(question, scene.bench.label_names()),
    ]


def _no_run(selection: Selection) -> str:
    link = f'<a class="lab-link" href="./?{escape(selection.query())}">Train one</a>'
    return f'<div class="lab-say">There is no run on this bench to put beside the base. {link} first.</div>'


def _unusable(sentence: str) -> list[Any]:
    """From the sentence about the bench on: its base or its data cannot be had."""
    none = gr.Dropdown(choices=[], value=[], multiselect=True, visible=False)
    example = [gr.Textbox(visible=False), gr.Number(visible=False), "", ""]
    return ["", none, html.say(sentence), *example, gr.Slider(visible=False), "", {}]
