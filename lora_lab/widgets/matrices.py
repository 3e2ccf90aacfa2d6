"""Which of an adapter's matrices is looked at: by a menu, or by a map with a number on each."""

from collections.abc import Callable, Mapping, Sequence

import ipywidgets

from lora_lab.errors import AdapterError, SpecError, out_of_range
from lora_lab.plots.matrix_layout import matrix_layout
from lora_lab.plots.matrix_map import matrix_map
from lora_lab.plots.measures import Measure
from lora_lab.roles import matrix_label
from lora_lab.sweeps.subjects import Subject
from lora_lab.widgets.controls import Picked, menu


def chosen_matrix(names: Sequence[str], matrix: str | None, *, owner: str) -> str:
    """The matrix that is looked at first: the one named, or else the deepest.

    Args:
        names: those there are, by module path.
        matrix: the one named.
        owner: whose parameter it is.

    Raises:
        SpecError: the one named is not among them.
    """
    layout = matrix_layout(list(names))
    if matrix is not None and matrix not in layout.places:
        raise SpecError(out_of_range("matrix", owner, f"one of {', '.join(layout.names)}", matrix))
    return layout.deepest if matrix is None else matrix


def matrix_menu(names: Sequence[str], chosen: str) -> ipywidgets.Dropdown:
    """One of these matrices, layer by layer; `value` is its name."""
    options = [(matrix_label(name), name) for name in matrix_layout(list(names)).names]
    return menu("matrix", options, chosen)


def matrices_of(subject: Subject) -> list[str]:
    """The matrices that an adapter changes.

    Raises:
        AdapterError: none.
    """
    if not subject.adapter:
        why = " ".join(subject.adapter.warnings)
        raise AdapterError(f"The adapter must change at least one matrix. Got {subject.place}, which changes none. {why}".strip())
    return list(subject.adapter)


class MatrixMap(Picked):
    """Layers down, roles across, a number on each matrix; a click on one calls `choose` with its name."""

    def __init__(self, choose: Callable[[str], None]) -> None:
        super().__init__()
        self._choose = choose

    def show(self, values: Mapping[str, int | float | None], measure: Measure, *, picked: str) -> None:
        """Draw these numbers, one matrix marked."""
        self._map = f'<div class="lab-s">{measure.about}; click one</div>{matrix_map(values, measure, picked=picked)}'
        self.redraw()

    def pick(self, name: str) -> None:
        """What a click does."""
        self._choose(name)

    def _html(self) -> str:
        return self._map
