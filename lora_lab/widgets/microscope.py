"""One adapter seen whole: a number on every matrix, and of the one chosen its spectrum and its overlap with another adapter."""

from pathlib import Path
from typing import Literal

import plotly.graph_objects as go

from lora_lab.adapters import Adapter
from lora_lab.analysis import matrix_measures, records
from lora_lab.analysis.matrix_measures import Values
from lora_lab.analysis.noise import noise_of
from lora_lab.analysis.spectra import spectrum as spectra_of
from lora_lab.errors import SpecError, out_of_range
from lora_lab.plots import questions, spectrum
from lora_lab.plots.labels import subject_labels
from lora_lab.plots.lines import subject_lines
from lora_lab.plots.look_captions import noise_caption
from lora_lab.plots.measures import MATRIX_MEASURES
from lora_lab.plots.section7 import measure_map
from lora_lab.plots.theme import figure, nothing_yet
from lora_lab.sweeps.subjects import Base, Source, Subject, subject_of
from lora_lab.widgets.controls import menu
from lora_lab.widgets.matrices import MatrixMap, chosen_matrix, matrices_of, matrix_menu
from lora_lab.widgets.pairs import Pair
from lora_lab.widgets.panel import Answer, Panel, card

Drawn = Literal["spectrum", "map", "overlap"]
_NOT_SHARED = "The other adapter does not adapt this matrix, or its base has other shapes: nothing to compare."
_OF_SPECTRA = ("frobenius", "stable_rank", "effective_rank", "rank_for_95")


class Microscope(Panel):
    """Where an adapter learned, as a map of its matrices; a click on one shows how many directions it uses.

    Args:
        source: a run, its id, an adapter's folder, a file of it, a Hub id, or LowRank by module name.
        base: a bench, a folder, a Hub id, or W by module name; a run has its own. Measures beside W are offered where it is known.
        beside: another adapter, whose directions are compared.
        matrix: the one looked at first; the deepest unless it is named.
        measure: what the map shows first.
        runs: the store that ids are of.

    Raises:
        LabError: one cannot be had or read, it changes nothing, or there is no such matrix or measure.

    Attributes:
        matrix: the menu of matrices.
        measure: the menu of measures.
        map: the map; a click on it moves `matrix`.
        spectra: of every matrix, as `lora_lab.spectrum` gives them.
    """

    def __init__(
        self,
        source: Source | Subject,
        *,
        base: Base | None = None,
        beside: Source | Subject | None = None,
        matrix: str | None = None,
        measure: str | None = None,
        runs: str | Path = "runs",
    ) -> None:
        self.subject = subject_of(source, base=base, runs=runs)
        self.pair = None if beside is None else Pair(self.subject, subject_of(beside, base=base, runs=runs))
        names, self._base = matrices_of(self.subject), base
        self.spectra: tuple[records.Spectrum, ...] = spectra_of(self.adapter)
        self._values: dict[str, Values] = {}
        offered = self._measures()
        if measure is not None and measure not in offered:
            raise SpecError(out_of_range("measure", "Microscope", f"one of {', '.join(offered)}", measure))
        self.matrix = matrix_menu(names, chosen_matrix(names, matrix, owner="Microscope"))
        self.measure = menu("measure", [(MATRIX_MEASURES[name].label, name) for name in offered], measure or offered[0])
        self.map = MatrixMap(self._choose)
        self.answer = Answer(*questions.SPECTRUM)
        self.compared = None if self.pair is None else Answer(*questions.OVERLAP)
        answers = [self.answer] if self.compared is None else [self.answer, self.compared]
        super().__init__([self.measure, card(self.map), self.matrix], answers, moves=[self.measure, self.matrix])

    @property
    def adapter(self) -> Adapter:
        """ΔW by module name."""
        return self.subject.adapter

    @property
    def values(self) -> Values:
        """What the map shows, by module name."""
        name = self.measure.value
        if name not in self._values:
            self._values[name] = self._measured(name)
        return self._values[name]

    @property
    def record(self) -> records.Overlap | None:
        """φ of the matrix with the other adapter; None where there is none, or it does not adapt the matrix."""
        is_shared = self.pair is not None and self.matrix.value in self.pair.shared
        return self.pair.record(self.matrix.value) if self.pair and is_shared else None

    def figure(self, drawn: Drawn = "spectrum") -> go.Figure:
        """The spectrum that is shown, the map as a figure, or the overlap.

        Raises:
            SpecError: there is nothing to compare with.
        """
        if drawn == "map":
            measure = MATRIX_MEASURES[self.measure.value]
            return measure_map(self.values, title=measure.label, text=measure.text)
        if drawn == "spectrum":
            one, labels = self._spectrum, subject_labels([self.subject])
            return spectrum(subject_lines([self.subject], labels, [one]), noise=noise_of(one), noise_of=labels[0])
        if self.pair is None or self.record is None:
            raise SpecError(out_of_range("beside", "Microscope", "an adapter that adapts the matrix too", None))
        return self.pair.figure(self.record)

    @property
    def _spectrum(self) -> records.Spectrum:
        return next(one for one in self.spectra if one.name == self.matrix.value)

    def _measures(self) -> list[str]:
        knows_base = self._base is not None or self.subject.run is not None or self.subject.base_here
        return [*_OF_SPECTRA, *(matrix_measures.BESIDE_BASE if knows_base else ()), *(("phi",) if self.pair else ())]

    def _measured(self, name: str) -> Values:
        if name == "phi" and self.pair is not None:
            return matrix_measures.of_overlaps({name: self.pair.record(name) for name in self.pair.shared})
        if name in matrix_measures.BESIDE_BASE:
            return matrix_measures.beside_base(name, self.adapter, self.subject.base(self._base))
        return matrix_measures.of_spectra(name, self.spectra)

    def _choose(self, name: str) -> None:
        self.matrix.value = name

    def _draw(self) -> None:
        one, (label,) = self._spectrum, subject_labels([self.subject])
        self.map.show(self.values, MATRIX_MEASURES[self.measure.value], picked=self.matrix.value)
        self.answer.show(self.figure(), noise_caption(label, one, noise_of(one)))
        if self.pair is None or self.compared is None:
            return
        if self.record is None:
            self.compared.show(nothing_yet(figure(x="", y=""), "There is nothing to compare."), _NOT_SHARED)
        else:
            self.pair.show(self.compared, self.record)
