"""A card of Look: a question, the plot that answers it, what it says, the numbers, and all of them as files."""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import plotly.graph_objects as go

from lora_lab.errors import LabError
from lora_lab.plots.figure_rows import figure_rows
from lora_lab.sweeps.results import no_formula
from lora_lab.ui import html
from lora_lab.ui.look_html import rows_table
from lora_lab.ui.look_subject import Sight

_PNG_JS = """() => {{
  const plot = document.querySelector('#{0} .js-plotly-plot');
  if (plot) window.Plotly.downloadImage(plot, {{format: 'png', scale: 2, filename: '{0}'}});
}}"""


@dataclass(frozen=True)
class Answer:
    """What a card shows. `rows` are its numbers where they are not those of the figure, `table` their text where not folded."""

    says: str = ""
    figure: go.Figure | None = None
    table: str = ""
    rows: Sequence[Mapping[str, Any]] = ()

    @property
    def numbers(self) -> Sequence[Mapping[str, Any]]:
        """A row a line of the file."""
        return self.rows or (figure_rows(self.figure) if self.figure else ())


@dataclass(frozen=True)
class Card:
    """A question with the function that answers it; `has_plot` says whether that gives a figure."""

    name: str
    question: str
    subtitle: str
    answer: Callable[[Sight], Answer]
    has_plot: bool = True


class CardView:
    """A card as the page's components; `control` builds what the card is steered by, under its question."""

    def __init__(self, card: Card, *, control: Callable[[], None] = lambda: None) -> None:
        self.card = card
        gr.HTML(html.question(card.question, card.subtitle))
        control()
        self.plot = gr.Plot(show_label=False, elem_classes="lab-plot", elem_id=card.name) if card.has_plot else None
        self.says = gr.HTML(elem_id=f"{card.name}-says")
        self.table = gr.HTML(elem_id=f"{card.name}-table")
        kinds = ("csv", "png", "html") if card.has_plot else ("csv",)
        with gr.Row(elem_classes="lab-files"):
            self.buttons = {
                kind: gr.Button(kind.upper(), elem_classes="lab-file", elem_id=f"{card.name}-{kind}", min_width=40, scale=0)
                for kind in kinds
            }

    @property
    def outputs(self) -> list[Any]:
        """What `updates` gives."""
        return [*([self.plot] if self.plot else []), self.says, self.table]

    def updates(self, sight: Sight) -> list[Any]:
        """The answer; where there is none, why."""
        try:
            answer = self.card.answer(sight)
        except LabError as err:
            return [*([gr.Plot(visible=False)] if self.plot else []), html.say(str(err)), ""]
        shown = answer.table or rows_table(f"{self.card.name}-numbers", answer.numbers)
        plot = [gr.Plot(value=answer.figure, visible=answer.figure is not None)] if self.plot else []
        return [*plot, html.say(answer.says), shown]

    def wire_png(self) -> None:
        """The browser draws the picture itself."""
        if "png" in self.buttons:
            self.buttons["png"].click(None, js=_PNG_JS.format(self.card.name), api_visibility="private")

    def save(self, sight: Sight, kind: str) -> str:
        """The card's numbers, or its figure, as a file.

        Raises:
            LabError: there is no answer to keep.
        """
        answer = self.card.answer(sight)
        path = sight.lab.exports.path(f"{self.card.name}.{kind}")
        if kind == "html" and answer.figure is not None:
            answer.figure.write_html(path, include_plotlyjs=True, config={"displaylogo": False})
        else:
            _write_csv(answer.numbers, path)
        return str(path)


def _write_csv(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    titles = list(dict.fromkeys(title for row in rows for title in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, titles)
        writer.writeheader()
        writer.writerows({title: no_formula(v) if isinstance(v, str) else v for title, v in row.items()} for row in rows)
