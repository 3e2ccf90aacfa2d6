"""Widgets for notebooks: the core of the page, with controls on the left and answers on the right.

Names resolve when they are first used; only then are ipywidgets and anywidget needed.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from lora_lab.errors import LabError

_HOME = {
    "Amplification": "lora_lab.widgets.amplification",
    "Budget": "lora_lab.widgets.budget",
    "Gradients": "lora_lab.widgets.gradients",
    "Merge": "lora_lab.widgets.merge",
    "Microscope": "lora_lab.widgets.microscope",
    "Overlap": "lora_lab.widgets.overlap",
    "Panel": "lora_lab.widgets.panel",
    "Spectrum": "lora_lab.widgets.spectrum",
    "Sweep": "lora_lab.widgets.sweep",
}
__all__ = sorted(_HOME)
_NEEDED = ("ipywidgets", "anywidget")


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'lora_lab.widgets' has no attribute {name!r}")
    missing = [package for package in _NEEDED if find_spec(package) is None]
    if missing:
        needs = f"Widgets need {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed"
        raise LabError(f"{needs}: pip install -r requirements-notebooks.txt.")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
