"""Look: what the rooms have in common. Runs, opened adapters and the map of matrices on the left, cards on the right."""

from dataclasses import replace
from functools import partial
from html import escape
from pathlib import Path
from typing import Any, ClassVar

import gradio as gr

from lora_lab.assets import on_disk
from lora_lab.benches import BENCH_NAMES
from lora_lab.errors import LabError, StoreError
from lora_lab.plots import labels_of, questions
from lora_lab.plots.matrix_layout import matrix_layout
from lora_lab.plots.matrix_map import matrix_map
from lora_lab.plots.measures import MATRIX_MEASURES
from lora_lab.roles import label_of
from lora_lab.specs import unique
from lora_lab.sweeps import Run
from lora_lab.sweeps.subjects import Subject
from lora_lab.ui import html
from lora_lab.ui.errors import user_errors
from lora_lab.ui.look_cards import Card, CardView
from lora_lab.ui.look_html import facts
from lora_lab.ui.look_subject import Sight, by_likeness, is_source, subject_of_file, subject_of_run
from lora_lab.ui.place import Place
from lora_lab.ui.selection import Selection

_FILE = "look-file"
_EMPTY = "There is no run to look at. Train one first: the Train page takes seconds on the digits. Or open an adapter."


class LookRoom(Place):
    """A room of Look: which measures its map has, the default first, and its cards, one or two a row."""

    name = "Look"
    measures: ClassVar[tuple[str, ...]]
    rows: ClassVar[tuple[tuple[Card, ...], ...]]

    def _build_controls(self) -> None:
        self.run = gr.Dropdown([], label="Run 1", elem_id="run")
        self.facts = gr.HTML(elem_id="facts")
        offered = [(MATRIX_MEASURES[name].label, name) for name in self.measures]
        self.measure = gr.Radio(offered, label=questions.WHERE.title, elem_classes="lab-chips lab-small", elem_id="measure")
        self.map = gr.HTML(js_on_load=html.PICK_JS, elem_id="map")
        self.against = gr.Dropdown([], label="Run 2, to compare", elem_id="against")
        self.own = self._build_own()
        with gr.Accordion("+ open an adapter", open=False, elem_classes="lab-more", elem_id="open"):
            where = "owner/name on the Hub" if self.lab.public else "a PEFT folder, a file in one, or a Hub id"
            self.source = gr.Textbox(label="Adapter", placeholder=where, elem_id="source")
            known = f"one of {', '.join(BENCH_NAMES[:3])}, …" + ("" if self.lab.public else ", a folder or a Hub id")
            self.under = gr.Textbox(label="Its base", placeholder=known, elem_id="under")
            with gr.Row(elem_classes="lab-ask"):
                self.as_first = gr.Button("Look at it", elem_classes="lab-stop", elem_id="open-first", min_width=110)
                self.as_second = gr.Button("Compare with it", elem_classes="lab-stop", elem_id="open-second", min_width=140)

    def _build_own(self) -> dict[str, Any]:
        """Controls of the room's own by the field of the selection that they set."""
        return {}

    def _build_answers(self) -> None:
        self.title = gr.HTML('<div class="lab-s">Reading…</div>', elem_id="title")
        self.views: list[CardView] = []
        with gr.Column(elem_classes="lab-look", elem_id="cards") as self.cards:
            for row in self.rows:
                with gr.Row(elem_classes="lab-cards"):
                    for card in row:
                        with gr.Column(elem_classes="lab-card"):
                            self._build_card(card)
            self._build_more()
        self.file = gr.DownloadButton(visible="hidden", elem_id=_FILE)

    def _build_card(self, card: Card) -> None:
        self.views.append(CardView(card))

    def _build_more(self) -> None:
        """What a room has beside its cards."""

    def _wire(self, page: gr.Blocks) -> None:
        controls = [self.run, self.against, self.measure, *self.own.values()]
        self.answers = [self.selection, self.header, *controls, self.under, self.facts, self.map, self.title, self.cards]
        self.answers += [output for view in self.views for output in view.outputs]
        seen: dict[str, Any] = {"show_progress": "minimal", "show_progress_on": [self.title], "api_visibility": "private"}
        page.load(self.restore, None, self.answers, **seen)
        for control in controls:
            control.input(self.choose, [self.selection, *controls], self.answers, trigger_mode="always_last", **seen)
        self.map.click(self.pick_matrix, self.selection, self.answers, **seen)
        boxes = [self.selection, self.source, self.under]
        for event in (self.as_first.click, self.source.submit):
            event(self.open_first, boxes, self.answers, **seen)
        self.as_second.click(self.open_second, boxes, self.answers, **seen)
        self.under.submit(self.put_under, [self.selection, self.under], self.answers, **seen)
        for view in self.views:
            self._wire_files(view)

    def _wire_files(self, view: CardView) -> None:
        view.wire_png()
        for kind in (kind for kind in view.buttons if kind != "png"):
            save = partial(self.save, view, kind)
            made = view.buttons[kind].click(save, self.selection, self.file, show_progress="hidden", api_visibility="private")
            made.success(None, js=html.SAVE_JS.format(_FILE), api_visibility="private")

    # Handlers: each changes the selection and shows what it then is.

    @user_errors
    def restore(self, request: gr.Request) -> list[Any]:
        """What the address names."""
        return self.show(Selection.from_query(dict(request.query_params)))

    @user_errors
    def choose(self, selection: Selection, run: str, against: str, measure: str, *own: Any) -> list[Any]:
        """A control moved."""
        chosen = dict(zip(self.own, own, strict=True))
        return self.show(replace(selection, run=run or "", against=against or "", measure=measure or "", **chosen))

    @user_errors
    def pick_matrix(self, selection: Selection, event: gr.EventData) -> list[Any]:
        """A cell of the map was clicked."""
        return self.show(replace(selection, matrix=event.pick))

    @user_errors
    def open_first(self, selection: Selection, source: str, under: str) -> list[Any]:
        """An adapter from a file in the place of run 1."""
        opened = self._opened(source, under)
        return self.show(replace(selection, run=opened.name, under=under.strip() or ("" if self.lab.public else opened.base_here)))

    @user_errors
    def open_second(self, selection: Selection, source: str, under: str) -> list[Any]:
        """An adapter from a file in the place of run 2."""
        return self.show(replace(selection, against=self._opened(source, under).name, under=under.strip()))

    @user_errors
    def put_under(self, selection: Selection, under: str) -> list[Any]:
        """Another base under the opened adapter."""
        return self.show(replace(selection, under=under.strip()))

    @user_errors
    def save(self, view: CardView, kind: str, selection: Selection) -> str:
        """A card as a file."""
        sight, problem = self._sight(selection)
        if sight is None:
            raise StoreError(problem)
        return view.save(sight, kind)

    def show(self, selection: Selection) -> list[Any]:
        """Everything, for this selection; what cannot be shown says why."""
        sight, problem = self._sight(selection)
        if sight is None:
            return self._nothing(selection, problem)
        selection, first = sight.selection, sight.first
        runs = self.lab.visible_runs(selection.job)
        measure, mapped = self._map(sight)
        warned = html.say(" ".join([*([problem] if problem else []), *first.adapter.warnings]))
        named = _named(sight.matrix)
        changes = bool(first.adapter)
        shown = [output for view in self.views for output in (view.updates(sight) if changes else [gr.skip()] * len(view.outputs))]
        return [
            selection,
            self.header_of(selection),
            _choices(runs, selection.run),
            _choices(runs, selection.against),
            gr.Radio(value=measure),
            *self._own_updates(sight),
            selection.under,
            facts(first),
            mapped,
            named + warned if changes else warned or html.say("This run changes no matrix."),
            gr.Column(visible=changes),
            *shown,
        ]

    # What the handlers share.

    def _opened(self, source: str, under: str) -> Subject:
        place = None if self.lab.public else on_disk(source.strip())
        name = str(place.resolve()) if place else source.strip()
        return subject_of_file(self.lab, name, under.strip())

    def _sight(self, selection: Selection) -> tuple[Sight | None, str]:
        """The two subjects and the matrix that a selection comes to, and what could not be opened."""
        runs = self.lab.visible_runs(selection.job)
        problems: list[str] = []
        chosen, beside = (self._subject(name, runs, selection.under, problems) for name in (selection.run, selection.against))
        first = chosen or self._readable(runs, problems) or beside
        if first is None:
            return None, " ".join(unique(problems)) or _EMPTY
        likely = by_likeness(runs, first.run) if first.run else []
        second = beside or self._readable(likely, problems) or first
        shared = [name for name in first.adapter if name in second.adapter] or list(first.adapter)
        matrix = selection.matrix if selection.matrix in first.adapter else matrix_layout(shared).deepest or selection.matrix
        of = selection.of if first.has_own_a and second.has_own_a else "delta"
        side = "in" if of == "a" else selection.side
        selection = replace(selection, run=first.name, against=second.name, matrix=matrix, of=of, side=side)
        return Sight(self.lab, selection, first, second), " ".join(unique(problems))

    def _subject(self, name: str, runs: list[Run], under: str, problems: list[str]) -> Subject | None:
        """What is called so; where it cannot be read, why is one more of the problems."""
        run = next((run for run in runs if run.run_id == name), None)
        try:
            if run is not None:
                return subject_of_run(self.lab, run)
            return subject_of_file(self.lab, name, under) if is_source(name) else None
        except LabError as err:
            problems.append(str(err))
            return None

    def _readable(self, runs: list[Run], problems: list[str]) -> Subject | None:
        """The first of the runs that can be read; of those before it, whose base or files are gone, one is told of."""
        refused: list[str] = []
        found = next((one for run in runs if (one := self._subject(run.run_id, runs, "", refused))), None)
        problems += refused[:1]
        return found

    def _map(self, sight: Sight) -> tuple[str, str]:
        """The measure shown and its map; why there is none where the base cannot be had."""
        chosen = sight.selection.measure
        name = chosen if chosen in self.measures else self.measures[0]
        measure = MATRIX_MEASURES[name]
        about = f'<div class="lab-s">{measure.about}; click one</div>'
        try:
            return name, about + matrix_map(sight.values(name), measure, picked=sight.matrix)
        except LabError as err:
            blank = dict.fromkeys(sight.first.adapter)
            return name, about + matrix_map(blank, measure, picked=sight.matrix) + html.say(str(err))

    def _own_updates(self, sight: Sight) -> list[Any]:
        return [getattr(sight.selection, field) for field in self.own]

    def _nothing(self, selection: Selection, problem: str) -> list[Any]:
        none = gr.Dropdown(choices=[], value=None)
        kept = [gr.skip()] * (len(self.own) + 1)
        hidden = [gr.skip() for view in self.views for _ in view.outputs]
        column = gr.Column(visible=False)
        return [selection, self.header_of(selection), none, none, gr.skip(), *kept, html.say(problem), "", "", column, *hidden]


def _named(matrix: str) -> str:
    """A matrix's title: how people call it, and its own name, which whoever made the adapter chose."""
    return f'<div class="lab-q">{escape(label_of(matrix))} <span class="lab-s">{escape(matrix)}</span></div>'


def _choices(runs: list[Run], chosen: str) -> gr.Dropdown:
    labels = labels_of([run.spec for run in runs])
    choices = [(label, run.run_id) for label, run in zip(labels, runs, strict=True)]
    opened = [("/".join(Path(chosen).parts[-2:]), chosen)] if is_source(chosen) else []
    return gr.Dropdown(choices=[*choices, *opened], value=chosen)
