"""Sweep: choose a grid, start it, watch it learn while the notebook stays usable."""

import threading
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any, Literal

import ipywidgets
import plotly.graph_objects as go

from lora_lab.benches import find_bench
from lora_lab.errors import LabError
from lora_lab.plots import curve_lines, loss_curves, questions, score_curves, spectrum
from lora_lab.plots.choices import ALPHAS, RANKS, SEEDS, alpha_label
from lora_lab.plots.html_parts import question, say
from lora_lab.plots.lines import live_spectrum_lines
from lora_lab.plots.rank_table import rank_table_html
from lora_lab.plots.sweep_captions import learned_caption
from lora_lab.roles import matrix_label
from lora_lab.specs import METHODS, DataSpec, MethodSpec, RunSpec
from lora_lab.sweep_spec import SweepSpec
from lora_lab.sweeps import Job, Run, RunProgress, RunStore, expand
from lora_lab.sweeps.progress import adapted_matrices, most_adapted
from lora_lab.sweeps.sentences import plan_sentence, progress_sentence, start_label, state_sentence
from lora_lab.sweeps.summary import base_name, best_run, rank_table
from lora_lab.widgets.controls import INT, NUMBERS, Chips, Field, Targets, menu, offer
from lora_lab.widgets.panel import Answer, Panel, beside, card

Kind = Literal["score", "loss", "spectrum"]
_METHODS = ("lora", "rslora", "lora+", "dora", "vera", "adalora", "ia3", "bitfit", "full")
_NO_MATRIX = [("", None)]
_EVERY_S = 0.4
_TURN = threading.Semaphore()  # one sweep of a notebook trains at a time, others wait


class Sweep(Panel):
    """A grid of runs on a bench: its curves, its scores by rank and its spectra, live while it trains in the background.

    Controls: method, r, alpha, targets, seeds, lr, steps, matrix, and the buttons Start and Stop, which do what `start` and `stop`
    do. Closing the widget, running its cell again and ending the kernel all stop it first: what was learned is kept.

    Args:
        bench: as for `ll.sweep`.
        grid: the choices to begin with; what no control has stays as it is here.
        data: as for `ll.sweep`.
        runs: the store's folder.
        runner: as for `ll.sweep`.

    Raises:
        LabError: no such bench, or a grid that it cannot take.
    """

    def __init__(
        self,
        bench: str = "digits",
        grid: SweepSpec = SweepSpec(),  # noqa: B008 (frozen)
        *,
        data: DataSpec | None = None,
        runs: str | Path | None = None,
        runner: str = "process",
    ) -> None:
        self._job: Job | None = None
        self._follower: threading.Thread | None = None
        self._bench, self._grid, self._runner = find_bench(bench, data), grid, runner
        self._bench.prepare()
        self._geometry, self._store = self._bench.geometry(), RunStore(runs or "runs")
        self._read: dict[tuple[Any, ...], RunProgress] = {}
        choices = self._build_choices()
        self._build_buttons()
        self._build_answers()
        self.matrix = menu("matrix", _NO_MATRIX, None)
        shape = Answer(*questions.SHAPE, beside=[self.matrix])
        self._plots["spectrum"] = shape
        ranks = card(ipywidgets.HTML(question(*questions.RANKS)))
        ranks.children = (*ranks.children, self._ranking)
        answers = [beside(self._plots["loss"], self._plots["score"]), self._learned, ranks, shape]
        controls = [*choices, self._plan, ipywidgets.HBox([self.start_button, self.stop_button]), self._status]
        super().__init__(controls, answers, moves=[*choices, self.matrix])

    def _build_choices(self) -> list[ipywidgets.Widget]:
        grid = self._grid
        info = METHODS[grid.choices("methods")[0]]
        self._drawn_first = grid.targets[-1] or info.default_targets
        self.method = Chips("Methods", _METHODS, grid.choices("methods"), label=lambda name: METHODS[name].label)
        self.r = Chips("Ranks r", RANKS, grid.choices("r"))
        self.alpha = Chips("Scaling numerator α", [value for _, value in ALPHAS], grid.choices("lora_alpha"), label=alpha_label)
        self.targets = Targets(self._geometry, self._drawn_first, r=max(grid.choices("r")))
        self.seeds = Chips("Seeds", SEEDS, grid.choices("seeds"))
        self.lr = Field("learning rate", grid.learning_rate, NUMBERS, hint="each method's own")
        self.steps = Field("steps", grid.steps, INT, hint=str(self._bench.defaults.steps))
        self.r.layout.display = None if grid.equal_budget is None else "none"
        return [self.method, self.r, self.alpha, self.targets, self.seeds, self.lr, self.steps]

    def _build_buttons(self) -> None:
        self._plan, self._status = ipywidgets.HTML(), ipywidgets.HTML()
        self.start_button = ipywidgets.Button(description="Start", tooltip="train in the background")
        self.stop_button = ipywidgets.Button(description="Stop", tooltip="what was learned is kept", disabled=True)
        self.start_button.add_class("lab-go")
        self.start_button.on_click(lambda _: self._press_start())
        self.stop_button.on_click(lambda _: self.stop())

    def _build_answers(self) -> None:
        self._learned, self._ranking = ipywidgets.HTML(), ipywidgets.HTML()
        falls = Answer(*questions.LOSS)
        scores = Answer(*questions.SCORE)
        self._plots: dict[Kind, Answer] = {"loss": falls, "score": scores}

    @property
    def spec(self) -> SweepSpec:
        """The grid that the controls give.

        Raises:
            SpecError: nothing is chosen where a choice is needed, a field cannot be read, or a value is out of range.
        """
        moved = self.targets.value != self._drawn_first  # several choices of targets, or each method's own, stay until then
        return replace(
            self._grid,
            methods=self.method.value,
            r=self.r.value,
            lora_alpha=self.alpha.value,
            targets=(self.targets.chosen(),) if moved else self._grid.targets,
            seeds=self.seeds.value,
            learning_rate=self.lr.chosen(),
            steps=self.steps.chosen(),
        )

    @property
    def runs(self) -> tuple[Run, ...]:
        """The runs of this grid that the store has trained to their end, in the grid's order.

        Raises:
            LabError: the grid cannot be planned.
        """
        return tuple(run for run in self._store.find(spec.run_id for spec in self._specs()) if run.is_complete)

    @property
    def state(self) -> str:
        """Of the sweep that was started last, as a Job has it; empty before one was."""
        return self._job.state if self._job else ""

    @property
    def share_done(self) -> float:
        """Steps done of all steps of the sweep that was started last, in 0..1; 0 before one was."""
        return self._job.share_done if self._job else 0.0

    @property
    def _going(self) -> bool:
        return self._job is not None and not self._job.ended

    def start(self) -> None:
        """Train what the store does not have, in the background. Nothing happens where a sweep is under way here.

        Raises:
            LabError: the grid cannot be planned.
        """
        with self.lock:
            if self.closed or self._going:
                return
            self._job = Job(self._specs(), self._store, runner=self._runner, turn=_TURN).start()
            self._follower = threading.Thread(target=self._follow, args=(self._job,), daemon=True, name="lora-lab-sweep")
            self._follower.start()
        self.redraw()

    def stop(self) -> None:
        """Ask the sweep to stop, at once: every run in hand keeps what it has learned."""
        if self._job:
            self._job.stop()
            self.redraw()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the sweep has ended and is shown as it ended, no longer than that; whether it has."""
        if self._follower:
            self._follower.join(timeout_s)
        return self._follower is None or not self._follower.is_alive()

    def close(self) -> None:
        """Stop the sweep, wait until its workers are gone, and take the widget off the notebook."""
        if self._job:
            self._job.end()
        if self._follower is not threading.current_thread():
            self.wait()
        super().close()

    def figure(self, kind: Kind = "score") -> go.Figure:
        """The curves of the score or the loss, or the spectra of the chosen matrix, as they are shown.

        Raises:
            LabError: the grid cannot be planned.
        """
        return self._figure(kind, self._progress(self._specs()))

    def _figure(self, kind: Kind, runs: Sequence[RunProgress]) -> go.Figure:
        if kind == "spectrum":
            return spectrum(live_spectrum_lines(runs, self.matrix.value))
        return {"score": score_curves, "loss": loss_curves}[kind](curve_lines(runs))

    def _press_start(self) -> None:
        try:
            self.start()
        except LabError:
            self.redraw()  # which says it

    def _follow(self, job: Job) -> None:
        """Draw the sweep as it goes, until it has ended."""
        seen = ""
        while not job.wait(_EVERY_S):
            mark = f"{job.state} {job.events_seen}"
            if mark != seen:
                self.redraw()
            seen = mark
        self.redraw()

    def _specs(self) -> tuple[RunSpec, ...]:
        return expand(self._bench, self.spec, geometry=self._geometry)

    def _progress(self, specs: Sequence[RunSpec]) -> list[RunProgress]:
        """The runs of the sweep under way, or the last one where it was of this grid; else those that the store has."""
        job = self._job
        if job and (self._going or {spec.run_id for spec in specs} == set(job.runs)):
            return list(job.runs.values())
        return [self._kept(run) for run in self._store.find(spec.run_id for spec in specs)]

    def _kept(self, run: Run) -> RunProgress:
        key = (run.run_id, run.metrics["status"], run.metrics["step"])
        if key not in self._read:
            self._read[key] = run.progress()
        return self._read[key]

    def _draw(self) -> None:
        self._draw_state()
        if self._job and self._going:  # whatever the controls say meanwhile
            self._draw_runs(list(self._job.runs.values()))
        specs = self._specs()
        self.targets.show(self._geometry, r=max((spec.tuning.r for spec in specs), default=MethodSpec().r))
        complete = self._store.complete_ids()
        self._plan.value = say(plan_sentence(specs, complete))
        self.start_button.description = start_label(specs, complete)
        if not self._going:
            self._draw_runs(self._progress(specs))

    def _draw_state(self) -> None:
        job = self._job
        self.start_button.disabled = self._going
        self.stop_button.disabled = job is None or job.state not in ("waiting", "running")
        self._status.value = _status(job) if job else ""

    def _draw_runs(self, runs: list[RunProgress]) -> None:
        names = adapted_matrices(runs)
        options: list[tuple[str, str | None]] = [(matrix_label(name), name) for name in names]
        offer(self.matrix, options or _NO_MATRIX, otherwise=most_adapted(runs))
        for kind, answer in self._plots.items():
            answer.show(self._figure(kind, runs))
        table, named = rank_table(runs), base_name(runs)
        learned = learned_caption(runs, best_run(runs), base=table.base_score, base_name=named, ended=not self._going)
        self._learned.value = say(learned)
        self._ranking.value = rank_table_html(table)


def _status(job: Job) -> str:
    bar = f'<div class="lab-bar"><i style="width:{job.share_done:.1%}"></i></div>'
    told = f"<span>{escape(progress_sentence(job))}</span> <span>{escape(state_sentence(job))}</span>"
    error = say(job.message, kind="error") if job.message else ""
    return f'<div class="lab-status" data-state="{job.state}">{bar}{told}</div>{error}'
