"""What Look looks at: runs of the lab and adapters opened from files, two of them beside each other."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from lora_lab.adapters import Adapter
from lora_lab.analysis import matrix_measures
from lora_lab.analysis.alignment import likeness_of
from lora_lab.analysis.base_records import EffectOnBase, RelativeNorms
from lora_lab.analysis.effects_on_base import effect_on_base
from lora_lab.analysis.norms import relative_norms
from lora_lab.analysis.records import Likeness, Overlap, Spectrum
from lora_lab.analysis.spectra import spectrum
from lora_lab.analysis.subspaces import overlap_of
from lora_lab.errors import LabError
from lora_lab.plots.labels import subject_labels
from lora_lab.plots.lines import SpectrumLine, subject_lines
from lora_lab.specs import METHODS
from lora_lab.sweeps import Run
from lora_lab.sweeps.subjects import MOST_DIRECTIONS, Subject, control_of, of_place, of_run, shared_names
from lora_lab.ui.lab import Lab
from lora_lab.ui.selection import Selection
from lora_lab.weights import BaseWeights


def subject_of_run(lab: Lab, run: Run) -> Subject:
    """A run of the store as it is now, its adapter read once for all who look."""
    return of_run(run, lab.adapter(run))


def subject_of_file(lab: Lab, source: str, under: str) -> Subject:
    """An adapter from a folder, a file or the Hub.

    Raises:
        LabError: it cannot be had or read.
    """
    return of_place(source, lab.opened(source, under), under)


def is_source(name: str) -> bool:
    """Whether a name in the address is a place to open, which a run's id never is."""
    return "/" in name


def by_likeness(runs: Sequence[Run], run: Run) -> list[Run]:
    """The best comparisons first: the same base, another run, the same method and targets, the same r with another seed."""
    return sorted(runs, key=lambda other: _distance(other, run))


def _distance(other: Run, run: Run) -> tuple[bool, ...]:
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


def _changes_matrices(run: Run) -> bool:
    return METHODS[run.spec.tuning.method].has_targets or run.spec.tuning.method in ("full", "partial")


@dataclass(frozen=True)
class Sight:
    """Two subjects and one matrix: what the cards ask for, each thing computed once for all who look."""

    lab: Lab
    selection: Selection
    first: Subject
    second: Subject

    @property
    def matrix(self) -> str:
        """The one looked at."""
        return self.selection.matrix

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """Those that adapt the matrix, once each."""
        both = (self.first,) if self.second.key == self.first.key else (self.first, self.second)
        return tuple(one for one in both if self.matrix in one.adapter)

    @cached_property
    def names(self) -> tuple[str, str]:
        """What tells the two apart."""
        first, second = subject_labels([self.first, self.second])
        return first, second

    @property
    def labels(self) -> tuple[str, ...]:
        """One a subject."""
        if len(self.subjects) > 1:
            return self.names
        return (self.names[0] if self.second.key != self.first.key else subject_labels([self.first])[0],)

    @property
    def shared(self) -> list[str]:
        """Matrices of one shape that both adapt, in the first one's order."""
        return shared_names(self.first, self.second)

    def spectra(self, subject: Subject) -> dict[str, Spectrum]:
        """Of every matrix."""
        return self.lab.once(("spectra", subject.key), lambda: {one.name: one for one in spectrum(subject.adapter)})

    def lines(self) -> list[SpectrumLine]:
        """The spectra of the matrix as they are drawn."""
        return subject_lines(self.subjects, self.labels, [self.spectra(one)[self.matrix] for one in self.subjects])

    def overlaps(self) -> dict[str, Overlap]:
        """Of every matrix that both adapt, in the choice of vectors and side."""
        of, side = self.selection.of, self.selection.side
        one, other = self.first.adapter, self.second.adapter

        def compute() -> dict[str, Overlap]:
            return {
                name: overlap_of(name, one[name], other[name], of=of, side=side, most=MOST_DIRECTIONS)  # type: ignore[arg-type]
                for name in self.shared
            }

        return self.lab.once(("overlaps", self.first.key, self.second.key, of, side), compute)

    def controls(self) -> tuple[str, dict[str, Overlap]]:
        """What φ is where nothing was learned: of A as it was drawn, where both have one, else of random matrices."""
        keys = (self.first.key, self.second.key, self.selection.of, self.selection.side)
        return self.lab.once(
            ("controls", *keys),
            lambda: control_of(self.first, self.second, self.overlaps(), side=keys[3], start=self._start),  # type: ignore[arg-type]
        )

    def _start(self, run: Run) -> Adapter:
        return self.lab.once(("start", run.run_id), run.start)

    def likeness(self) -> Likeness:
        """Of the matrix."""
        one, other = self.first.adapter[self.matrix], self.second.adapter[self.matrix]
        key = ("likeness", self.first.key, self.second.key, self.matrix)
        return self.lab.once(key, lambda: likeness_of(self.matrix, one, other))

    def base(self, subject: Subject) -> BaseWeights:
        """The W that a subject changes.

        Raises:
            LabError: it cannot be had, or nobody says which it is.
        """
        return subject.run.base() if subject.run else self.lab.base(self.selection.under)

    def norms(self, subject: Subject) -> RelativeNorms | None:
        """ΔW of the matrix beside its W in size; None where the base cannot be had."""
        delta, name = subject.adapter[self.matrix], self.matrix
        key = ("norms", subject.key, self.selection.under, name)
        try:
            return self.lab.once(key, lambda: relative_norms(name, delta, self.base(subject).named(name)))
        except LabError:
            return None

    def effect(self) -> EffectOnBase:
        """ΔW of the matrix beside its W: seconds for a large one, the first time.

        Raises:
            LabError: the base cannot be had, or is another.
        """
        delta, name = self.first.adapter[self.matrix], self.matrix
        key = ("effect", self.first.key, self.selection.under, name)
        return self.lab.once(key, lambda: effect_on_base(name, delta, self.base(self.first).named(name)))

    def values(self, measure: str) -> matrix_measures.Values:
        """A measure of every matrix of the first subject.

        Raises:
            LabError: it takes the base, which cannot be had.
        """
        if measure == "phi":
            return matrix_measures.of_overlaps(self.overlaps())
        if measure not in matrix_measures.BESIDE_BASE:
            return matrix_measures.of_spectra(measure, self.spectra(self.first).values())
        key = (measure, self.first.key, self.selection.under)
        return self.lab.once(key, lambda: matrix_measures.beside_base(measure, self.first.adapter, self.base(self.first)))
