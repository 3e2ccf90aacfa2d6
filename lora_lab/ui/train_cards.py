"""What the cards of Train say: the core's records as figures, tables and sentences."""

from dataclasses import replace
from functools import lru_cache
from html import escape
from typing import Any

import gradio as gr

from lora_lab.analysis.records import Reach
from lora_lab.benches import Bench, find_bench
from lora_lab.errors import LabError
from lora_lab.geometry import Geometry, Matrix
from lora_lab.inference import chain_rule_of
from lora_lab.plots import (
    GradientLine,
    gradient_caption,
    gradient_flow,
    labels_of,
    method_label,
    rule_caption,
)
from lora_lab.plots.rule_table import chain_rule_table
from lora_lab.roles import label_of
from lora_lab.specs import METHODS, MethodSpec, RunSpec
from lora_lab.sweeps import Run, RunMemory, RunProgress, memory_of
from lora_lab.training import methods_for, reach
from lora_lab.ui import html
from lora_lab.ui.grid import (
    rate_hint,
    uses,
)
from lora_lab.ui.lab import Lab
from lora_lab.ui.selection import Selection
from lora_lab.units import count, gigabytes

_FIRST_STEPS = 60  # of the gradients' curves: where A catches up with B


def gradient_card(lab: Lab, selection: Selection, runs: list[RunProgress], matrix: str | None, *, asked: bool) -> list[Any]:
    """The gradients of the runs that have A and B, one of them in front, and that one's chain rule where it is asked for."""
    with_factors = [run for run in runs if any(step.grad_norm_a is not None for step in run.steps)]
    if not with_factors:
        says = _no_factors(runs)
        return [
            gr.Dropdown(choices=[], value=None, visible=False),
            gr.Plot(visible=False),
            html.say(says),
            gr.Column(visible=False),
            "",
        ]
    labels = labels_of([run.spec for run in with_factors])
    front = min(with_factors, key=lambda run: (run.spec.run_id != selection.run, run.spec.tuning.method != "lora"))
    lines = [
        GradientLine(label, run.steps[:_FIRST_STEPS], run.spec.seed, faint=run is not front)
        for label, run in zip(labels, with_factors, strict=True)
    ]
    lines.sort(key=lambda line: not line.faint)  # drawn last, it stands in front
    choices = [(label, run.spec.run_id) for label, run in zip(labels, with_factors, strict=True)]
    rule = _rule(lab, front, matrix, selection) if asked else ""
    return [
        gr.Dropdown(choices=choices, value=front.spec.run_id, visible=True),
        gr.Plot(value=gradient_flow(lines), visible=True),
        html.say(gradient_caption([line for line in lines if not line.faint])),
        gr.Column(visible=bool(rule)),
        rule,
    ]


def _rule(lab: Lab, run: RunProgress, matrix: str | None, selection: Selection) -> str:
    """The chain rule of the chosen matrix, or of the run's last where it does not adapt that one."""
    names = list(run.spectrum.singular_values) if run.spectrum else []
    if not names:
        return ""
    name = matrix if matrix in names else names[-1]
    kept = next((kept for kept in lab.visible_runs(selection.job) if kept.run_id == run.spec.run_id and kept.is_complete), None)
    try:
        states = [("before the first step", chain_rule_of(run.spec, name))]
        states += [("as trained", chain_rule_of(run.spec, name, adapter_dir=kept.adapter_dir))] if kept else []
    except LabError as err:
        return html.say(str(err))
    return chain_rule_table(states) + html.say(rule_caption([record for _, record in states]))


def runs_card(lab: Lab, runs: list[RunProgress], selection: Selection) -> str:
    rows, links = [], []
    kept = {run.run_id: run for run in lab.visible_runs(selection.job)}
    for run in runs:
        rows.append(_row(run, _memory(lab, kept.get(run.spec.run_id))))
        looked = replace(selection, run=run.spec.run_id)
        links.append(f"./look?{escape(looked.query())}" if run.done and run.spec.run_id in kept else "")
    return html.runs_table(rows, links)


def _memory(lab: Lab, run: Run | None) -> str:
    """Peak memory of a run that is kept, by formula and as measured."""
    if run is None:
        return ""
    try:
        return memory_text(memory_of(run, lab.geometry(find_bench(run.spec.bench, run.spec.data))))
    except LabError:  # the base is no longer to be had
        return ""


def controls(bench: Bench, geometry: Geometry, selection: Selection, specs: tuple[RunSpec, ...]) -> list[Any]:
    """Methods that the base can take, the rate that an empty field stands for, and the rarer controls that mean something."""
    fit = [
        method for method, refusal in methods_for(bench, geometry=geometry).items() if not refusal or method in selection.methods
    ]
    chosen = [MethodSpec(method=method) for method in selection.methods]
    ranked, scaled = any(spec.has_r for spec in chosen), any(spec.has_alpha for spec in chosen)
    used = uses(selection)
    return [
        gr.Dropdown(choices=[(METHODS[m].label, m) for m in fit]),  # no value: another may have been picked since
        gr.CheckboxGroup(interactive=ranked or not selection.methods),
        gr.Radio(interactive=scaled or not selection.methods),
        gr.Number(placeholder=rate_hint(specs)) if specs else gr.skip(),
        *(gr.update(visible=used[name]) for name in ("init", "dropout", "tokens")),
    ]


def _no_factors(runs: list[RunProgress]) -> str:
    trained = any(run.steps for run in runs)
    return "None of these runs trains factors A and B." if trained else "The gradients of A and B come with the first step."


@lru_cache(maxsize=16)
def reached(bench: str, matrix: str) -> Reach:
    return reach(bench, matrix=matrix)


@lru_cache(maxsize=1)
def square_and_rectangle() -> tuple[Matrix, Matrix]:
    """A square matrix of the digits base and one that is not, both of layer 1."""
    layer = [m for m in find_bench("digits").geometry().matrices if m.layer == 1]
    return next(m for m in layer if m.d_out == m.d_in), next(m for m in layer if m.d_out != m.d_in)


def shape_label(m: Matrix) -> str:
    return f"{label_of(m.name)}, {m.d_out} × {m.d_in}"


def memory_text(memory: RunMemory) -> str:
    formula, measured = memory.formula_bytes, memory.measured_allocated_bytes
    parts = [f"formula {'≤ ' if memory.is_bound else ''}{gigabytes(formula)}"] if formula is not None else []
    return ", ".join([*parts, *([f"{gigabytes(measured)} measured"] if measured is not None else [])])


def _row(run: RunProgress, memory: str) -> tuple[str, ...]:
    spec, lora = run.spec, run.spec.tuning
    r, alpha = (str(lora.r) if spec.tuning.has_r else ""), (f"{lora.lora_alpha:g}" if spec.tuning.has_alpha else "")
    named = (spec.run_id, method_label(spec), r, alpha, ", ".join(lora.target_modules), f"{spec.learning_rate:g}")
    trained = count(run.start.trainable_params) if run.start else ""
    value = run.value(run.score) if run.score else None
    score, loss = ("" if value is None else run.metric.text(value)), (f"{run.score.loss:.3f}" if run.score else "")
    status = run.done.status if run.done else (f"step {run.step}" if run.start else "waiting")
    return (*named, str(spec.seed), trained, memory, score, loss, status)
