"""Where runs are kept: a folder a run, and an SQLite index over them.

    runs/
      index.sqlite              rebuilt from the folders wherever they disagree (see index.py)
      3f2a90c1d4e5/             a run, whole (see run.py)
        spec.json  events.jsonl  metrics.json  adapter/  snapshots/
      .draft-3f2a90c1d4e5/      a run being trained (see draft.py)
      .claim-3f2a90c1d4e5       by the one process that has it in hand (see claims.py)

A killed process leaves a draft and nothing else; `recover` keeps its adapter as last saved as a stopped run, or clears it away.
"""

from collections.abc import Iterable
from pathlib import Path

from lora_lab.errors import StoreError
from lora_lab.specs import RunSpec, unique
from lora_lab.sweeps.claims import Claim, Claims, unwritable
from lora_lab.sweeps.draft import Draft, draft_folder, left_behind, remove, rescue
from lora_lab.sweeps.index import RunIndex
from lora_lab.sweeps.run import COMPLETE, Run, read_run


class RunStore:
    """The runs of one folder. Cheap to make; any number of processes may hold one."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise unwritable(self.root, err.strerror) from None
        self._claims = Claims(self.root)
        self._index = RunIndex(self.root, self._claims.turn)

    def begin(self, spec: RunSpec) -> Draft | None:
        """A draft for the run, which nobody else can begin until it is committed or discarded, or this process is gone.

        Returns:
            None where there is nothing to do: the run is being trained, or complete.
        """
        with self._claims.turn():
            claim = self._claims.take(spec.run_id)
        if claim is None:
            return None
        try:
            return self._begin(spec, claim)
        except BaseException:
            claim.give_back()
            raise

    def _begin(self, spec: RunSpec, claim: Claim) -> Draft | None:
        rescue(self.root, spec.run_id)
        there = read_run(self.root / spec.run_id)
        if there is None or not there.is_complete:
            return Draft(self.root, spec, claim)
        claim.give_back()
        return None

    def is_claimed(self, run_id: str) -> bool:
        """Whether a process, this one perhaps, is training that run at this moment."""
        return self._claims.is_taken(run_id)

    def folder_of(self, run_id: str) -> Path:
        """Where the run is or will be: in its draft while it is trained."""
        draft = draft_folder(self.root, run_id)
        return draft if draft.exists() else self.root / run_id

    def runs(self) -> list[Run]:
        """Every run, oldest first."""
        return self._index.runs()

    def get(self, run_id: str) -> Run:
        """The run of that id, or of the only id that begins so.

        Raises:
            StoreError: no such run, or several.
        """
        found = self._index.ids(prefix=run_id) if run_id else []
        found = [run_id] if run_id in found else found
        runs = self._index.runs(found) if len(found) == 1 else []
        if not runs:
            known = f"{len(found)} runs begin so" if len(found) > 1 else "no run begins so"
            raise StoreError(f"The run must be an id in {str(self.root)!r}. Got {run_id!r}: {known}.")
        return runs[0]

    def find(self, run_ids: Iterable[str]) -> list[Run]:
        """The runs of these ids, in their order; ids that the store does not have are left out."""
        wanted = list(run_ids)
        by_id = {run.run_id: run for run in self._index.runs(wanted)} if wanted else {}
        return [by_id[run_id] for run_id in wanted if run_id in by_id]

    def complete_ids(self) -> set[str]:
        """The ids of the runs that were trained to their end."""
        return set(self._index.ids(statuses=COMPLETE))

    def is_complete(self, run_id: str) -> bool:
        """Whether that run was trained to its end."""
        return run_id in self._index.ids(prefix=run_id, statuses=COMPLETE)

    def delete(self, run_ids: Iterable[str]) -> tuple[str, ...]:
        """Remove these runs for good, all or none.

        Returns:
            Their ids, each once.

        Raises:
            StoreError: one is not in the store, or is being trained.
        """
        wanted = unique(self.get(run_id).run_id for run_id in run_ids)
        with self._claims.turn():
            claims = {run_id: self._claims.take(run_id) for run_id in wanted}
            try:
                taken = next((run_id for run_id, claim in claims.items() if claim is None), None)
                if taken is not None:
                    raise StoreError(f"The runs to delete must not be in training. Got {taken!r}, which is.")
                for run_id in wanted:
                    remove(self.root, run_id)
            finally:
                for claim in claims.values():
                    if claim is not None:
                        claim.drop()
        return wanted

    def recover(self) -> list[Run]:
        """Deal with the drafts of processes that are gone: the adapter as last saved becomes a stopped run, the rest is cleared.

        Returns:
            The runs that were kept.
        """
        return self.find([run_id for run_id in sorted({*left_behind(self.root), *self._claims.known()}) if self._rescue(run_id)])

    def _rescue(self, run_id: str) -> bool:
        """In a turn to its end: the run is in nobody's hands meanwhile, and who wants it is kept waiting instead of sent away."""
        with self._claims.turn():
            claim = self._claims.take(run_id)
            if claim is None:
                return False
            try:
                return rescue(self.root, run_id)
            finally:
                claim.drop()
