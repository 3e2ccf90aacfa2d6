"""Who is at work: the passes of a sweep that are under way, each the work of one worker."""

from collections.abc import Iterable
from dataclasses import dataclass

from lora_lab.sweeps.progress import RunProgress


@dataclass(frozen=True, slots=True)
class Pass:
    """Runs that share their forward and backward passes, or one run alone.

    Attributes:
        runs: those of it that go on; others may have ended, as where one diverged.
        begun: as many as it began with.
        step: that the furthest of them has come to.
        steps: that they are to take.
    """

    runs: tuple[RunProgress, ...]
    begun: int
    step: int
    steps: int

    @property
    def share_done(self) -> float:
        """Steps done of all steps, in 0..1; 1 where there are none to do."""
        return self.step / self.steps if self.steps else 1.0


def passes_of(runs: Iterable[RunProgress]) -> tuple[Pass, ...]:
    """The passes under way, in the order in which they began; runs that wait, and those that have ended, are in none."""
    found: dict[str, list[RunProgress]] = {}
    for run in runs:
        if run.start is not None and run.done is None:
            found.setdefault(run.start.group_id or run.spec.run_id, []).append(run)
    return tuple(_pass(members) for members in found.values())


def _pass(members: list[RunProgress]) -> Pass:
    begun = max(run.start.group_runs for run in members if run.start)
    return Pass(tuple(members), begun, max(run.step for run in members), max(run.spec.steps for run in members))
