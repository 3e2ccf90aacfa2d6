"""Runs side by side: mean and spread over seeds."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import mean, stdev

from lora_lab.specs import RunSpec, unique
from lora_lab.sweeps.progress import RunProgress


@dataclass(frozen=True, slots=True)
class Cell:
    """Accuracy over the seeds of one configuration; `sd` is None for a single seed."""

    mean: float
    sd: float | None
    seeds: int


@dataclass(frozen=True, slots=True)
class RankTable:
    """One row a choice of everything but rank and seed, one column a rank; a cell that was not measured is None."""

    ranks: tuple[int, ...]
    rows: tuple[tuple[str, tuple[Cell | None, ...]], ...]
    base_accuracy: float | None


def rank_table(runs: Iterable[RunProgress]) -> RankTable:
    """How accuracy on the held-out split depends on the rank."""
    runs = list(runs)
    groups: dict[tuple[str, int], list[float]] = defaultdict(list)
    for run in runs:
        if run.done and run.done.status == "finished" and run.evals:
            groups[row_name(run.spec), run.spec.lora.r].append(run.evals[-1].accuracy)
    ranks = unique(sorted(run.spec.lora.r for run in runs))
    names = unique(row_name(run.spec) for run in runs)
    rows = tuple((name, tuple(_cell(groups.get((name, r), [])) for r in ranks)) for name in names)
    return RankTable(ranks, rows, next((run.evals[0].accuracy for run in runs if run.evals), None))


def row_name(spec: RunSpec) -> str:
    """What a run was but for its rank and seed: "q_proj, v_proj · α 16 · lr 0.005"."""
    alpha = f"α {spec.lora.lora_alpha:g}" + (" · rsLoRA" if spec.lora.use_rslora else "")
    return f"{', '.join(spec.lora.target_modules)} · {alpha} · lr {spec.learning_rate:g} · {spec.steps} steps"


def _cell(accuracies: list[float]) -> Cell | None:
    if not accuracies:
        return None
    return Cell(mean(accuracies), stdev(accuracies) if len(accuracies) > 1 else None, len(accuracies))
