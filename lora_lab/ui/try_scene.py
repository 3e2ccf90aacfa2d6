"""What a selection means on "Try it": which bench, which of its runs, which example of its test split."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from lora_lab.assets import Notify
from lora_lab.benches import BENCH_NAMES, Bench, find_bench
from lora_lab.errors import DataError
from lora_lab.inference import BASE, Question, base_quant, question_of
from lora_lab.inference.live_models import TrainedRun
from lora_lab.plots import PALETTE, labels_of, run_colour
from lora_lab.specs import METHODS, unique
from lora_lab.sweeps import Run
from lora_lab.sweeps.summary import best_kept
from lora_lab.ui import try_html
from lora_lab.ui.selection import Selection

MOST_ASKED = 4  # runs beside the base: of some methods each is a model of its own
_FIRST_ASKED = 2


@dataclass(frozen=True)
class Scene:
    """A bench, its runs that the visitor may see, newest first, those of them that are asked, and the example."""

    bench: Bench
    runs: tuple[Run, ...]
    chosen: tuple[Run, ...]
    question: Question

    @classmethod
    def of(cls, selection: Selection, visible: Sequence[Run], *, notify: Notify | None = None) -> "Scene":
        """The scene of a selection; the first example where there is none of its number. With a `notify` the base is fetched.

        Raises:
            LabError: the bench's base or data cannot be had.
        """
        runs = [run for run in visible if is_of(run, selection)]
        own = runs[0].spec.data if runs and selection.is_own else selection.data_spec
        bench = find_bench(selection.bench_name, own)
        if notify:
            bench.prepare(notify=notify)
        try:
            question = question_of(bench, selection.example)
        except DataError:
            question = question_of(bench, 0)
        return cls(bench, tuple(runs), tuple(_chosen(runs, selection)), question)

    @property
    def trained(self) -> list[TrainedRun]:
        """The runs that are asked, as the core takes them."""
        return [(run.spec, run.adapter_dir) for run in self.chosen]

    def cards(self, said: try_html.Answers, *, prompt: str | None = None, note: str = "") -> list[Any]:
        """The cards, and what they show; right and wrong where the prompt is the example's own."""
        is_example = prompt is None or bool(self.question.pixels) or prompt == self.question.text
        shown = [_base_column(self.bench, self.chosen), *_run_columns(self.chosen)]
        names = self.bench.label_names()
        return [try_html.columns(shown, said, self.question if is_example else None, names, note=note), said]


def bench_key(run: Run) -> str:
    """The run's bench as a control names it."""
    return f"{run.spec.bench} {run.spec.data.path}" if run.spec.data else run.spec.bench


def bench_choices(selection: Selection, visible: Sequence[Run]) -> tuple[list[tuple[str, str]], str]:
    """The lab's benches and those of the user's own that have runs, as (label, key); and the key of the selection's."""
    named = {name: name.replace("digits:", "digits · ") for name in BENCH_NAMES} | {"digits": "digits · turned"}
    own = {bench_key(run): _own_label(run) for run in visible if run.spec.data}
    key = f"{selection.base} {selection.data}" if selection.is_own else selection.bench
    return [(label, name) for name, label in (named | own).items()], key


def offered(selection: Selection, visible: Sequence[Run]) -> Selection:
    """An address may name a bench that there is not; where it names none, and the first has no run, it is the newest run's."""
    has_runs = any(is_of(run, selection) for run in visible)
    if selection.is_own and has_runs:
        return selection
    if selection.bench not in BENCH_NAMES:
        selection = replace(selection, bench=Selection.bench, asked=())
        has_runs = any(is_of(run, selection) for run in visible)
    return of_run(selection, visible[0]) if visible and selection.bench == Selection.bench and not has_runs else selection


def is_of(run: Run, selection: Selection) -> bool:
    """Whether the run is on the selection's bench."""
    path = run.spec.data.path if run.spec.data else ""
    return run.spec.bench == selection.bench_name and path == (selection.data if selection.is_own else "")


def of_run(selection: Selection, run: Run) -> Selection:
    """The selection with the run's bench."""
    data = run.spec.data
    if data is None:
        return replace(selection, bench=run.spec.bench)
    columns = replace(selection, text_column=data.text_column, label_column=data.label_column)
    return replace(columns, bench="yours", base=run.spec.bench, data=data.path)


def _chosen(runs: Sequence[Run], selection: Selection) -> list[Run]:
    """Whom the selection names, else the run looked at, the best and the newest, two of them."""
    by_id = {run.run_id: run for run in runs}
    if selection.asked:
        return [by_id[run_id] for run_id in selection.asked if run_id in by_id][:MOST_ASKED]
    best = best_kept(runs)
    wanted = unique([selection.run, best.run_id if best else "", *by_id])
    return [by_id[run_id] for run_id in wanted if run_id in by_id][:_FIRST_ASKED]


def _own_label(run: Run) -> str:
    paths = [run.spec.bench, *([run.spec.data.path] if run.spec.data else [])]
    return " on ".join(path.rstrip("/").rsplit("/", 1)[-1] for path in paths)


def _base_column(bench: Bench, runs: Sequence[Run]) -> try_html.Column:
    quant = base_quant([run.spec for run in runs])
    about = "under a head that nobody has trained" if bench.trains_head else "as it was before any run"
    return try_html.Column(BASE, "base", about if quant == "none" else f"{about}, in {quant}", PALETTE["W0"])


def _run_columns(runs: Sequence[Run]) -> list[try_html.Column]:
    found = []
    for run, label in zip(runs, labels_of([run.spec for run in runs]), strict=True):
        method, score = METHODS[run.spec.tuning.method].label, run.score()
        name = label if label.startswith(method) else f"{method} · {label}"
        about = f"{run.metric.label} {run.metric.text(score)}" if score is not None else ""
        found.append(try_html.Column(run.run_id, name, about, run_colour(run.spec.tuning.method, run.spec.tuning.r)))
    return found
