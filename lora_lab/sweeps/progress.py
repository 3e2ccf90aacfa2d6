"""What one run has said, gathered."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from lora_lab.events import DoneEvent, EvalEvent, Event, ForgettingEvent, SpectrumEvent, StartEvent, StepEvent
from lora_lab.metrics import METRICS, Metric
from lora_lab.specs import RunSpec, unique


@dataclass
class RunProgress:
    """What one run has said so far: `evals` on the validation split, `tests` on the test split."""

    spec: RunSpec
    start: StartEvent | None = None
    steps: list[StepEvent] = field(default_factory=list)
    evals: list[EvalEvent] = field(default_factory=list)
    tests: list[EvalEvent] = field(default_factory=list)
    forgetting: ForgettingEvent | None = None
    spectrum: SpectrumEvent | None = None
    done: DoneEvent | None = None

    @classmethod
    def of(cls, spec: RunSpec, events: Iterable[Event]) -> "RunProgress":
        """The progress that these events make up."""
        progress = cls(spec)
        for event in events:
            progress.take(event)
        return progress

    def take(self, event: Event) -> None:
        """One more event."""
        match event:
            case StartEvent():  # again where a run begins anew, as after the death of its worker
                self.__dict__.update(RunProgress(self.spec).__dict__)
                self.start = event
            case StepEvent():
                self.steps.append(event)
            case EvalEvent():
                (self.tests if event.split == "test" else self.evals).append(event)
            case ForgettingEvent():
                self.forgetting = event
            case SpectrumEvent():
                self.spectrum = event
            case DoneEvent():
                self.done = event

    @property
    def score(self) -> EvalEvent | None:
        """The latest evaluation of what was trained; None before the first, and where the final weights were not scored."""
        last = self.evals[-1] if self.evals else None
        if last is None or (last.step == 0 and self.spec.steps > 0) or (self.done and self.done.step != last.step):
            return None
        return last

    @property
    def metric(self) -> Metric:
        """What its scores are."""
        return METRICS[self.start.metric if self.start else "accuracy"]

    def value(self, event: EvalEvent) -> float | None:
        """What an evaluation says by the task's metric: its score, or its loss where that is the metric."""
        return event.loss if self.metric is METRICS["loss"] else event.score

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return self.steps[-1].step if self.steps else 0


def adapted_matrices(runs: Iterable[RunProgress]) -> tuple[str, ...]:
    """The matrices that the runs have told a spectrum of, each once, in their order."""
    return unique(name for run in runs if run.spectrum for name in run.spectrum.singular_values)


def most_adapted(runs: Iterable[RunProgress]) -> str | None:
    """The matrix that most runs adapt, the last of them where several are; None where no run has told a spectrum."""
    adapted = Counter(name for run in runs if run.spectrum for name in run.spectrum.singular_values)
    return max(reversed(adapted), key=lambda name: adapted[name], default=None)
