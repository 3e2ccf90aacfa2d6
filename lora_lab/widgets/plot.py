"""A plot that can be shown anew: only what has changed goes to the front end, so that a reader's zoom stays."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import plotly.graph_objects as go
from plotly.io.json import to_json_plotly

_CONFIG = {"responsive": True, "displaylogo": False, "modeBarButtonsToRemove": ["select2d", "lasso2d"]}


class Plot(go.FigureWidget):
    """A figure of `lora_lab.plots` in a notebook. Python draws; what a reader does to a view stays in that view."""

    data: Any  # plotly's property, which has no type

    def __init__(self) -> None:
        super().__init__()
        self._config = _CONFIG
        self.add_class("lab-plot")

    def draw(self, figure: go.Figure) -> None:
        """Show this figure in place of the one before."""
        new = figure.to_plotly_json()
        with self.batch_update():
            self._draw_layout(new["layout"])
            kept = self._redraw_traces(new["data"])
        if kept < len(self.data):
            self.data = self.data[:kept]
        if kept < len(new["data"]):
            self.add_traces(new["data"][kept:])
        self._tell_later_views()

    def _draw_layout(self, new: Mapping[str, Any]) -> None:
        old = self.layout.to_plotly_json()
        for key in _changed(old, new):
            self.layout[key] = new.get(key)

    def _redraw_traces(self, new: list[Mapping[str, Any]]) -> int:
        """Change the traces that stay; how many those are."""
        kept = 0
        for trace, wanted in zip(self.data, new, strict=False):
            if trace.type != wanted["type"]:
                break
            for key in _changed(trace.to_plotly_json(), {**wanted, "uid": trace.uid}):
                trace[key] = wanted.get(key)
            kept += 1
        return kept

    def _tell_later_views(self) -> None:
        """A view that opens after this begins with what these hold: plotly sets them once, at the start."""
        self._widget_layout, self._widget_data = deepcopy(self._layout_obj._props), deepcopy(self._data)

    # What a view tells of itself is heard by nobody: it would change the figure while it is drawn.
    _handler_js2py_traceDeltas = _handler_js2py_layoutDelta = None
    _handler_js2py_restyle = _handler_js2py_update = _handler_js2py_relayout = _handler_js2py_pointsCallback = None


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    return [key for key in {**old, **new} if _text(old.get(key)) != _text(new.get(key))]


def _text(value: Any) -> str:
    text: str = to_json_plotly(value)
    return text
