"""Runs under way: which have begun and not ended, and how far they are, by what they say."""

from lora_lab.events import DoneEvent, Event, StepEvent


class UnderWay:
    """The step of every run that has begun and not ended, whoever has it in hand."""

    def __init__(self) -> None:
        self._steps: dict[str, int] = {}

    def take(self, run_id: str, event: Event) -> None:
        """Keep track of what a run says."""
        if isinstance(event, DoneEvent):
            self.over(run_id)
        else:
            self._steps[run_id] = event.step if isinstance(event, StepEvent) else self._steps.get(run_id, 0)

    def over(self, run_id: str) -> int:
        """The run is no longer under way. The step that it came to, 0 where it had not begun."""
        return self._steps.pop(run_id, 0)

    def stopped(self) -> list[tuple[str, Event]]:
        """The ends of the runs that had begun and will not go on; none is under way after that."""
        steps, self._steps = self._steps, {}
        return [(run_id, DoneEvent("stopped", step, "Stopped.", 0.0, None)) for run_id, step in steps.items()]
