"""How many directions ΔW uses: the spectra of one matrix in any number of adapters."""

from pathlib import Path
from typing import Literal

import ipywidgets
import plotly.graph_objects as go

from lora_lab.analysis import records
from lora_lab.analysis.noise import noise_of
from lora_lab.analysis.spectra import spectrum_of
from lora_lab.errors import SpecError, out_of_range
from lora_lab.plots import energy, questions, spectrum, spectrum_caption
from lora_lab.plots.labels import subject_labels
from lora_lab.plots.lines import SpectrumLine, subject_lines
from lora_lab.plots.look_captions import noise_caption
from lora_lab.plots.look_tables import measures_table
from lora_lab.specs import unique
from lora_lab.sweeps import Run
from lora_lab.sweeps.subjects import Base, Source, Subject, subject_of
from lora_lab.widgets.controls import toggle
from lora_lab.widgets.matrices import chosen_matrix, matrices_of, matrix_menu
from lora_lab.widgets.panel import Answer, Panel, card

View = Literal["sigma", "energy"]


class Spectrum(Panel):
    """The singular values of one matrix's ΔW, or the share of ‖ΔW‖² that the strongest keep; one line an adapter.

    Args:
        subjects: each a run, its id, an adapter's folder, a file of it, a Hub id, or LowRank by module name.
        matrix: the one looked at first; the deepest that all adapt unless it is named.
        base: beside which an adapter is read whose method needs it.
        runs: the store that ids are of.

    Raises:
        LabError: one cannot be had or read, changes nothing, or no such matrix.

    Attributes:
        matrix: the menu of matrices.
        view: `sigma` or `energy`.
        subjects: what is looked at.
    """

    def __init__(
        self, *subjects: Source | Subject, matrix: str | None = None, base: Base | None = None, runs: str | Path = "runs"
    ) -> None:
        if not subjects:
            raise SpecError(out_of_range("subjects", "Spectrum", "at least one", 0))
        self.subjects = tuple(subject_of(subject, base=base, runs=runs) for subject in subjects)
        every = [matrices_of(subject) for subject in self.subjects]
        shared = [name for name in every[0] if all(name in names for names in every)]
        known = unique(name for names in every for name in names)
        self.matrix = matrix_menu(known, chosen_matrix(known if matrix or not shared else shared, matrix, owner="Spectrum"))
        self.view = toggle("shown", (("σ", "sigma"), ("energy", "energy")), "sigma")
        self.answer, self.table = Answer(*questions.SPECTRUM), ipywidgets.HTML()
        super().__init__([self.matrix, self.view], [self.answer, card(self.table)])

    @property
    def spectra(self) -> tuple[records.Spectrum, ...]:
        """The spectrum of the matrix in each adapter that adapts it, as `lora_lab.spectrum` gives it."""
        return tuple(spectrum_of(self.matrix.value, subject.adapter[self.matrix.value]) for subject in self._adapting)

    @property
    def runs(self) -> tuple[Run, ...]:
        """Those of the subjects that are runs."""
        return tuple(subject.run for subject in self.subjects if subject.run)

    def figure(self, view: View | None = None) -> go.Figure:
        """What is shown, or the other view."""
        if (view or self.view.value) == "energy":
            return energy(self._lines)
        one, label = self.spectra[0], self._labels[0]
        return spectrum(self._lines, noise=noise_of(one), noise_of=label)

    @property
    def _adapting(self) -> tuple[Subject, ...]:
        return tuple(subject for subject in self.subjects if self.matrix.value in subject.adapter)

    @property
    def _labels(self) -> list[str]:
        return subject_labels(self._adapting)

    @property
    def _lines(self) -> list[SpectrumLine]:
        return subject_lines(self._adapting, self._labels, self.spectra)

    def _draw(self) -> None:
        labelled = list(zip(self._labels, self.spectra, strict=True))
        is_energy = self.view.value == "energy"
        label, one = labelled[0]
        says = spectrum_caption(labelled) if is_energy else noise_caption(label, one, noise_of(one))
        self.answer.ask(*(questions.ENERGY if is_energy else questions.SPECTRUM))
        self.answer.show(self.figure(), says)
        self.table.value = measures_table(labelled, [None for _ in labelled])
