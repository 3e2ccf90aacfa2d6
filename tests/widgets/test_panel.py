"""What every widget does: it draws what its controls say, takes the place of its former self, and leaves nothing behind."""

import sys
import threading
from types import SimpleNamespace

import plotly.graph_objects as go
import pytest
from ipywidgets.widgets.widget import _instances as LIVE  # every widget that is not closed

import lora_lab as ll
from lora_lab.errors import LabError
from lora_lab.widgets.controls import Chips, Targets, slider
from lora_lab.widgets.panel import Answer, Panel
from lora_lab.widgets.plot import Plot


class Ruler(Panel):
    """A line as long as its control says, up to 5."""

    def __init__(self, length: int = 3) -> None:
        self.length, self.answer = slider("length", length, least=0, most=9), Answer("How long?", "in steps")
        super().__init__([self.length], [self.answer])

    def figure(self) -> go.Figure:
        return go.Figure(go.Scatter(x=[0, self.length.value], y=[0, 0]))

    def _draw(self) -> None:
        if self.length.value > 5:
            raise LabError("The length must be at most 5.")
        self.answer.show(self.figure(), f"It is {self.length.value} long.")


def shown(panel: Ruler) -> list[int]:
    return list(panel.answer.plot.data[0].x)


def test_a_control_moved_from_code_draws_anew() -> None:
    ruler = Ruler()
    assert shown(ruler) == [0, 3]
    ruler.length.value = 4
    assert shown(ruler) == [0, 4] == list(ruler.figure().data[0].x)
    assert "It is 4 long." in ruler.answer.sentence


def test_what_the_core_refuses_is_one_sentence_and_the_answers_stay() -> None:
    ruler = Ruler()
    ruler.length.value = 6
    assert "at most 5" in ruler.refused
    assert shown(ruler) == [0, 3]
    ruler.length.value = 2
    assert not ruler.refused
    assert shown(ruler) == [0, 2]


def test_arguments_that_cannot_be_drawn_raise_and_leave_no_widget() -> None:
    before = len(LIVE)
    with pytest.raises(LabError, match="at most 5"):
        Ruler(7)
    assert len(LIVE) == before


def test_closing_leaves_no_widget_and_may_be_done_twice() -> None:
    before = len(LIVE)
    ruler = Ruler()
    assert len(LIVE) > before
    ruler.close()
    ruler.close()
    ruler.redraw()
    assert ruler.closed
    assert len(LIVE) == before


def test_a_front_end_without_widgets_is_told_what_to_do_in_a_line_that_is_not_cut() -> None:
    bundle = Ruler()._repr_mimebundle_()
    assert "JupyterLab" in bundle["text/plain"]
    assert ".figure()" in bundle["text/plain"]
    assert not bundle["text/plain"].endswith("…")


class Amplification(Ruler):
    """As long a name as any widget has."""


def test_the_longest_name_leaves_room_for_what_to_do() -> None:
    assert len(repr(Amplification())) <= 110


@pytest.fixture
def run_cell(monkeypatch: pytest.MonkeyPatch) -> "object":
    """Tell the widgets that this run of this cell makes them."""

    def run(message: str, **of_cell: object) -> None:
        shell = SimpleNamespace(parent_header={"header": {"msg_type": "execute_request", "msg_id": message}, **of_cell})
        monkeypatch.setattr("IPython.get_ipython", lambda: shell)

    return run


@pytest.mark.parametrize("of_cell", [{"metadata": {"cellId": "a"}}, {"content": {"code": "Ruler()"}}], ids=["named", "unnamed"])
def test_a_cell_run_again_closes_what_it_made_and_two_of_one_run_stay(run_cell: "object", of_cell: dict[str, object]) -> None:
    run_cell("first", **of_cell)  # type: ignore[operator]
    one, two = Ruler(), Ruler()
    other = Amplification()
    assert not one.closed
    run_cell("second", **of_cell)  # type: ignore[operator]
    three = Ruler()
    assert (one.closed, two.closed, three.closed, other.closed) == (True, True, False, False)


def test_another_cell_closes_nothing(run_cell: "object") -> None:
    run_cell("first", metadata={"cellId": "b"})  # type: ignore[operator]
    one = Ruler()
    run_cell("second", metadata={"cellId": "c"})  # type: ignore[operator]
    Ruler()
    assert not one.closed


def test_two_threads_may_draw_at_once() -> None:
    ruler = Ruler()

    def move() -> None:
        for i in range(30):
            ruler.length.value = i % 6

    threads = [threading.Thread(target=move) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ruler.redraw()
    assert shown(ruler) == [0, ruler.length.value]


@pytest.mark.parametrize("package", ["ipywidgets", "anywidget"])
def test_without_its_packages_a_widget_says_how_to_get_them(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(LabError, match=rf"need {package}.*pip install -r requirements-notebooks\.txt"):
        _ = ll.widgets.Panel


@pytest.mark.parametrize("name", ll.widgets.__all__)
def test_every_widget_is_a_panel_and_says_what_it_shows(name: str) -> None:
    widget = getattr(ll.widgets, name)
    assert issubclass(widget, Panel)
    assert widget.__doc__


def test_an_unknown_widget_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="Nothing"):
        _ = ll.widgets.Nothing


# The plot


def drawn(plot: Plot) -> dict[str, object]:
    return go.Figure(plot.to_plotly_json()).to_plotly_json()


FIGURES = {
    "a line": go.Figure(go.Scatter(x=[1, 2], y=[3, 4], name="one")).add_hline(3),
    "two lines": go.Figure([go.Scatter(x=[1, 2], y=[3, 5]), go.Scatter(x=[1], y=[3], line={"dash": "dot"})]),
    "a map": go.Figure(go.Heatmap(z=[[1, 2]])),
    "a log axis": go.Figure(go.Scatter(x=[1, 2], y=[3, 4], mode="markers")).update_yaxes(type="log", title_text="y"),
    "nothing": go.Figure(),
}


def same(plot: Plot, wanted: go.Figure) -> None:
    got, want = plot.to_plotly_json(), wanted.to_plotly_json()
    assert [{k: v for k, v in trace.items() if k != "uid"} for trace in got["data"]] == want["data"]
    assert {k: v for k, v in got["layout"].items() if v not in ([], (), {})} == {
        k: v for k, v in want["layout"].items() if v not in ([], (), {})
    }


@pytest.mark.parametrize("after", FIGURES)
@pytest.mark.parametrize("before", FIGURES)
def test_a_plot_shows_the_last_figure_whatever_came_before(before: str, after: str) -> None:
    plot = Plot()
    plot.draw(FIGURES[before])
    plot.draw(FIGURES[after])
    same(plot, FIGURES[after])


def test_a_view_that_opens_later_begins_with_what_is_drawn_now() -> None:
    plot = Plot()
    plot.draw(FIGURES["a line"])
    plot.draw(FIGURES["two lines"])
    state = plot.get_state()
    assert [trace["y"] for trace in state["_widget_data"]] == [[3, 5], [3]]
    assert not state["_widget_layout"].get("shapes")


def test_more_points_of_a_line_leave_axes_and_other_lines_alone() -> None:
    plot, sent = Plot(), []
    plot.draw(FIGURES["two lines"])
    plot.observe(lambda change: sent.append(change.new), "_py2js_update")
    longer = go.Figure(FIGURES["two lines"])
    longer.data[0].update(x=[1, 2, 3], y=[3, 5, 6])
    plot.draw(longer)
    told = [message for message in sent if message]
    assert len(told) == 1
    assert sorted(told[0]["style_data"]) == ["x", "y"]
    assert not told[0]["layout_data"]


def test_what_a_reader_does_to_a_view_changes_no_figure() -> None:
    plot = Plot()
    plot.draw(FIGURES["a line"])
    zoomed = {"relayout_data": {"xaxis.range": [0, 1]}, "source_view_id": "view"}
    plot.set_state({"_js2py_relayout": zoomed, "_js2py_restyle": {"style_data": {"visible": "legendonly"}, "style_traces": [0]}})
    same(plot, FIGURES["a line"])


# The controls that ipywidgets lacks


def test_chips_are_chosen_and_let_go_by_a_click_in_the_order_of_the_options() -> None:
    chips = Chips("Ranks", (1, 2, 4), (4,))
    chips.pick("1")
    assert chips.value == (1, 4)
    chips.pick("4")
    assert chips.value == (1,)
    assert chips.drawn.count('aria-checked="true"') == 1


def test_a_value_from_code_that_is_no_option_becomes_one() -> None:
    chips = Chips("Ranks", (1, 2), (1,))
    chips.value = (1, 3)
    assert 'data-pick="3"' in chips.drawn
    chips.pick("2")
    assert chips.value == (1, 2, 3)


def test_matrices_are_picked_by_a_click_and_by_a_usual_choice() -> None:
    geometry = ll.find_model("llama-3.2-3b").geometry
    targets = Targets(geometry, ("q", "v"), r=8)
    targets.pick("k")
    assert targets.value == ("q", "v", "k")
    targets.pick("q,v")
    assert targets.value == ("q", "v")
    targets.pick("all-linear")
    assert targets.value == ("all-linear",)
    assert targets.drawn.count("lab-matrix on") == len(geometry.block())


def test_another_model_keeps_the_targets_that_it_has() -> None:
    targets = Targets(ll.find_model("llama-3.2-3b").geometry, ("gate", "q"), r=8)
    targets.show(ll.find_bench("digits").geometry(), r=8)
    assert targets.value == ("q",)


def test_a_front_end_says_what_was_clicked() -> None:
    chips = Chips("Ranks", (1, 2), (1,))
    chips._handle_custom_msg({"pick": "2"}, [])
    assert chips.value == (1, 2)


def test_a_slider_reaches_the_value_that_it_is_given() -> None:
    assert (slider("r", 300, least=1, most=256).value, slider("r", 300, least=1, most=256).max) == (300, 300)
