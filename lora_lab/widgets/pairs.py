"""Two adapters beside each other: φ, and what it is where nothing was learned."""

import plotly.graph_objects as go

from lora_lab.adapters import Adapter
from lora_lab.analysis.records import Of, Overlap, Side
from lora_lab.analysis.subspaces import overlap_of
from lora_lab.errors import AdapterError
from lora_lab.plots.captions import overlap_caption
from lora_lab.plots.labels import subject_labels
from lora_lab.plots.overlaps import overlap
from lora_lab.sweeps import Run
from lora_lab.sweeps.subjects import MOST_DIRECTIONS, Subject, control_of, shared_names
from lora_lab.widgets.panel import Answer


class Pair:
    """Two adapters; what takes long is computed once.

    Raises:
        AdapterError: they share no matrix.
    """

    def __init__(self, first: Subject, second: Subject) -> None:
        self.first, self.second = first, second
        self.labels = subject_labels([first, second])
        self.shared = shared_names(first, second)
        self._starts: dict[str, Adapter] = {}
        self._records: dict[tuple[str, Of, Side], Overlap] = {}
        self._controls: dict[tuple[str, Of, Side], tuple[str, Overlap]] = {}
        if not self.shared:
            raise AdapterError("The two adapters must adapt at least one matrix of one shape in common. They share none.")

    @property
    def has_own_a(self) -> bool:
        """Whether A of both is what was trained."""
        return self.first.has_own_a and self.second.has_own_a

    def record(self, name: str, *, of: Of = "delta", side: Side = "in") -> Overlap:
        """φ of one matrix that both adapt."""
        if (name, of, side) not in self._records:
            one, other = self.first.adapter[name], self.second.adapter[name]
            self._records[name, of, side] = overlap_of(name, one, other, of=of, side=side, most=MOST_DIRECTIONS)
        return self._records[name, of, side]

    def control(self, record: Overlap) -> tuple[str, Overlap]:
        """What φ is where nothing was learned, and what that control is called."""
        key = (record.name, record.of, record.side)
        if key not in self._controls:
            name, found = control_of(self.first, self.second, {record.name: record}, side=record.side, start=self._start)
            self._controls[key] = name, found[record.name]
        return self._controls[key]

    def figure(self, record: Overlap) -> go.Figure:
        """φ beside its control and the chance level."""
        (first, second), (name, control) = self.labels, self.control(record)
        return overlap(record, first=first, second=second, control=control, control_name=name)

    def show(self, answer: Answer, record: Overlap) -> None:
        """The same with its sentence."""
        first, second = self.labels
        answer.show(self.figure(record), overlap_caption(record, first=first, second=second))

    def _start(self, run: Run) -> Adapter:
        if run.run_id not in self._starts:
            self._starts[run.run_id] = run.start()
        return self._starts[run.run_id]
