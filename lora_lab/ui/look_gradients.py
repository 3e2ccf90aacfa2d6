"""What the first gradient of a run's base knew of what the run then found: measured when asked."""

from typing import Any

import gradio as gr

from lora_lab.analysis.gradient_records import GradientAdvice
from lora_lab.plots import questions
from lora_lab.plots.base_gradients import (
    base_gradient_caption,
    base_gradient_map,
    base_gradient_spectra,
    gradient_table,
    learned_beside_caption,
    tried_advice_caption,
)
from lora_lab.plots.html_parts import folded, table
from lora_lab.sweeps import Run
from lora_lab.sweeps.gradient_advice import gradient_advice
from lora_lab.ui import html
from lora_lab.ui.errors import user_errors
from lora_lab.ui.lab import Lab
from lora_lab.ui.place import MEASURES
from lora_lab.ui.selection import Selection


class GradientCard:
    """A button, the map and the spectra of ∂L/∂W at step 0, and what runs 1 and 2 found beside it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        with gr.Column(elem_classes="lab-card", elem_id="knew-card"):
            gr.HTML(html.question(*questions.GRADIENT))
            with gr.Row(elem_classes="lab-ask"):
                self.button = gr.Button("Measure it", elem_classes="lab-stop", elem_id="knew", min_width=130, scale=0)
            with gr.Row(elem_classes="lab-cards"):
                self.map = gr.Plot(show_label=False, elem_classes="lab-plot", elem_id="knew-map", visible=False)
                self.spectra = gr.Plot(show_label=False, elem_classes="lab-plot", elem_id="knew-spectra", visible=False)
            self.says = gr.HTML(elem_id="knew-says")

    def wire(self, selection: gr.State, run: gr.Dropdown) -> None:
        """What it shows is of the run that was asked about: another run hides it."""
        answers = [self.map, self.spectra, self.says]
        measured: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": MEASURES, "show_progress": "minimal"}
        self.button.click(self.measure, selection, answers, api_name="gradients", **measured)
        run.change(lambda: _nothing(""), None, answers, show_progress="hidden", api_visibility="private")

    @user_errors
    def measure(self, selection: Selection) -> list[Any]:
        """The gradient of the base of run 1, beside both runs and beside the targets that this store has tried."""
        runs = self.lab.visible_runs(selection.job)
        first = next((run for run in runs if run.run_id == selection.run), None)
        if first is None:
            return _nothing("The gradient is that of a run's base on the run's data; an adapter from a file names no data.")
        spec, chosen = first.spec, (selection.run, selection.against)
        beside = [run for run in runs if run.run_id in chosen and _task(run) == _task(first)]
        beside.sort(key=lambda run: chosen.index(run.run_id))
        advice = gradient_advice(
            spec.bench,
            data=spec.data,
            seed=spec.seed,
            r=spec.tuning.r,
            against=beside,
            runs=runs,
            device=self.lab.device,
        )
        plots = [base_gradient_map(advice), base_gradient_spectra(advice.matrices)]
        return [*(gr.Plot(value=plot, visible=True) for plot in plots), _said(advice, selection)]


def _task(run: Run) -> tuple[object, ...]:
    return run.spec.bench, run.spec.base_sha256, run.spec.data


def _nothing(sentence: str) -> list[Any]:
    return [gr.Plot(visible=False), gr.Plot(visible=False), html.say(sentence)]


def _said(advice: GradientAdvice, selection: Selection) -> str:
    names = {selection.against: "run 2", selection.run: "run 1"}
    sentences = [base_gradient_caption(advice)]
    sentences += [learned_beside_caption(one, run=names.get(one.run_id, one.run_id)) for one in advice.against]
    sentences.append(tried_advice_caption(advice.tried))
    return "".join(html.say(sentence) for sentence in sentences) + folded(
        "the numbers", f'<div class="lab-scroll">{table("knew-numbers", *gradient_table(advice))}</div>'
    )
