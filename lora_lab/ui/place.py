"""What the places of the page have in common: one frame, one selection, one header."""

from typing import ClassVar

import gradio as gr

from lora_lab.ui import html
from lora_lab.ui.device import device_name
from lora_lab.ui.lab import Lab
from lora_lab.ui.selection import Selection

MEASURES = "measures"  # the queue of what computes for seconds in this process: one at a time, whoever asks


class Place:
    """Controls on the left, answers on the right. The visitor's choices are one Selection in a gr.State.

    A place says its `name`, the room where it has several, and how to build its controls and its answers and to wire them.
    """

    name: ClassVar[str]
    room: ClassVar[str] = ""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    def build(self, page: gr.Blocks) -> None:
        """Lay the place out inside `page` and wire it."""
        gr.Navbar(visible=False)
        self.selection = gr.State(Selection())
        self.header = gr.HTML(self.header_of(Selection()), js_on_load=html.HEADER_JS)
        with gr.Row(elem_classes="lab-main"):
            with gr.Column(elem_classes="lab-aside"):
                self._build_controls()
            with gr.Column(elem_classes="lab-answers"):
                self._build_answers()
        self._wire(page)

    def header_of(self, selection: Selection) -> str:
        """The header, whose script writes the selection into the address."""
        return html.header(self.name, selection.query(), device=device_name(self.lab.device), room=self.room)

    def _build_controls(self) -> None:
        raise NotImplementedError

    def _build_answers(self) -> None:
        raise NotImplementedError

    def _wire(self, page: gr.Blocks) -> None:
        raise NotImplementedError
