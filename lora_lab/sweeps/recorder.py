"""What runs that are trained together say, and what they have learned, put into a store."""

from collections.abc import Iterable, Mapping

from lora_lab.adapters import saved_step
from lora_lab.events import DoneEvent, Event, StartEvent, StepEvent
from lora_lab.specs import RunSpec
from lora_lab.sweeps.draft import Draft
from lora_lab.sweeps.store import RunStore


class Recorder:
    """The drafts of runs, from a claim on each to its end. `drafts` are those under way, by run id.

    Args:
        specs: the runs; nothing is recorded of those that another process has in hand, or has ended by now.
        store: where they go.

    Raises:
        StoreError: a run cannot be begun; those begun before it are let go.
    """

    def __init__(self, specs: Iterable[RunSpec], store: RunStore) -> None:
        self.drafts: dict[str, Draft] = {}
        self._last_step: dict[str, StepEvent] = {}
        try:
            self._begin(specs, store)
        except BaseException:
            self.discard()
            raise

    def _begin(self, specs: Iterable[RunSpec], store: RunStore) -> None:
        for spec in specs:
            draft = store.begin(spec)
            if draft is not None:
                self.drafts[spec.run_id] = draft

    @property
    def specs(self) -> tuple[RunSpec, ...]:
        """The runs under way."""
        return tuple(draft.spec for draft in self.drafts.values())

    def take(self, run_id: str, event: Event) -> None:
        """Record what a run says. With its Done it is in the store; with one that failed, gone."""
        if isinstance(event, DoneEvent) and event.status == "failed":
            self.drafts.pop(run_id).discard()
            return
        draft = self.drafts[run_id]
        if isinstance(event, StartEvent):
            draft.begin_again()
            self._last_step.pop(run_id, None)
        draft.record(event)
        if isinstance(event, StepEvent):
            self._last_step[run_id] = event
        if isinstance(event, DoneEvent):
            self.drafts.pop(run_id).commit()

    def put(self, run_id: str, files: Mapping[str, bytes]) -> None:
        """Keep what another machine has saved of a run, by its paths in the run's folder."""
        self.drafts[run_id].put(files)

    def keep_stopped(self) -> None:
        """End what is under way as it is: what has learned something becomes a stopped run.

        It stands at the step of its adapter: in company that may be one which the run had no time to tell of.
        """
        for run_id, draft in self._emptied():
            last, step = self._last_step.get(run_id), saved_step(draft.folder / "adapter")
            if last is None or not step:
                draft.discard()
                continue
            draft.record(DoneEvent("stopped", step, "Stopped.", last.elapsed_s, None))
            draft.commit()

    def keep_saved(self) -> None:
        """End what is under way where its training broke off: the adapters as last saved become stopped runs."""
        for _, draft in self._emptied():
            draft.keep_saved()

    def discard(self) -> None:
        """Leave nothing of what is under way."""
        for _, draft in self._emptied():
            draft.discard()

    def _emptied(self) -> list[tuple[str, Draft]]:
        drafts, self.drafts = self.drafts, {}
        return list(drafts.items())
