"""The page: places as routes, one look, launched with Gradio's own settings honoured."""

from pathlib import Path
from typing import Any

import gradio as gr

from lora_lab.sweeps import warm_up
from lora_lab.ui.budget import BudgetView
from lora_lab.ui.lab import Lab
from lora_lab.ui.latency import LatencyView
from lora_lab.ui.look_amplification import AmplificationView
from lora_lab.ui.look_spectra import SpectraView
from lora_lab.ui.look_subspaces import SubspacesView
from lora_lab.ui.methods import MethodsView
from lora_lab.ui.paper import PaperView
from lora_lab.ui.place import Place
from lora_lab.ui.results import ResultsView
from lora_lab.ui.train import TrainView
from lora_lab.ui.try_it import TryView
from lora_lab.ui.zero import runs_inline

_CSS = Path(__file__).with_name("style.css")
_HOUR_S = 3600
_HEAD = """<script>
const kept = localStorage.getItem('lora-lab-theme');
const apply = () => { if (kept && document.body) document.body.classList.toggle('dark', kept === 'dark'); };
document.addEventListener('DOMContentLoaded', () => { apply(); setTimeout(apply, 600); });
</script>"""


_ROOMS: dict[str, tuple[str, type[Place]]] = {
    "Results": ("/results", ResultsView),
    "Methods": ("/methods", MethodsView),
    "Latency": ("/latency", LatencyView),
    "Try it": ("/try", TryView),
    "Budget": ("/budget", BudgetView),
    "Look": ("/look", SpectraView),
    "Subspaces": ("/subspaces", SubspacesView),
    "Amplification": ("/amplification", AmplificationView),
    "The paper": ("/paper", PaperView),
}


def build(lab: Lab | None = None) -> gr.Blocks:
    """The whole page over one lab, not launched."""
    lab = lab or Lab.from_environment()
    with gr.Blocks(title="LoRA Lab", analytics_enabled=False, delete_cache=_copies_kept_s(lab)) as page:
        TrainView(lab).build(page)
    for name, (path, view) in _ROOMS.items():
        with page.route(name, path):
            view(lab).build(page)
    return page


def _copies_kept_s(lab: Lab) -> tuple[int, int] | None:
    """How often Gradio's copies of files are looked through, and how old they may grow.

    In public they are downloads. On one's own machine they are uploaded data too, which runs go on naming: those stay.
    """
    return (_HOUR_S, _HOUR_S) if lab.public else None


def launch(**options: Any) -> None:
    """Build the page and serve it until it is stopped; host and port come from Gradio's environment variables."""
    if not runs_inline():
        warm_up()
    look = {"css_paths": [_CSS], "head": _HEAD, "theme": theme()}
    lab = Lab.from_environment()
    # In public an unforeseen error keeps its text, which may name paths, to the log.
    build(lab).queue(default_concurrency_limit=16).launch(**{**look, "show_error": not lab.public, **options})


def theme() -> gr.themes.Base:
    """Violet on grey in the system's own fonts: nothing is fetched."""
    fonts = ["Inter", "system-ui", "sans-serif"]
    return gr.themes.Base(primary_hue="violet", neutral_hue="gray", font=fonts, font_mono=["ui-monospace", "monospace"])
