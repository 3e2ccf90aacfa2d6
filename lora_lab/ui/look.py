"""Look: what one run's ΔW is made of, and how it relates to another's."""

from dataclasses import replace
from functools import lru_cache
from html import escape
from typing import Any

import gradio as gr

from lora_lab.adapters import Adapter
from lora_lab.analysis.records import Overlap, Spectrum
from lora_lab.analysis.spectra import spectrum as spectra_of
from lora_lab.analysis.subspaces import overlap_of
from lora_lab.errors import MergeError
from lora_lab.geometry import Matrix
from lora_lab.inference import merge_report
from lora_lab.plots import (
    energy,
    labels_of,
    merge_caption,
    method_label,
    overlap,
    overlap_caption,
    spectrum,
    spectrum_caption,
    spectrum_lines,
)
from lora_lab.roles import label_of, layer_of, role_of
from lora_lab.specs import METHODS, MOVING_INITS, PLAIN_LORA
from lora_lab.sweeps import Run
from lora_lab.ui import html
from lora_lab.ui.errors import user_errors
from lora_lab.ui.place import MEASURES, Place
from lora_lab.ui.selection import Selection
from lora_lab.units import count

_OF = (("of ΔW", "delta"), ("of A", "a"))
_SIDES = (("input side", "in"), ("output side", "out"))


class LookView(Place):
    """Runs and matrices on the left, spectra and overlaps on the right."""

    name = "Look"

    def _build_controls(self) -> None:
        self.run = gr.Dropdown([], label="Run 1", elem_id="run")
        self.facts = gr.HTML(elem_id="facts")
        gr.HTML('<div class="lab-h">Where did it learn? <small>‖ΔW‖ (Frobenius) by layer and matrix; click one</small></div>')
        self.map = gr.HTML(js_on_load=html.PICK_JS, elem_id="map")
        self.against = gr.Dropdown([], label="Run 2, to compare", elem_id="against")
        self.of = gr.Radio(list(_OF), value="delta", label="Singular vectors", elem_classes="lab-chips", elem_id="of")
        self.side = gr.Radio(list(_SIDES), value="in", label="Directions on the", elem_classes="lab-chips", elem_id="side")

    def _build_answers(self) -> None:
        self.title = gr.HTML(elem_id="title")
        with gr.Row(elem_classes="lab-cards", elem_id="shape") as self.shape:
            with gr.Column(elem_classes="lab-card"):
                gr.HTML(html.question("How many directions does it use?", "singular values of ΔW; the dotted line is the rank"))
                self.spectrum = gr.Plot(show_label=False, elem_classes="lab-plot", elem_id="look-spectrum")
            with gr.Column(elem_classes="lab-card"):
                gr.HTML(html.question("How few would do?", "share of ‖ΔW‖² that the strongest directions keep"))
                self.energy = gr.Plot(show_label=False, elem_classes="lab-plot", elem_id="energy")
        self.spectrum_says = gr.HTML(elem_id="spectrum-says")
        with gr.Column(elem_classes="lab-card", elem_id="same") as self.same:
            gr.HTML(
                html.question(
                    "Do they find the same directions?",
                    "φ(i, j): how much of the first i directions of run 1 lies in the first j of run 2; 0 none, 1 all",
                )
            )
            self.overlap = gr.Plot(show_label=False, elem_classes="lab-plot", elem_id="overlap")
            self.overlap_says = gr.HTML(elem_id="overlap-says")
        with gr.Column(elem_classes="lab-card", elem_id="merge-card"):
            gr.HTML(
                html.question(
                    "What does merging cost?", "run 1, its adapter put into the base's weights; at most 256 held-out examples"
                )
            )
            with gr.Row(elem_classes="lab-ask"):
                self.merge = gr.Button("Measure it", elem_classes="lab-stop", elem_id="merge", min_width=130, scale=0)
            self.merged = gr.HTML(elem_id="merged")

    def _wire(self, page: gr.Blocks) -> None:
        controls = [self.run, self.against, self.of, self.side]
        answers = [self.selection, self.header, *controls, self.facts, self.map, self.title]
        answers += [self.shape, self.same, self.merged]
        answers += [self.spectrum, self.energy, self.spectrum_says, self.overlap, self.overlap_says]
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        page.load(self.restore, None, answers, **quiet)
        for control in controls:
            control.input(self.choose, [self.selection, *controls], answers, trigger_mode="always_last", **quiet)
        self.map.click(self.pick_matrix, self.selection, answers, **quiet)
        measured = {"concurrency_limit": 1, "concurrency_id": MEASURES, "show_progress": "minimal", "api_name": "merge"}
        self.merge.click(self.measure_merge, self.selection, self.merged, **measured)

    # Handlers.

    @user_errors
    def restore(self, request: gr.Request) -> list[Any]:
        """What the address names."""
        return self.show(Selection.from_query(dict(request.query_params)))

    @user_errors
    def choose(self, selection: Selection, run: str, against: str, of: str, side: str) -> list[Any]:
        """A control moved. A's directions live on the input side only."""
        side = "in" if of == "a" else side
        return self.show(replace(selection, run=run or "", against=against or "", of=of, side=side))

    @user_errors
    def pick_matrix(self, selection: Selection, event: gr.EventData) -> list[Any]:
        """A cell of the map was clicked."""
        return self.show(replace(selection, matrix=event.pick))

    def show(self, selection: Selection) -> list[Any]:
        """Everything, for this selection."""
        runs = self.lab.visible_runs(selection.job)
        if not runs:
            return self._nothing(selection)
        run = _pick(runs, selection.run) or runs[0]
        against = _pick(runs, selection.against) or min(runs, key=lambda other: _distance(other, run))
        first, second = self.lab.adapter(run), self.lab.adapter(against)
        shared = [name for name in first if name in second] or list(first)
        matrix = selection.matrix if selection.matrix in first else next(reversed(shared), "")
        has_a = _trains_a(run) and _trains_a(against)
        of = selection.of if has_a else "delta"
        selection = replace(selection, run=run.run_id, against=against.run_id, matrix=matrix or selection.matrix, of=of)
        labels = dict(zip((r.run_id for r in runs), labels_of([r.spec for r in runs]), strict=True))
        return [
            selection,
            self.header_of(selection),
            gr.Dropdown(choices=[(labels[r.run_id], r.run_id) for r in runs], value=run.run_id),
            gr.Dropdown(choices=[(labels[r.run_id], r.run_id) for r in runs], value=against.run_id),
            gr.Radio(value=of, interactive=has_a),
            gr.Radio(value=selection.side, interactive=of == "delta"),
            _facts(run),
            *_answers(run, against, first, second, selection),
        ]

    @user_errors
    def measure_merge(self, selection: Selection) -> str:
        """Merge run 1 in each way and measure what that changes."""
        run = _pick(self.lab.visible_runs(selection.job), selection.run)
        if run is None:
            return html.say("There is no run to merge.")
        try:
            report = _merged(run.spec, run.adapter_dir) if run.is_complete else merge_report(run.spec, run.adapter_dir)
        except MergeError as err:
            return html.say(str(err))
        return html.merge_table(report) + html.say(merge_caption(report))

    def _nothing(self, selection: Selection) -> list[Any]:
        says = html.say("There is no run to look at. Train one first: the Train page takes seconds on the digits.")
        none = gr.Dropdown(choices=[], value=None)
        header = self.header_of(selection)
        hidden = gr.Row(visible=False), gr.Column(visible=False)
        return [selection, header, none, none, "delta", "in", says, "", "", *hidden, "", gr.skip(), gr.skip(), "", gr.skip(), ""]


def _pick(runs: list[Run], run_id: str) -> Run | None:
    return next((run for run in runs if run.run_id == run_id), None)


def _answers(run: Run, against: Run, first: Adapter, second: Adapter, selection: Selection) -> list[Any]:
    """The map, the title and the cards; of a run that changes no matrix the sentence that says so, and no plot."""
    matrix = selection.matrix
    if not first:
        hidden = gr.Row(visible=False), gr.Column(visible=False)
        says = html.say(" ".join(first.warnings) or "This run changes no matrix.")
        return ["", says, *hidden, "", gr.skip(), gr.skip(), "", gr.skip(), ""]
    warned = html.say(" ".join(first.warnings))
    title = f'<div class="lab-q">{label_of(matrix)} <span class="lab-s">{matrix}</span></div>{warned}'
    cards = gr.Row(visible=True), gr.Column(visible=True)
    spectra = _spectra(run, against, first, second, matrix)
    return [_map(first, matrix), title, *cards, "", *spectra, *_overlap(run, against, first, second, matrix, selection)]


_merged = lru_cache(maxsize=32)(merge_report)


def _trains_a(run: Run) -> bool:
    """Whether the A of the run's ΔW is the one that was trained, from a start of its own."""
    return run.spec.tuning.method in PLAIN_LORA and run.spec.tuning.init_lora_weights not in MOVING_INITS


def _changes_matrices(run: Run) -> bool:
    return METHODS[run.spec.tuning.method].has_targets or run.spec.tuning.method in ("full", "partial")


def _distance(other: Run, run: Run) -> tuple[bool, ...]:
    """The best first comparison is least: the same base, another run, the same method and targets, the same r with another seed."""
    return (
        other.spec.base_sha256 != run.spec.base_sha256,
        other.run_id == run.run_id,
        _changes_matrices(other) != _changes_matrices(run),
        other.spec.bench != run.spec.bench,
        other.spec.tuning.method != run.spec.tuning.method,
        other.spec.tuning.target_modules != run.spec.tuning.target_modules,
        other.spec.tuning.r != run.spec.tuning.r,
        replace(other.spec, seed=run.spec.seed) != run.spec,
    )


def _facts(run: Run) -> str:
    m, lora = run.metrics, run.spec.tuning
    score, base = (_shown(run, run.score(base=base)) for base in (False, True))
    meaning = METHODS[lora.method].r_is
    said = (
        escape(run.spec.bench),
        f"<b>{escape(method_label(run.spec))}</b>",
        *([f"{'r' if meaning == 'rank' else meaning} <b>{lora.r}</b>"] if meaning else []),
        *([f"α <b>{lora.lora_alpha:g}</b>"] if run.spec.tuning.has_alpha else []),
        *([escape(run.spec.optimizer)] if run.spec.optimizer != "AdamW" else []),
        f"seed <b>{run.spec.seed}</b>",
        f"{m['step']} of {run.spec.steps} steps, {m['status']}",
        f"{run.metric.label} <b>{score}</b>, frozen base {base}",
        f"<b>{count(m['trainable_params'])}</b> trained",
    )
    note = f'<div class="lab-s">{escape(m["base_note"])}</div>' if m.get("base_note") else ""
    return f'<div class="lab-counts">{"".join(f"<span>{part}</span>" for part in said)}</div>{note}'


def _shown(run: Run, score: float | None) -> str:
    return "not measured" if score is None else run.metric.text(score)


def _map(adapter: Adapter, matrix: str) -> str:
    norms = {one.name: one.frobenius for one in spectra_of(adapter)}
    matrices = [Matrix(name, role_of(name), layer_of(name), *delta.shape) for name, delta in adapter.items()]
    return html.norm_map(norms, matrices, picked=matrix)


def _spectra(run: Run, against: Run, first: Adapter, second: Adapter, matrix: str) -> list[Any]:
    pairs = [(run, first), *([(against, second)] if against.run_id != run.run_id and matrix in second else [])]
    names = labels_of([r.spec for r, _ in pairs])
    found: list[Spectrum] = [spectra_of({matrix: adapter[matrix]})[0] for _, adapter in pairs]
    lines = spectrum_lines([r.spec for r, _ in pairs], [one.singular_values for one in found])
    return [spectrum(lines), energy(lines), html.say(spectrum_caption(list(zip(names, found, strict=True))))]


def _overlap(run: Run, against: Run, first: Adapter, second: Adapter, matrix: str, selection: Selection) -> list[Any]:
    if matrix not in second or first[matrix].shape != second[matrix].shape:
        says = f"Run 2 does not adapt {label_of(matrix)}, or its base has other shapes: nothing to compare."
        return [
            gr.Plot(visible=False),
            html.say(" ".join(["Run 2:", *second.warnings]) if not second and second.warnings else says),
        ]
    record: Overlap = overlap_of(matrix, first[matrix], second[matrix], of=selection.of, side=selection.side)  # type: ignore[arg-type]
    names = ["run 1", "run 2"] if run.run_id == against.run_id else labels_of([run.spec, against.spec])
    plot = overlap(record, first=names[0], second=names[1])
    return [gr.Plot(value=plot, visible=True), html.say(overlap_caption(record, first=names[0], second=names[1]))]
