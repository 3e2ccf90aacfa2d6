"""Look, Spectra: how many directions one ΔW uses."""

from dataclasses import asdict
from functools import lru_cache
from typing import Any

import gradio as gr

from lora_lab.analysis.noise import noise_of
from lora_lab.analysis.records import Spectrum
from lora_lab.errors import MergeError, StoreError
from lora_lab.inference import merge_report
from lora_lab.plots import energy, merge_caption, questions, spectrum, spectrum_caption
from lora_lab.plots.drifts import drift_caption, drift_curves
from lora_lab.plots.figure_rows import figure_rows
from lora_lab.plots.look_captions import noise_caption
from lora_lab.plots.look_tables import measures_table
from lora_lab.plots.spectra import noise_rows
from lora_lab.ui import html
from lora_lab.ui.errors import user_errors
from lora_lab.ui.look import LookRoom
from lora_lab.ui.look_cards import Answer, Card
from lora_lab.ui.look_subject import Sight
from lora_lab.ui.place import MEASURES
from lora_lab.ui.selection import Selection

_merged = lru_cache(maxsize=32)(merge_report)


def _labelled(sight: Sight) -> list[tuple[str, Spectrum]]:
    found = [sight.spectra(one)[sight.matrix] for one in sight.subjects]
    return list(zip(sight.labels, found, strict=True))


def _spectrum(sight: Sight) -> Answer:
    label, one = _labelled(sight)[0]
    noise = noise_of(one)
    rows = [*figure_rows(spectrum(sight.lines())), *noise_rows(label, noise)]
    return Answer(noise_caption(label, one, noise), spectrum(sight.lines(), noise=noise, noise_of=label), rows=rows)


def _energy(sight: Sight) -> Answer:
    return Answer(spectrum_caption(_labelled(sight)), energy(sight.lines()))


def _measures(sight: Sight) -> Answer:
    norms = [sight.norms(one) for one in sight.subjects]
    rows = [
        {"of": label, **asdict(one)}
        for label, subject in zip(sight.labels, sight.subjects, strict=True)
        for one in sight.spectra(subject).values()
    ]
    return Answer(table=measures_table(_labelled(sight), norms), rows=rows)


def _drift(sight: Sight) -> Answer:
    run = sight.first.run
    if run is None:
        raise StoreError("The adapter must be a run of the lab that kept snapshots. Got one from a file.")
    drifts = run.drift()
    return Answer(drift_caption(drifts), drift_curves(drifts))


class SpectraView(LookRoom):
    """One ΔW: its singular values, its energy, its ranks and norms, and what merging it costs."""

    room = "Spectra"
    measures = ("frobenius", "share", "stable_rank", "effective_rank", "rank_for_95")
    rows = (
        (
            Card("look-spectrum", *questions.SPECTRUM, _spectrum),
            Card("energy", *questions.ENERGY, _energy),
        ),
        (Card("measures", "What are its numbers?", "this matrix; the CSV file has every matrix", _measures, has_plot=False),),
        (
            Card(
                "drift",
                "When did it find its directions?",
                "φ of the four leading directions on the way with those at the end, every matrix; of a run that kept snapshots",
                _drift,
            ),
        ),
    )

    def _build_more(self) -> None:
        with gr.Column(elem_classes="lab-card", elem_id="merge-card"):
            subtitle = "run 1, its adapter put into the base's weights; at most 256 held-out examples"
            gr.HTML(html.question("What does merging cost?", subtitle))
            with gr.Row(elem_classes="lab-ask"):
                self.merge = gr.Button("Measure it", elem_classes="lab-stop", elem_id="merge", min_width=130, scale=0)
            self.merged = gr.HTML(elem_id="merged")

    def _wire(self, page: gr.Blocks) -> None:
        super()._wire(page)
        measured: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": MEASURES, "show_progress": "minimal"}
        self.merge.click(self.measure_merge, self.selection, self.merged, api_name="merge", **measured)
        self.run.change(lambda: "", None, self.merged, show_progress="hidden", api_visibility="private")

    @user_errors
    def measure_merge(self, selection: Selection) -> str:
        """Merge run 1 in each way and measure what that changes."""
        run = next((run for run in self.lab.visible_runs(selection.job) if run.run_id == selection.run), None)
        if run is None:
            return html.say("There is no run to merge.")
        try:
            report = _merged(run.spec, run.adapter_dir) if run.is_complete else merge_report(run.spec, run.adapter_dir)
        except MergeError as err:
            return html.say(str(err))
        return html.merge_table(report) + html.say(merge_caption(report))
