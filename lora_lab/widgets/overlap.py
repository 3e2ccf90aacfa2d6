"""Whether two ΔW found the same directions."""

from pathlib import Path

import plotly.graph_objects as go

from lora_lab.analysis import records
from lora_lab.analysis.records import Of, Side
from lora_lab.errors import SpecError, out_of_range
from lora_lab.plots import questions
from lora_lab.sweeps.subjects import Base, Source, Subject, subject_of
from lora_lab.widgets.controls import toggle
from lora_lab.widgets.matrices import chosen_matrix, matrix_menu
from lora_lab.widgets.pairs import Pair
from lora_lab.widgets.panel import Answer, Panel


class Overlap(Panel):
    """φ(i, j) of one matrix in two adapters, beside what it is where nothing was learned and what chance gives.

    Args:
        first: a run, its id, an adapter's folder, a file of it, a Hub id, or LowRank by module name.
        second: likewise.
        of: singular vectors of ΔW (`delta`), or of A (`a`) as section 7.2 of the paper takes them.
        side: input side (`in`) or output side (`out`).
        matrix: the one looked at first; the deepest unless it is named.
        base: beside which an adapter is read whose method needs it.
        runs: the store that ids are of.

    Raises:
        LabError: one cannot be had or read, the two share no matrix, or they have no such matrix, vectors or side.

    Attributes:
        of: the control of the same name; so are `side` and `matrix`.
        record: φ as `lora_lab.overlap` gives it, of at most 64 directions.
        control: the same where nothing was learned.
        control_name: what that is.
    """

    record: records.Overlap
    control: records.Overlap
    control_name: str

    def __init__(
        self,
        first: Source | Subject,
        second: Source | Subject,
        *,
        of: Of = "delta",
        side: Side = "in",
        matrix: str | None = None,
        base: Base | None = None,
        runs: str | Path = "runs",
    ) -> None:
        one, other = (subject_of(subject, base=base, runs=runs) for subject in (first, second))
        self.pair = Pair(one, other)
        _checked(of, side, self.pair)
        self.matrix = matrix_menu(self.pair.shared, chosen_matrix(self.pair.shared, matrix, owner="Overlap"))
        self.of = toggle("vectors", (("of ΔW", "delta"), ("of A", "a")), of)
        self.of.disabled = not self.pair.has_own_a
        self.side = toggle("side", (("input", "in"), ("output", "out")), side)
        self.answer = Answer(*questions.OVERLAP)
        super().__init__([self.matrix, self.of, self.side], [self.answer])

    def figure(self) -> go.Figure:
        """What is shown."""
        return self.pair.figure(self.record)

    def _draw(self) -> None:
        of = self.of.value
        _checked(of, "in", self.pair)
        self.side.disabled = of == "a"
        if of == "a":  # its directions live on the input side only
            self.side.value = "in"
        side = self.side.value
        self.record = self.pair.record(self.matrix.value, of=of, side=side)
        self.control_name, self.control = self.pair.control(self.record)
        self.pair.show(self.answer, self.record)


def _checked(of: str, side: str, pair: Pair) -> None:
    """Raises where there are no such vectors."""
    if of not in ("delta", "a"):
        raise SpecError(out_of_range("of", "Overlap", "delta or a", of))
    if side not in ("in", "out"):
        raise SpecError(out_of_range("side", "Overlap", "in or out", side))
    if of == "a" and not pair.has_own_a:
        raise SpecError(out_of_range("of", "Overlap", "delta where A of one is not what was trained", of))
    if of == "a" and side == "out":
        raise SpecError(out_of_range("side", "Overlap", "in where of is a, whose directions lie on the input side", side))
