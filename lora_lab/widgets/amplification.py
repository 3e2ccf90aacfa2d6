"""What ΔW does to the W that it changes: the paper's Table 7, intruder dimensions, and where in W it lies."""

from pathlib import Path
from typing import Literal

import ipywidgets
import plotly.graph_objects as go

from lora_lab.analysis import base_records
from lora_lab.analysis.amplifications import amplification_of
from lora_lab.analysis.base_records import EffectOnBase, Intruders
from lora_lab.analysis.effects_on_base import WHOLE, effect_on_base
from lora_lab.budget.paper import table_7
from lora_lab.errors import SpecError, out_of_range
from lora_lab.plots import questions
from lora_lab.plots.amplification import amplification, direction_cosines, intruder_curve, location_bars
from lora_lab.plots.look_captions import amplification_caption, directions_caption, intruder_caption, location_caption
from lora_lab.plots.look_tables import amplification_table, intruder_table
from lora_lab.plots.theme import figure, nothing_yet
from lora_lab.sweeps.subjects import Base, Source, Subject, subject_of
from lora_lab.widgets.controls import share_slider
from lora_lab.widgets.matrices import chosen_matrix, matrices_of, matrix_menu
from lora_lab.widgets.panel import Answer, Panel, beside

Drawn = Literal["amplification", "directions", "intruders", "location"]
_WAITS = "W is large: its singular vectors take a while, and wait for the button."


class Amplification(Panel):
    """One ΔW beside its W. Of a large W the singular vectors take seconds: intruders and location wait for a click there.

    Args:
        subject: a run, its id, an adapter's folder, a file of it, a Hub id, or LowRank by module name.
        base: a bench, a folder, a Hub id, or W by module name; a run has its own.
        matrix: the one looked at first; the deepest unless it is named.
        threshold: the |cos| below which a direction of W + ΔW is an intruder.
        runs: the store that ids are of.

    Raises:
        LabError: adapter or base cannot be had or read, they have different shapes, or there is no such matrix.

    Attributes:
        matrix: the menu of matrices.
        threshold: the slider.
        compare: the button that has W's singular vectors computed where that takes long.
        record: the amplification, as `lora_lab.amplification` gives it.
    """

    record: base_records.Amplification

    def __init__(
        self,
        subject: Source | Subject,
        base: Base | None = None,
        *,
        matrix: str | None = None,
        threshold: float = 0.5,
        runs: str | Path = "runs",
    ) -> None:
        if not 0 < threshold <= 1:
            raise SpecError(out_of_range("threshold", "Amplification", "above 0 and at most 1", threshold))
        self.subject = subject_of(subject, base=base, runs=runs)
        names = matrices_of(self.subject)
        self.base = self.subject.base(base)
        self._effects: dict[str, EffectOnBase] = {}
        self._amplifications: dict[str, base_records.Amplification] = {}
        self.matrix = matrix_menu(names, chosen_matrix(names, matrix, owner="Amplification"))
        self.threshold = share_slider("threshold", threshold)
        self.compare = ipywidgets.Button(description="Compare directions with W's", layout={"width": "auto"})
        self.compare.on_click(lambda _: self._compare())
        self._asked: set[str] = set()
        asked = (questions.AMPLIFICATION, questions.DIRECTIONS, questions.INTRUDERS, questions.LOCATION)
        self.amplified, self.directed, self.intruded, self.located = (Answer(*question) for question in asked)
        self._table, self._new = ipywidgets.HTML(), ipywidgets.HTML()
        self.amplified.children += (self._table,)
        self.intruded.children += (self._new,)
        answers = [self.amplified, beside(self.directed, self.intruded), self.located]
        super().__init__([self.matrix, self.threshold, self.compare], answers, moves=[self.matrix, self.threshold])

    @property
    def effect(self) -> EffectOnBase | None:
        """Intruders, directions and location of the matrix; None where W is large and nobody has asked for them."""
        return self._effects.get(self.matrix.value)

    @property
    def intruders(self) -> Intruders | None:
        """The intruder dimensions at the threshold, as `lora_lab.intruders` gives them; None where `effect` is."""
        return self.effect.intruders.at(self.threshold.value) if self.effect else None

    def figure(self, drawn: Drawn = "amplification") -> go.Figure:
        """One of the four figures that are shown."""
        if drawn == "amplification":
            return amplification(self.record, table_7())
        effect, found = self.effect, self.intruders
        if effect is None or found is None:
            return nothing_yet(figure(x="", y=""), _WAITS)
        if drawn == "directions":
            return direction_cosines(effect.cosines, found)
        return intruder_curve(found) if drawn == "intruders" else location_bars(effect.location)

    def _compare(self) -> None:
        self._asked.add(self.matrix.value)
        self.redraw()

    def _draw(self) -> None:
        self._measure(self.matrix.value)
        effect, found = self.effect, self.intruders
        self.compare.layout.display = "none" if effect else None
        self.amplified.show(self.figure(), amplification_caption(self.record, table_7()[0]))
        self._table.value = amplification_table(self.record, table_7())
        self.directed.show(self.figure("directions"), directions_caption(effect.cosines) if effect else "")
        self.intruded.show(self.figure("intruders"), intruder_caption(found) if found else "")
        self._new.value = intruder_table(found) if found else ""
        self.located.show(self.figure("location"), location_caption(effect.location) if effect else "")

    def _measure(self, name: str) -> None:
        """The effect of the matrix where it is cheap or was asked for, else its amplification alone; each once."""
        delta = self.subject.adapter[name]
        if name not in self._effects and (min(delta.shape) <= WHOLE or name in self._asked):
            self._effects[name] = effect_on_base(name, delta, self.base.named(name))
            self._amplifications[name] = self._effects[name].amplification
        if name not in self._amplifications:
            self._amplifications[name] = amplification_of(name, delta, self.base.named(name))
        self.record = self._amplifications[name]
