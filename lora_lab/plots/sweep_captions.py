"""Sentences of a sweep: what it would take before it begins, and what its runs have learned."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lora_lab.plots.captions import learning_caption
from lora_lab.plots.labels import labels_of
from lora_lab.units import file_size, seconds

if TYPE_CHECKING:
    from lora_lab.sweeps import RunProgress  # its package loads torch, which a sentence does not need
    from lora_lab.sweeps.estimate import SweepPlan


def sweep_plan_caption(plan: "SweepPlan") -> str:
    """Runs, steps, disk and time."""
    runs = f"{plan.runs} {'run' if plan.runs == 1 else 'runs'}"
    left = plan.runs - plan.kept
    if not left:
        return f"{runs}, and the store has all of them: nothing is left to do."
    had = f", {plan.kept} of them in the store already" if plan.kept else ""
    snapshots = f", {file_size(plan.snapshot_bytes)} of snapshots" if plan.snapshot_bytes else ""
    disk = f"{file_size(plan.adapter_bytes)} of adapters{snapshots} and {file_size(plan.log_bytes)} of logs"
    what = f"{runs}{had}: {plan.steps:,} optimizer steps, {disk}"
    if plan.time_s is None:
        return f"{what}."
    passes = f"in {plan.passes} {'pass' if plan.passes == 1 else 'passes'}"
    beside = f", {plan.workers} at once" if plan.workers > 1 else ""
    return f"{what}, about {seconds(plan.time_s)} here {passes}{beside}, by a few timed steps of each kind."


def learned_caption(
    runs: "Sequence[RunProgress]", best: "RunProgress | None", *, base: float | None, base_name: str, ended: bool
) -> str:
    """How far the best of the runs is above the base, named where their methods differ; nothing before one has been scored.

    Args:
        runs: all of them.
        best: one of them.
        base: what the base scored.
        base_name: what the base is called.
        ended: whether nothing more will happen to them.
    """
    if best is None or best.score is None:
        return ""
    several = len({run.spec.tuning.method for run in runs}) > 1
    name = labels_of([run.spec for run in runs])[runs.index(best)] if several else ""
    echo = best.start.echo_score if best.start else None
    named = {"base_name": base_name, "best_name": name}
    return learning_caption(best.value(best.score), base, ended=ended, metric=best.metric, echo=echo, **named)
