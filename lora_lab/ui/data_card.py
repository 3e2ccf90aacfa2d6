"""What is in the data: the card of Train that stands there before anything is trained, where a bench is of text."""

from html import escape
from typing import Any

import gradio as gr

from lora_lab.benches import find_bench
from lora_lab.benches.preview import Preview
from lora_lab.errors import LabError
from lora_lab.plots import labels_sentence, lengths, lengths_caption, rows_sentence, shortened
from lora_lab.ui import html
from lora_lab.ui.lab import Lab
from lora_lab.ui.selection import Selection

_MOST_READ, _MOST_ANSWERED = 150, 90  # characters of a row


class DataCard:
    """First rows and their sizes on one side, their lengths on the other."""

    def __init__(self) -> None:
        with gr.Row(visible=False, elem_classes="lab-cards", elem_id="data-card") as self.box:
            with gr.Column(elem_classes="lab-card"):
                gr.HTML(html.question("What is in the data?", "the first training rows, and what should be answered to each"))
                self.rows = gr.HTML(elem_id="data-rows")
            with gr.Column(elem_classes="lab-card"):
                gr.HTML(html.question("How long are its rows?", "training rows by tokens, as the base's tokenizer counts them"))
                self.plot = gr.Plot(show_label=False, elem_classes="lab-plot", elem_id="lengths")
                self.says = gr.HTML(elem_id="lengths-says")
        self.parts = [self.box, self.rows, self.plot, self.says]


def shown(lab: Lab, selection: Selection) -> list[Any]:
    """The card of the bench that is selected; hidden where its data are no text, or cannot be had: the controls say why."""
    hidden = [gr.Row(visible=False), "", gr.Plot(value=None), ""]
    try:
        bench = find_bench(selection.bench_name, selection.data_spec)
        bench.prepare()
    except LabError:
        return hidden
    try:
        seen = lab.preview(bench)
    except LabError as err:
        return [gr.Row(visible=True), html.say(str(err), kind="error"), gr.Plot(value=None), ""]
    if seen is None:
        return hidden
    return [gr.Row(visible=True), rows_table(seen, bench.note()), lengths(seen), html.say(lengths_caption(seen))]


def rows_table(seen: Preview, note: str) -> str:
    """Sizes, first rows, labels, and what there is to know of the base."""
    body = "".join(
        f"<tr><td>{escape(shortened(read, _MOST_READ)) or '<small>nothing</small>'}</td>"
        f"<td>{escape(shortened(answer, _MOST_ANSWERED))}</td></tr>"
        for read, answer in seen.examples
    )
    head = "<tr><th>what it reads</th><th>what it should answer</th></tr>"
    table = f'<table class="lab-table lab-data" id="data-table">{head}{body}</table>'
    under = "".join(f'<div class="lab-s">{escape(text)}</div>' for text in filter(None, (labels_sentence(seen), note)))
    return html.say(rows_sentence(seen)) + f'<div class="lab-wide">{table}</div>{under}'
