"""Results: every run of a bench that is kept. Which configuration is best, what the good ones share, tables, files, delete."""

from collections.abc import Callable
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import pandas as pd

from lora_lab.errors import StoreError
from lora_lab.plots import labels_of
from lora_lab.plots.leader_captions import ranking_caption
from lora_lab.plots.parallel import parallel_coordinates
from lora_lab.specs import METHODS, unique
from lora_lab.sweeps import Run
from lora_lab.sweeps.configurations import rank_configurations
from lora_lab.sweeps.pivots import by_rank, by_targets, pivot_texts
from lora_lab.sweeps.results import axes_of, results_table, write_csv, write_parquet
from lora_lab.ui import html
from lora_lab.ui.errors import user_errors
from lora_lab.ui.place import Place
from lora_lab.ui.results_html import pivot_table, ranking_table, runs_to_pick
from lora_lab.ui.selection import Selection

_TICK_S = 2.0
_MOST_LISTED = 300  # runs to pick from, the newest; the tables and files have all
_FILES: dict[str, Callable[[pd.DataFrame, Path], None]] = {"csv": write_csv, "parquet": write_parquet}


class ResultsView(Place):
    """Which runs on the left, what they come to on the right."""

    name, room = "Train", "Results"

    def _build_controls(self) -> None:
        self.bench = gr.Dropdown([], label="Bench", elem_id="kept-bench")
        self.methods = gr.Dropdown(
            [], value=[], multiselect=True, label="Methods, all where none is chosen", elem_id="kept-methods"
        )
        self.counts = gr.HTML(elem_id="kept-counts")
        gr.HTML('<div class="lab-h">Take them with you</div>')
        with gr.Row(elem_classes="lab-ask"):
            kinds = (("csv", "Runs as CSV"), ("parquet", "Runs as Parquet"))
            self.save = {
                kind: gr.Button(label, elem_classes="lab-stop", elem_id=f"save-{kind}", min_width=130) for kind, label in kinds
            }
        self.files = {kind: gr.DownloadButton(visible="hidden", elem_id=f"{kind}-runs") for kind in self.save}

    def _build_answers(self) -> None:
        self.seen, self.picked, self.timer = gr.State(""), gr.State(()), gr.Timer(_TICK_S)
        with gr.Column(elem_classes="lab-card"):
            subtitle = "best mean on the validation split first, ± sd over seeds; a place spans what the spread leaves open"
            gr.HTML(html.question("Which configuration is best?", subtitle))
            self.ranking, self.says = gr.HTML(), gr.HTML(elem_id="ranking-says")
        with gr.Column(elem_classes="lab-card"):
            subtitle = "a line a run through its settings to its score; drag along an axis to keep the runs that pass there"
            gr.HTML(html.question("What do the good runs have in common?", subtitle))
            self.parallel = gr.Plot(show_label=False, elem_classes="lab-plot", elem_id="parallel")
        with gr.Column(elem_classes="lab-card"):
            subtitle = "the shape of the paper's Table 6: mean ± sd on the validation split (seeds), a column a rank"
            gr.HTML(html.question("How much rank is enough?", subtitle))
            self.ranks = gr.HTML()
        with gr.Column(elem_classes="lab-card"):
            subtitle = "the shape of the paper's Table 5: choices of targets that train as many parameters, with the rank that buys"
            gr.HTML(html.question("Which matrices, at one budget?", subtitle))
            self.targets = gr.HTML()
        with gr.Column(elem_classes="lab-card"):
            gr.HTML(html.question("Which runs are there?", "newest first; tick runs to delete them, click one to look inside"))
            self.runs = gr.HTML(js_on_load=html.PICK_JS)
            with gr.Row(elem_classes="lab-ask"):
                self.delete = gr.Button(
                    "Delete", elem_classes="lab-stop", elem_id="delete", min_width=120, scale=0, interactive=False
                )
                self.sure = gr.Button("For good", variant="stop", elem_id="sure", min_width=120, scale=0, visible=False)
                self.keep = gr.Button("Keep them", elem_classes="lab-stop", elem_id="keep", min_width=120, scale=0, visible=False)

    def _wire(self, page: gr.Blocks) -> None:
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        answers = [self.counts, self.ranking, self.says, self.parallel, self.ranks, self.targets, self.runs, self.seen]
        watched = (self.watch, [self.selection, self.picked, self.seen], answers)
        ticked = [self.picked, self.runs, self.delete, self.sure, self.keep]

        restored = page.load(self.restore, None, [self.selection, self.header, self.bench, self.methods], **quiet)
        restored.then(*watched, **quiet)
        for choice in (self.bench, self.methods):
            chosen = [self.selection, self.header, self.bench, self.methods]
            moved = choice.input(self.choose, [self.selection, self.bench, self.methods], chosen, **quiet)
            moved.then(*watched, **quiet)
        self.timer.tick(*watched, trigger_mode="once", **quiet)
        self.runs.click(self.pick, [self.selection, self.picked], ticked, **quiet)
        self.delete.click(self.confirm, self.picked, [self.delete, self.sure, self.keep], **quiet)
        self.keep.click(self.untick, self.selection, ticked, **quiet)
        gone = self.sure.click(self.remove, [self.selection, self.picked], ticked, **quiet)
        gone.success(*watched, **quiet)
        for kind, button in self.save.items():
            made = button.click(getattr(self, f"save_{kind}"), self.selection, self.files[kind], **quiet)
            made.success(None, js=html.SAVE_JS.format(f"{kind}-runs"), api_visibility="private")

    # Handlers: each reads controls, asks the core, and returns what its outputs show.

    @user_errors
    def restore(self, request: gr.Request) -> list[Any]:
        """The selection that the address names."""
        return self._shown(Selection.from_query(dict(request.query_params)))

    @user_errors
    def choose(self, selection: Selection, bench: str, methods: list[str]) -> list[Any]:
        """Another bench, or only some methods."""
        return self._shown(replace(selection, kept=bench or "", only=tuple(m for m in METHODS if m in methods)))

    @user_errors
    def watch(self, selection: Selection, picked: tuple[str, ...], seen: str) -> list[Any]:
        """The answers as they are now; nothing is sent where no run has come or gone."""
        runs = self._runs(selection)
        mark = f"{selection.kept} {selection.only} {len(runs)} {runs[0].run_id if runs else ''} {sum(r.is_complete for r in runs)}"
        if mark == seen:
            return [gr.skip()] * 8
        table = results_table(runs)
        ranking = rank_configurations(runs[::-1])
        none = "It needs finished LoRA runs of two choices of targets that train as many parameters."
        axes, scores = axes_of(run.spec for run in runs), [run.score() for run in runs]
        return [
            _counts(runs),
            ranking_table(ranking),
            html.say(ranking_caption(ranking)),
            parallel_coordinates(axes, scores, ranking.metric),
            pivot_table(pivot_texts(by_rank(table), "score"), name="by-rank", nothing="It needs finished runs with a rank."),
            pivot_table(_of_several(by_targets(table)), name="by-targets", nothing=none),
            self._list(selection, runs, picked),
            mark,
        ]

    @user_errors
    def pick(self, selection: Selection, picked: tuple[str, ...], event: gr.EventData) -> list[Any]:
        """A run was ticked, or no longer."""
        run_id = event.pick
        return self._picks(selection, tuple(p for p in picked if p != run_id) if run_id in picked else (*picked, run_id))

    @user_errors
    def untick(self, selection: Selection) -> list[Any]:
        """Nothing is to be deleted after all."""
        return self._picks(selection, ())

    def confirm(self, picked: tuple[str, ...]) -> list[Any]:
        """Deleting cannot be taken back: once more."""
        return [gr.Button(visible=False), gr.Button(f"Delete {_some(len(picked))} for good", visible=True), gr.Button(visible=True)]

    @user_errors
    def remove(self, selection: Selection, picked: tuple[str, ...]) -> list[Any]:
        """Delete the ticked runs, of those that this visitor may see."""
        mine = {run.run_id for run in self.lab.visible_runs(selection.job)}
        self.lab.store.delete(run_id for run_id in picked if run_id in mine)
        return self._picks(selection, ())

    @user_errors
    def save_csv(self, selection: Selection) -> str:
        """The runs as CSV."""
        return self._save(selection, "csv")

    @user_errors
    def save_parquet(self, selection: Selection) -> str:
        """The runs as Parquet."""
        return self._save(selection, "parquet")

    # What the handlers share.

    def _save(self, selection: Selection, kind: str) -> str:
        runs = self._runs(selection)
        if not runs:
            raise StoreError("The runs to save must be at least one. Got none.")
        path = self.lab.exports.path(f"runs.{kind}")
        _FILES[kind](results_table(runs), path)
        return str(path)

    def _shown(self, selection: Selection) -> list[Any]:
        benches = unique(run.spec.bench for run in self.lab.visible_runs(selection.job))
        bench = next((b for b in (selection.kept, selection.bench_name) if b in benches), next(iter(benches), ""))
        selection = replace(selection, kept=bench)
        there = {run.spec.tuning.method for run in self._runs(replace(selection, only=()))}
        selection = replace(selection, only=tuple(method for method in selection.only if method in there))
        offered = [(info.label, method) for method, info in METHODS.items() if method in there]
        chosen = gr.Dropdown(choices=offered, value=list(selection.only), multiselect=True)
        return [selection, self.header_of(selection), gr.Dropdown(choices=list(benches), value=bench or None), chosen]

    def _runs(self, selection: Selection) -> list[Run]:
        """Those of the bench, and of the methods chosen, newest first."""
        runs = self.lab.visible_runs(selection.job)
        return [
            r for r in runs if r.spec.bench == selection.kept and (not selection.only or r.spec.tuning.method in selection.only)
        ]

    def _list(self, selection: Selection, runs: list[Run], picked: tuple[str, ...]) -> str:
        runs = runs[:_MOST_LISTED]
        links = [f"./look?{escape(replace(selection, run=run.run_id).query())}" for run in runs]
        return runs_to_pick(runs, labels_of([run.spec for run in runs]), links, picked)

    def _picks(self, selection: Selection, picked: tuple[str, ...]) -> list[Any]:
        label = f"Delete {_some(len(picked))}…" if picked else "Delete"
        hidden = gr.Button(visible=False), gr.Button(visible=False)
        listed = self._list(selection, self._runs(selection), picked)
        return [picked, listed, gr.Button(label, interactive=bool(picked), visible=True), *hidden]


def _of_several(frame: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """A pivot by targets; nothing where there is but one choice of them."""
    several = frame.columns.get_level_values("target_roles").nunique() > 1
    return pivot_texts(frame, "score") if several else ([], [])


def _some(runs: int) -> str:
    return f"{runs} {'run' if runs == 1 else 'runs'}"


def _counts(runs: list[Run]) -> str:
    statuses = unique(run.metrics["status"] for run in runs)
    told = "".join(f"<span><b>{sum(run.metrics['status'] == s for run in runs):,}</b> {escape(s)}</span>" for s in statuses)
    return f'<div class="lab-counts">{told or "<span>No run is kept yet.</span>"}</div>'
