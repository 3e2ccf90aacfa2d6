"""What a run comes to: its numbers, from its events."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from statistics import median
from types import MappingProxyType
from typing import Any

from lora_lab.events import DoneEvent, EvalEvent, Event, ForgettingEvent, StartEvent, StepEvent

_VERSIONS = ("torch", "transformers", "peft")


@cache  # finding and reading three packages' metadata takes longer than all else here
def installed_versions() -> Mapping[str, str]:
    """The versions of what a run's numbers depend on."""
    return MappingProxyType({name: version(name) for name in _VERSIONS})


def metrics_of(events: Iterable[Event]) -> dict[str, Any]:
    """The numbers of a run that is over, from its events; what was not measured is None.

    Scores stand under the metric's own name (`metric` says which): `accuracy`, `base_accuracy` of the frozen base, and of the
    test split `test_accuracy` and `base_test_accuracy`; losses likewise. `echo_` is no model's: see StartEvent.
    """
    events = list(events)
    start = next(e for e in events if isinstance(e, StartEvent))
    done = next(e for e in events if isinstance(e, DoneEvent))
    evals = [e for e in events if isinstance(e, EvalEvent)]
    forgot = next((e for e in events if isinstance(e, ForgettingEvent)), None)
    steps_s = [e.step_s for e in events if isinstance(e, StepEvent) and e.step_s is not None]
    return {
        "status": done.status,
        "message": done.message,
        "step": done.step,
        "metric": start.metric,
        **_scores(evals, start.metric, done.step),
        **({f"echo_{start.metric}": start.echo_score} if start.echo_score is not None else {}),
        **({f"echo_test_{start.metric}": start.echo_test_score} if start.echo_test_score is not None else {}),
        "forgetting": {"kept": forgot.kept, "before": forgot.before, "after": forgot.after} if forgot else None,
        "trainable_params": start.trainable_params,
        "head_params": start.head_params,
        "total_params": start.total_params,
        "base_note": start.base_note,
        "group_runs": start.group_runs,
        "wall_s": done.wall_s,
        "step_s": median(steps_s) if steps_s else None,
        "peak_memory_bytes": done.peak_memory_bytes,
        "peak_reserved_bytes": done.peak_reserved_bytes,
        "longest_tokens": done.longest_tokens,
        "device": start.device,
        "precision": start.precision,
        "versions": dict(installed_versions()),
    }


def _scores(evals: Sequence[EvalEvent], metric: str, last_step: int) -> dict[str, float | None]:
    """Score and loss of the base and of the run at its end, on either split."""
    found: dict[str, float | None] = {}
    for split, prefix in (("validation", ""), ("test", "test_")):
        of_split = [e for e in evals if e.split == split]
        base = next((e for e in of_split if e.step == 0), None)
        last = next((e for e in reversed(of_split) if e.step == last_step), None)
        found |= {f"base_{prefix}loss": base.loss if base else None, f"{prefix}loss": last.loss if last else None}
        if metric != "loss":
            found |= {f"base_{prefix}{metric}": base.score if base else None, f"{prefix}{metric}": last.score if last else None}
    return found
