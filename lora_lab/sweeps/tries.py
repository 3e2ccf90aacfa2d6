"""Runs whose worker died: tried again, first together and then alone, until it is enough."""

from collections import Counter
from collections.abc import Collection

from lora_lab.specs import RunSpec
from lora_lab.sweeps.groups import Group

MOST_TRIES = 3  # of a run whose worker dies: with its group, then alone


class Tries:
    """How often the worker that had a run in hand has died."""

    def __init__(self) -> None:
        self._deaths: Counter[str] = Counter()

    def again(self, group: Group, ended: Collection[str]) -> tuple[list[Group], list[RunSpec]]:
        """What to do after a worker died.

        Args:
            group: that it had in hand.
            ended: runs of it that had ended.

        Returns:
            The groups to try again, in their order, and the runs for which it was the last time.
        """
        left = [spec for spec in group.specs if spec.run_id not in ended]
        self._deaths.update(spec.run_id for spec in left)
        again = [spec for spec in left if self._deaths[spec.run_id] < MOST_TRIES]
        together = all(self._deaths[spec.run_id] == 1 for spec in again)
        parts = [tuple(again)] if together else [(spec,) for spec in again]
        groups = [Group(part, group.threads, group.workers) for part in parts if part]
        return groups, [spec for spec in left if spec not in again]
