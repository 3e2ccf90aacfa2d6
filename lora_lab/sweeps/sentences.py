"""A sweep in words: what it would do, and where it stands."""

from collections.abc import Iterable, Sequence

from lora_lab.specs import METHODS, RunSpec, unique
from lora_lab.sweeps.jobs import Job
from lora_lab.units import seconds


def plan_sentence(specs: Sequence[RunSpec], complete: Iterable[str]) -> str:
    """How many runs of how many steps, at which rates, and how many of them there are already."""
    kept = set(complete)
    had = [spec for spec in specs if spec.run_id in kept]
    already = f", {len(had)} of them in the store already" if had else ""
    noun = "run" if len(specs) == 1 else "runs"
    return f"{len(specs)} {noun} of {specs[0].steps} steps at {_rates(specs)}{already}."


def start_label(specs: Sequence[RunSpec], complete: Iterable[str]) -> str:
    """What Start does: where some of the runs are there, as after a stop, it trains the others alone."""
    kept = set(complete)
    had = sum(spec.run_id in kept for spec in specs)
    return "Resume" if 0 < had < len(specs) else "Start"


def _rates(specs: Sequence[RunSpec]) -> str:
    rates = unique((spec.learning_rate, METHODS[spec.tuning.method].label) for spec in specs)
    by_rate: dict[float, list[str]] = {}
    for rate, label in rates:
        by_rate.setdefault(rate, []).append(label)
    if len(by_rate) == 1:
        return f"learning rate {rates[0][0]:g}"
    told = ", ".join(f"{rate:g} for {' and '.join(labels)}" for rate, labels in by_rate.items())
    return f"each method's own learning rate ({told})"


def progress_sentence(job: Job) -> str:
    """Steps done and time left."""
    left = f" · {seconds(job.time_left_s)} left" if job.state == "running" and job.time_left_s is not None else ""
    return f"step {job.steps_done:,} of {job.total_steps:,}{left}"


def state_sentence(job: Job) -> str:
    """What a sweep waits for, or how it ended; nothing while it trains, and nothing of one whose message says it."""
    return {
        "waiting": "Waiting for another sweep to end…",
        "running": "" if job.steps_done else "Measuring the base…" if job.events_seen else "Starting the workers…",
        "stopping": "Stopping: every run in hand keeps what it has learned.",
        "finished": "Done.",
        "stopped": "Stopped. What was learned is kept.",
        "failed": "",
    }[job.state]
