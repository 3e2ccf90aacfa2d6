"""What merging makes of W0: the strongest directions of ΔW put into it, entry by entry."""

from pathlib import Path

import plotly.graph_objects as go

from lora_lab.analysis.base_records import MergedMatrix
from lora_lab.analysis.merged_matrices import merged_matrix, with_kept
from lora_lab.plots import merged_matrices, questions
from lora_lab.sweeps.subjects import Base, Source, Subject, subject_of
from lora_lab.widgets.controls import slider, tick
from lora_lab.widgets.matrices import chosen_matrix, matrices_of, matrix_menu
from lora_lab.widgets.panel import Answer, Panel


class Merge(Panel):
    """W0, the strongest directions of ΔW and their sum as maps on one colour scale, with a slider for how many are kept.

    Args:
        subject: a run, its id, an adapter's folder, a file of it, a Hub id, or LowRank by module name.
        base: a bench, a folder, a Hub id, or W0 by module name; a run has its own.
        matrix: the one looked at first; the deepest unless it is named.
        kept: how many directions of ΔW at first; all unless it is given.
        runs: the store that ids are of.

    Raises:
        LabError: adapter or base cannot be had or read, they have different shapes, or there is no such matrix.

    Attributes:
        matrix: the menu of matrices.
        kept: the slider.
        own_scale: whether ΔW has a colour scale of its own, where it is too small to be seen on that of W0.
        record: the three matrices as they are shown.
    """

    record: MergedMatrix

    def __init__(
        self,
        subject: Source | Subject,
        base: Base | None = None,
        *,
        matrix: str | None = None,
        kept: int | None = None,
        runs: str | Path = "runs",
    ) -> None:
        self.subject = subject_of(subject, base=base, runs=runs)
        names = matrices_of(self.subject)
        self.base = self.subject.base(base)
        self.record = self._whole(chosen_matrix(names, matrix, owner="Merge"))
        self.matrix = matrix_menu(names, self.record.name)
        rank = self.record.rank
        self.kept = slider("rank kept", rank if kept is None else kept, least=0, most=rank)
        self.own_scale = tick("ΔW on a scale of its own", value=False)
        self.answer = Answer(*questions.MERGED)
        super().__init__([self.matrix, self.kept, self.own_scale], [self.answer])

    def figure(self) -> go.Figure:
        """What is shown."""
        return merged_matrices.merged_matrix(self.record, own_scale=self.own_scale.value)

    def _whole(self, name: str) -> MergedMatrix:
        return merged_matrix(name, self.subject.adapter[name], self.base.named(name))

    def _draw(self) -> None:
        name = self.matrix.value
        if name != self.record.name:
            self.record = self._whole(name)
            self.kept.max = self.record.rank
            self.kept.value = self.record.rank
        self.kept.disabled = self.kept.max == 0
        self.record = with_kept(self.record, self.subject.adapter[name], self.kept.value)
        self.answer.show(self.figure(), merged_matrices.merged_caption(self.record))
