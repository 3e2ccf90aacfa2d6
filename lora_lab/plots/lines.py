"""Runs as the lines that the plots draw, each with its label, shade and dash."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lora_lab.analysis.records import Spectrum
from lora_lab.events import EvalEvent, StepEvent
from lora_lab.metrics import METRICS, Metric
from lora_lab.plots.labels import labels_of
from lora_lab.specs import RunSpec

if TYPE_CHECKING:
    from lora_lab.sweeps import RunProgress  # its package loads torch, which a plot does not need
    from lora_lab.sweeps.subjects import Subject


@dataclass(frozen=True, slots=True)
class CurveLine:
    """One run as its curves are drawn."""

    label: str
    r: int
    seed: int
    steps: tuple[StepEvent, ...]
    evals: tuple[EvalEvent, ...]
    method: str = "lora"
    metric: Metric = METRICS["accuracy"]

    @property
    def configuration(self) -> str:
        """The label without the seed."""
        return self.label.removesuffix(f" · seed {self.seed}")

    @property
    def scores(self) -> tuple[tuple[int, float], ...]:
        """(step, score) wherever it was measured; of the loss where that is the metric."""
        by_loss = self.metric is METRICS["loss"]
        found = ((e.step, e.loss if by_loss else e.score) for e in self.evals)
        return tuple((step, score) for step, score in found if score is not None)


@dataclass(frozen=True, slots=True)
class SpectrumLine:
    """The spectrum of one matrix of one run."""

    label: str
    r: int
    seed: int
    singular_values: tuple[float, ...]
    method: str = "lora"

    @property
    def configuration(self) -> str:
        """The label without the seed."""
        return self.label.removesuffix(f" · seed {self.seed}")


def curve_lines(runs: "Sequence[RunProgress]") -> list[CurveLine]:
    """One line a run, labelled by what the runs differ in."""
    labels = labels_of([run.spec for run in runs])
    return [
        CurveLine(label, run.spec.tuning.r, run.spec.seed, tuple(run.steps), tuple(run.evals), run.spec.tuning.method, run.metric)
        for label, run in zip(labels, runs, strict=True)
    ]


def spectrum_lines(specs: Sequence[RunSpec], singular_values: Sequence[Sequence[float]]) -> list[SpectrumLine]:
    """One line a run, from the spectra of one matrix in the order of the specs."""
    labels = labels_of(specs)
    return [
        SpectrumLine(label, spec.tuning.r, spec.seed, tuple(values), spec.tuning.method)
        for label, spec, values in zip(labels, specs, singular_values, strict=True)
    ]


def subject_lines(subjects: "Sequence[Subject]", labels: Sequence[str], spectra: Sequence[Spectrum]) -> list[SpectrumLine]:
    """One line an adapter, from its spectrum of one matrix; the seed of a run is its dash, the place of another its own.

    Where all are runs they are told apart by what differs between them, and where nothing does, by the labels.
    """
    specs = [subject.run.spec for subject in subjects if subject.run]
    if len(set(specs)) == len(subjects):
        return spectrum_lines(specs, [one.singular_values for one in spectra])
    told = zip(subjects, labels, spectra, strict=True)
    return [
        SpectrumLine(label, one.r, i, one.singular_values, subject.run.spec.tuning.method if subject.run else "lora")
        for i, (subject, label, one) in enumerate(told)
    ]


def live_spectrum_lines(runs: "Sequence[RunProgress]", matrix: str | None) -> list[SpectrumLine]:
    """One line a run, from the spectrum of one matrix that it told last; of a run that has told none, one without values."""
    seen = [run.spectrum.singular_values.get(matrix or "", ()) if run.spectrum else () for run in runs]
    return spectrum_lines([run.spec for run in runs], seen)
