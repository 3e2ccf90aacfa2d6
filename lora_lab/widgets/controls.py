"""Controls that ipywidgets lacks: several of a few as chips, and the matrices of a block."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets
import traitlets

from lora_lab.errors import SpecError
from lora_lab.geometry import Geometry
from lora_lab.plots.block_drawing import block_drawing, block_note
from lora_lab.plots.choices import TARGETS

_LABEL_PX = "96px"


class Picked(anywidget.AnyWidget):
    """HTML whose elements with `data-pick` are buttons. `value` is what is chosen, whoever changes it."""

    _esm = Path(__file__).parent / "controls.js"
    drawn = traitlets.Unicode("").tag(sync=True)
    value = traitlets.Tuple()

    def __init__(self) -> None:
        super().__init__()
        self.on_msg(self._hear)
        self.observe(lambda _: self.redraw(), "value")

    def redraw(self) -> None:
        """Draw what is chosen."""
        self.drawn = self._html()

    def _hear(self, _: object, content: dict[str, Any], __: object) -> None:
        self.pick(str(content["pick"]))

    def pick(self, name: str) -> None:
        """What a click on an element does."""
        raise NotImplementedError

    def _html(self) -> str:
        raise NotImplementedError


class Chips(Picked):
    """Several of a few choices; `value` is a tuple of them, in the order of the options.

    Args:
        title: what they are.
        options: the choices. Another value may be set from code: it becomes a choice too.
        value: those chosen.
        label: what a choice is called.
    """

    def __init__(self, title: str, options: Iterable[Any], value: Iterable[Any], *, label: Callable[[Any], str] = str) -> None:
        super().__init__()
        self.title, self.options, self.label = title, tuple(options), label
        self.value = tuple(value)
        self.redraw()

    def pick(self, name: str) -> None:
        """Choose one, or no longer."""
        picked = next(option for option in self._offered() if self.label(option) == name)
        self.value = tuple(o for o in self._offered() if (o in self.value) != (o == picked))

    def _offered(self) -> tuple[Any, ...]:
        return (*self.options, *(chosen for chosen in self.value if chosen not in self.options))

    def _html(self) -> str:
        chips = "".join(_chip(self.label(option), self.label(option), chosen=option in self.value) for option in self._offered())
        return f'<div class="lab-h">{escape(self.title)}</div><div class="lab-presets" role="group">{chips}</div>'


class Targets(Picked):
    """The matrices of one block, drawn; `value` is the targets as a spec has them. A click adapts a matrix, or no longer.

    Args:
        geometry: the model's.
        value: the targets.
        r: how thick A and B are drawn.
    """

    def __init__(self, geometry: Geometry, value: Iterable[str], *, r: int) -> None:
        super().__init__()
        self._geometry, self._r = geometry, r
        self.value = tuple(value)
        self.redraw()

    def show(self, geometry: Geometry, *, r: int) -> None:
        """Draw another model, or another r. Targets that the model does not have are let go."""
        self._geometry, self._r = geometry, r
        self.value = tuple(target for target in self.value if geometry.matching(target))
        self.redraw()

    def chosen(self) -> tuple[str, ...]:
        """The targets, at least one.

        Raises:
            SpecError: none is chosen.
        """
        if not self.value:
            raise SpecError("The targets must be at least one matrix. Got none.")
        return tuple(self.value)

    def pick(self, name: str) -> None:
        """A matrix, or one of the usual choices as `q,v`."""
        preset = next((names for _, names in TARGETS if (",".join(names) == name and len(names) > 1) or (name,) == names), None)
        if preset is None:
            self.value = self._geometry.toggled(self.value, name)
        else:
            self.value = tuple(target for target in preset if self._geometry.matching(target))

    def _html(self) -> str:
        chosen = self._named(self.value)
        chips = "".join(_chip(",".join(names), label, chosen=self._named(names) == chosen) for label, names in TARGETS)
        title = f'<div class="lab-h">Target matrices <small>{escape(block_note(self._geometry))}</small></div>'
        return f'{title}<div class="lab-presets">{chips}</div>{block_drawing(self._geometry, chosen, r=self._r)}'

    def _named(self, targets: Iterable[str]) -> set[str]:
        return {m.name for target in targets for m in self._geometry.matching(target)}


def _chip(pick: str, label: str, *, chosen: bool) -> str:
    state = f'role="checkbox" aria-checked="{str(chosen).lower()}" tabindex="0"'
    return f'<span class="lab-chip{" on" if chosen else ""}" data-pick="{escape(pick)}" {state}>{escape(label)}</span>'


def slider(title: str, value: int, *, least: int, most: int, step: int = 1, live: bool = True) -> ipywidgets.IntSlider:
    """A whole number; a first value past either end moves that end. One that is not live tells its value when it is let go."""
    ends = {"min": min(least, value), "max": max(most, value)}
    return ipywidgets.IntSlider(value, description=title, step=step, continuous_update=live, **ends, **_look())


def _numbers(text: str) -> float | tuple[float, ...]:
    values = tuple(float(part) for part in text.split(","))
    return values[0] if len(values) == 1 else values


@dataclass(frozen=True)
class Reading:
    """How a text becomes a value, with a ValueError where it is none; `allowed` says what a text must be."""

    allowed: str
    parse: Callable[[str], Any]


INT = Reading("an int", int)
NUMBER = Reading("a number", float)
NUMBERS = Reading("a number, or several with commas between them", _numbers)


@dataclass(frozen=True)
class Unreadable:
    """What stands in a field that it cannot be read as."""

    text: str


def _written(value: Any, _: object) -> str:
    if value is None:
        return ""
    if isinstance(value, Unreadable):
        return value.text
    return ", ".join(f"{one:g}" for one in (value if isinstance(value, tuple) else (value,)))


def _read(text: str, field: "Field") -> Any:
    try:
        return field.reading.parse(text) if text.strip() else None
    except ValueError:
        return Unreadable(text)


class Field(ipywidgets.Text):
    """A field that may be left empty: `value` is what stands in it, None where it is empty, Unreadable where that is no value.

    Args:
        title: what it is.
        value: what stands in it first.
        reading: from text to value.
        hint: what an empty field stands for.
    """

    value = traitlets.Any(None).tag(sync=True, to_json=_written, from_json=_read)

    def __init__(self, title: str, value: Any, reading: Reading, *, hint: str = "") -> None:
        self.reading = reading
        super().__init__(value, description=title, placeholder=hint, continuous_update=False, **_look())

    def chosen(self) -> Any:
        """The value, or None where the field is empty.

        Raises:
            SpecError: what stands there cannot be read.
        """
        if isinstance(self.value, Unreadable):
            raise SpecError(f"The {self.description} must be {self.reading.allowed}. Got {self.value.text!r}.")
        return self.value


def menu(title: str, options: Iterable[tuple[str, Any]] | Iterable[str], value: Any) -> ipywidgets.Dropdown:
    """One of some, names without regard to case; a first value that is not among them becomes one.

    Args:
        title: what they are.
        options: names, or (name, value).
        value: the one chosen.
    """
    named = [option if isinstance(option, tuple) else (option, option) for option in options]
    if not any(_same(known, value) for _, known in named):
        named.append((str(value), value))
    return ipywidgets.Dropdown(options=named, value=value, description=title, equals=_same, **_look())


def offer(menu: ipywidgets.Dropdown, options: Sequence[tuple[str, Any]], *, otherwise: Any) -> None:
    """Give a menu other options; what was chosen stays where it is among them."""
    if list(menu.options) != list(options):
        chosen, menu.options = menu.value, list(options)
        menu.value = chosen if any(_same(value, chosen) for _, value in options) else otherwise


def toggle(title: str, options: Iterable[tuple[str, str]], value: str) -> ipywidgets.ToggleButtons:
    """One of two or three, all in sight; options as (text, value)."""
    style = {"description_width": _LABEL_PX, "button_width": "auto"}
    return ipywidgets.ToggleButtons(options=list(options), value=value, description=title, style=style, layout={"width": "auto"})


def tick(title: str, *, value: bool) -> ipywidgets.Checkbox:
    """Yes or no."""
    return ipywidgets.Checkbox(value, description=title, indent=False, layout={"width": "auto"})


def share_slider(title: str, value: float) -> ipywidgets.FloatSlider:
    """A share above 0 and up to 1."""
    ends = {"min": min(0.05, value), "max": 1.0, "step": 0.05}
    return ipywidgets.FloatSlider(value, description=title, readout_format=".2f", **ends, **_look())


def _look() -> dict[str, Any]:
    return {"style": {"description_width": _LABEL_PX}, "layout": {"width": "auto"}}


def _same(one: Any, other: Any) -> bool:
    return bool(one == other) or (isinstance(one, str) and isinstance(other, str) and one.casefold() == other.casefold())


def more(title: str, controls: Iterable[ipywidgets.Widget]) -> ipywidgets.Accordion:
    """Controls that few readers need, folded away."""
    folded = ipywidgets.Accordion([ipywidgets.VBox([*controls])], titles=(title,), selected_index=None)
    folded.add_class("lab-more")
    return folded
