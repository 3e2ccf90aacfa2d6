"""The paper: section 7 on a bench, from recorded runs or from those that this store has."""

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from html import escape
from typing import Any

import gradio as gr

from lora_lab.benches import BENCH_NAMES, find_bench
from lora_lab.errors import SpecError, out_of_range
from lora_lab.plots.html_parts import folded, table
from lora_lab.report import Evidence, Finding, Recorded, findings, gather, plan_reproduction, recorded, recorded_names
from lora_lab.report.figures import figures_of
from lora_lab.report.tables import tables_of
from lora_lab.ui import html
from lora_lab.ui.errors import user_errors
from lora_lab.ui.place import Place
from lora_lab.ui.selection import Selection
from lora_lab.units import seconds

_CARDS = {"targets": 0, "ranks": 0, "two_ranks": 4, "two_seeds": 4, "amplification": 2}  # figures of each finding
_SHADES = {"agrees": "yes", "agrees in part": "part", "does not agree": "no", "cannot be told": "open"}
_OWN = "own:"


class PaperView(Place):
    """Which bench on the left; the paper's claims, each beside what the bench shows, on the right."""

    name, room = "Look", "The paper"

    def _build_controls(self) -> None:
        self.source = gr.Radio([], label="Runs", elem_classes="lab-chips", elem_id="paper-source")
        self.where = gr.HTML(elem_id="paper-where")

    def _build_answers(self) -> None:
        with gr.Column(elem_classes="lab-card"):
            subtitle = "the claims of section 7, each with a verdict that is computed from the numbers below"
            gr.HTML(html.question("Does it agree with the paper?", subtitle))
            self.summary = gr.HTML(elem_id="paper-summary")
        self.cards: dict[str, tuple[gr.Column, gr.HTML, list[gr.Plot], gr.HTML]] = {}
        for key, count in _CARDS.items():
            with gr.Column(elem_classes="lab-card", visible=False) as card:
                says = gr.HTML(elem_id=f"paper-{key}")
                plots = [gr.Plot(show_label=False, elem_classes="lab-plot", elem_id=f"paper-{key}-{i}") for i in range(count)]
                self.cards[key] = card, says, plots, gr.HTML(elem_id=f"paper-{key}-tables")

    def _wire(self, page: gr.Blocks) -> None:
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        answers: list[Any] = [self.where, self.summary]
        for card, says, plots, tabled in self.cards.values():
            answers += [card, says, *plots, tabled]
        restored = page.load(self.restore, None, [self.selection, self.header, self.source], **quiet)
        restored.then(self.show, self.selection, answers, **quiet)
        chosen = self.source.input(self.choose, [self.selection, self.source], [self.selection, self.header], **quiet)
        chosen.then(self.show, self.selection, answers, **quiet)

    # Handlers: each reads controls, asks the core, and returns what its outputs show.

    @user_errors
    def restore(self, request: gr.Request) -> list[Any]:
        """The selection that the address names; else what was recorded."""
        selection = Selection.from_query(dict(request.query_params))
        offered = self._offered()
        values = [value for _, value in offered]
        selection = replace(selection, paper=selection.paper if selection.paper in values else next(iter(values), ""))
        return [selection, self.header_of(selection), gr.Radio(choices=offered, value=selection.paper or None)]

    @user_errors
    def choose(self, selection: Selection, source: str) -> list[Any]:
        """Other runs."""
        selection = replace(selection, paper=source or "")
        return [selection, self.header_of(selection)]

    @user_errors
    def show(self, selection: Selection) -> list[Any]:
        """Every claim with its verdict, figures and tables."""
        if not selection.paper:
            return [html.say("No reproduction is recorded, and this store has no runs of one."), "", *self._nothing()]
        evidence, where = self._evidence(selection.paper)
        found = {finding.key: finding for finding in findings(evidence)}
        shown: list[Any] = [where, _summary(found)]
        for key, count in _CARDS.items():
            shown += self._card(found.get(key), evidence, count)
        return shown

    # What the handlers share.

    def _offered(self) -> list[tuple[str, str]]:
        """Recorded benches, and those of which this store has runs; in public its runs are not everybody's."""
        had = set() if self.lab.public else {run.spec.bench for run in self.lab.store.runs()}
        own = [(f"{bench}, this store", f"{_OWN}{bench}") for bench in BENCH_NAMES if bench in had]
        return [*((f"{bench}, recorded", bench) for bench in recorded_names()), *own]

    def _evidence(self, source: str) -> tuple[Evidence, str]:
        known = [value for _, value in self._offered()]
        if source not in known:  # what an address or a request asks for beyond them
            raise SpecError(out_of_range("source", "the paper", f"one of {', '.join(known)}", source))
        if source.startswith(_OWN):
            bench = find_bench(source.removeprefix(_OWN))
            plan = plan_reproduction(bench, geometry=self.lab.geometry(bench))
            runs = self.lab.store.find(spec.run_id for spec in plan.specs)
            return gather(plan, runs), _own_where(bench.name, sum(run.is_complete for run in runs), len(plan.specs))
        kept = _kept(source)
        return kept.evidence, _recorded_where(kept)

    def _card(self, finding: Finding | None, evidence: Evidence, count: int) -> list[Any]:
        if finding is None:
            return [gr.Column(visible=False), "", *[gr.skip()] * count, ""]
        figures = list(figures_of(finding.key, evidence, multiples=False).values())
        plots = [gr.Plot(value=fig, visible=True) for fig in figures[:count]]
        plots += [gr.Plot(visible=False)] * (count - len(plots))
        tabled = "".join(
            folded(one.title, table(one.key, one.head, one.rows), is_open=True) for one in tables_of(finding.key, evidence)
        )
        head = html.question(finding.title, f"{finding.source}: {finding.claim}")
        return [gr.Column(visible=True), f"{head}{_verdict(finding)}{html.say(finding.paragraph)}", *plots, tabled]

    def _nothing(self) -> list[Any]:
        return [part for count in _CARDS.values() for part in (gr.Column(visible=False), "", *[gr.skip()] * count, "")]


@lru_cache(maxsize=4)
def _kept(bench: str) -> Recorded:
    return recorded(bench)


def _verdict(finding: Finding) -> str:
    return f'<span class="lab-verdict {_SHADES[finding.verdict]}">{finding.verdict}</span>'


def _summary(found: Mapping[str, Finding]) -> str:
    rows = "".join(
        f"<tr><td>{escape(one.source)}</td><td>{escape(one.claim)}</td><td>{_verdict(one)}</td></tr>" for one in found.values()
    )
    return f'<div class="lab-wide"><table class="lab-table lab-data" id="verdicts">{rows}</table></div>'


def _recorded_where(kept: Recorded) -> str:
    source = kept.source
    took = f"{source.runs} runs, {source.trained} of them trained for it in {seconds(source.trained_s)}"
    versions = ", ".join(f"{name} {number}" for name, number in source.versions.items())
    note = f"<br>{escape(source.base_note)}" if source.base_note else ""
    said = f"{escape(source.command)}<br>{escape(source.date)}, {escape(source.device)}; {took}.<br>{escape(versions)}{note}"
    return f'<div class="lab-s">{said}</div>'


def _own_where(bench: str, there: int, wanted: int) -> str:
    rest = "" if there == wanted else f" <code>python -m lora_lab reproduce --bench {escape(bench)}</code> trains the others."
    return f'<div class="lab-s">{there} of the {wanted} runs that section 7 takes are in this store.{rest}</div>'
