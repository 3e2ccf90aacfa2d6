"""What every widget is: controls on the left, answers on the right where there is room, and an end that leaves nothing behind."""

import threading
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets
import plotly.graph_objects as go

from lora_lab.errors import LabError
from lora_lab.plots import html_parts
from lora_lab.plots.html_parts import say
from lora_lab.widgets.plot import Plot

_HERE = Path(__file__).parent
_MADE_BY_CELL: dict[str, tuple[str, list["weakref.ref[Panel]"]]] = {}  # cell -> which run of it, and what that made


class Answer(ipywidgets.VBox):
    """A question, the plot that answers it, and the sentence that the numbers say.

    Args:
        question: what the plot answers.
        subtitle: what is drawn.
        beside: widgets between question and plot, such as a menu.
    """

    def __init__(self, question: str, subtitle: str = "", *, beside: Sequence[ipywidgets.Widget] = ()) -> None:
        self._title, self.plot, self._sentence = ipywidgets.HTML(), Plot(), ipywidgets.HTML()
        self.ask(question, subtitle)
        super().__init__([self._title, *beside, self.plot, self._sentence])
        self.add_class("lab-card")

    def ask(self, question: str, subtitle: str = "") -> None:
        """Put another question above the plot."""
        self._title.value = html_parts.question(question, subtitle)

    def show(self, figure: go.Figure, sentence: str = "") -> None:
        """Draw this figure, with this sentence under it."""
        self.plot.draw(figure)
        self._sentence.value = say(sentence)

    @property
    def sentence(self) -> str:
        """The sentence as HTML."""
        return str(self._sentence.value)


def card(*inside: ipywidgets.Widget) -> ipywidgets.VBox:
    """What stands together, set off from the rest."""
    made = ipywidgets.VBox([*inside])
    made.add_class("lab-card")
    return made


def beside(*answers: ipywidgets.Widget) -> ipywidgets.Box:
    """Answers in a row, below one another where there is no room."""
    made = ipywidgets.Box([*answers])
    made.add_class("lab-cards")
    return made


class _Frame(anywidget.AnyWidget):
    """The look of a panel, and plots as wide as their cards; there is nothing to see of it."""

    _esm, _css = _HERE / "frame.js", _HERE / "style.css"

    def __init__(self) -> None:
        super().__init__(layout={"display": "none"})


class Panel(ipywidgets.VBox):
    """The base of the widgets. A subclass makes its controls and answers, hands them over, and says in `_draw` what they show.

    A control moved, by hand or from code, draws anew; what the core refuses is one sentence above the answers, which then stay
    as they were. A cell that is run again puts its new widgets in the place of its old ones, and those are closed.

    Args:
        controls: on the left.
        answers: on the right, or below where there is no room.
        moves: the controls whose `value` draws anew; all that have one unless they are named.

    Raises:
        LabError: the arguments cannot be drawn.
    """

    def __init__(
        self,
        controls: Sequence[ipywidgets.Widget],
        answers: Sequence[ipywidgets.Widget],
        *,
        moves: Sequence[ipywidgets.Widget] | None = None,
    ) -> None:
        self._drawing = False
        self.lock = threading.RLock()  # a front end may move a control in one thread while a cell runs in another
        self._refused = ipywidgets.HTML()
        aside, right = ipywidgets.VBox([*controls]), ipywidgets.VBox([self._refused, *answers])
        aside.add_class("lab-aside")
        right.add_class("lab-answers")
        main = ipywidgets.Box([aside, right])
        main.add_class("lab-main")
        super().__init__([_Frame(), main])
        self.add_class("lab-panel")
        try:
            self._draw()
        except LabError:
            self.close()
            raise
        for control in moves if moves is not None else [c for c in controls if c.has_trait("value")]:
            control.observe(lambda _: self.redraw(), "value")
        _take_the_place_of_former(self)

    def _draw(self) -> None:
        """Show what the controls say."""
        raise NotImplementedError

    def figure(self) -> go.Figure:
        """What is shown, as a figure that needs no kernel: for a page, a file, or a front end without widgets."""
        raise NotImplementedError

    def redraw(self) -> None:
        """Show what the controls say now. Controls that move as it draws do not draw once more."""
        with self.lock:
            if self.closed or self._drawing:
                return
            self._drawing = True
            try:
                self._draw()
            except LabError as err:
                self._refused.value = say(str(err), kind="error")
            else:
                self._refused.value = ""
            finally:
                self._drawing = False

    @property
    def refused(self) -> str:
        """The sentence of what the core has refused, as HTML; empty where the answers are those of the controls."""
        return str(self._refused.value)

    @property
    def closed(self) -> bool:
        """Whether it has been closed."""
        return self.comm is None

    def close(self) -> None:
        """End what it began and take it off the notebook, with all that is in it."""
        for widget in list(_within(self)):
            ipywidgets.Widget.close(widget)

    def __repr__(self) -> str:
        """What a front end shows that cannot show widgets; ipywidgets cuts it after 110 characters."""
        return (
            f"{type(self).__name__}: this front end shows no widgets. Open the notebook in JupyterLab, or show .figure() instead."
        )


def _within(widget: ipywidgets.Widget) -> Iterator[ipywidgets.Widget]:
    """The widget after all that are in it."""
    for child in getattr(widget, "children", ()):
        yield from _within(child)
    for part in (getattr(widget, "layout", None), getattr(widget, "style", None)):
        if isinstance(part, ipywidgets.Widget):
            yield part
    yield widget


def _take_the_place_of_former(panel: Panel) -> None:
    """Close what an earlier run of the same cell made of this kind; widgets of one run stand beside each other."""
    cell, run = _cell_under_way()
    if not cell:
        return
    key = f"{type(panel).__name__} {cell}"
    run_before, made = _MADE_BY_CELL.get(key, ("", []))
    if run_before != run:
        for former in [one for ref in made if (one := ref()) is not None]:
            former.close()
        made = []
    _MADE_BY_CELL[key] = run, [*made, weakref.ref(panel)]


def _cell_under_way() -> tuple[str, str]:
    """(the cell, this run of it); both empty outside a notebook's cell. A front end that does not name cells has their text."""
    try:
        from IPython import get_ipython  # noqa: PLC0415 (not there outside notebooks)
    except ImportError:
        return "", ""
    parent: dict[str, Any] = getattr(get_ipython(), "parent_header", None) or {}
    header = parent.get("header", {})
    if header.get("msg_type") != "execute_request":
        return "", ""
    cell = parent.get("metadata", {}).get("cellId") or parent.get("content", {}).get("code", "")
    return str(cell), str(header["msg_id"])
