"""Training from Python: one call, one run or one grid, kept in a store."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from lora_lab.benches import Bench, find_bench
from lora_lab.errors import TrainingError
from lora_lab.events import DoneEvent, Event
from lora_lab.specs import DataSpec, MethodSpec, RunSpec
from lora_lab.sweep_spec import SweepSpec
from lora_lab.sweeps.grid import expand
from lora_lab.sweeps.groups import Grouped
from lora_lab.sweeps.results import results_table
from lora_lab.sweeps.run import Run
from lora_lab.sweeps.runners import check_runner, sweep_events
from lora_lab.sweeps.store import RunStore
from lora_lab.training import plan_run

if TYPE_CHECKING:
    import pandas as pd
    import peft

Watch = Callable[[RunSpec, Event], None]


@dataclass(frozen=True)
class Sweep(Sequence[Run]):
    """The runs of a grid in the grid's order, those included that the store had already (`skipped`).

    `failed` holds a sentence for every run that did not come about.
    """

    runs: tuple[Run, ...]
    skipped: tuple[str, ...]
    failed: dict[str, str]
    wall_s: float

    @overload
    def __getitem__(self, index: int) -> Run: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Run, ...]: ...
    def __getitem__(self, index: int | slice) -> Run | tuple[Run, ...]:
        return self.runs[index]

    def __len__(self) -> int:
        return len(self.runs)

    def __iter__(self) -> Iterator[Run]:
        return iter(self.runs)

    def table(self) -> "pd.DataFrame":
        """The runs as a pandas table: see `results_table`."""
        return results_table(self.runs)


def train(
    bench: str,
    tuning: "MethodSpec | peft.LoraConfig | str" = "lora",
    *,
    data: DataSpec | None = None,
    runs: str | Path = "runs",
    device: str | None = None,
    watch: Watch = lambda spec, event: None,
    **settings: Any,
) -> Run:
    """Train one run in this process, or take it from the store.

    Args:
        bench: a bench of the lab, or a folder or Hub id with `data`.
        tuning: what to attach: a MethodSpec (LoraSpec writes one), a `peft.LoraConfig`, or a method's name with its defaults.
        data: the user's own CSV or JSONL.
        runs: the store's folder.
        device: `cuda`, `mps` or `cpu`; the best there is if None.
        watch: called with every event.
        settings: fields of RunSpec such as steps, learning_rate, seed.

    Raises:
        LabError: whatever the user can mend, in one sentence.
    """
    tuning = MethodSpec(method=tuning) if isinstance(tuning, str) else tuning
    spec = plan_run(find_bench(bench, data), tuning, **settings)
    sweep = run_specs([spec], runs, runner="inline", device=device, watch=watch)
    if not sweep.runs:
        raise TrainingError(sweep.failed[spec.run_id])
    return sweep[0]


def sweep(
    bench: str,
    grid: SweepSpec,
    *,
    data: DataSpec | None = None,
    runs: str | Path = "runs",
    runner: str = "process",
    device: str | None = None,
    grouped: Grouped = "auto",
    address: str | None = None,
    watch: Watch = lambda spec, event: None,
) -> Sweep:
    """Train every run of a grid that the store does not have; arguments as for `train` and `sweep_events`."""
    found: Bench = find_bench(bench, data)
    return run_specs(expand(found, grid), runs, runner=runner, device=device, grouped=grouped, address=address, watch=watch)


def run_specs(
    specs: Sequence[RunSpec],
    runs: str | Path,
    *,
    runner: str,
    device: str | None,
    grouped: Grouped = "auto",
    address: str | None = None,
    watch: Watch = lambda spec, event: None,
) -> Sweep:
    """Train planned runs to their end and gather them."""
    check_runner(runner, device, address)
    began_s, store = time.perf_counter(), RunStore(runs)
    by_id = {spec.run_id: spec for spec in specs}
    complete = store.complete_ids()
    skipped = tuple(run_id for run_id in by_id if run_id in complete)
    failed = {}
    events = sweep_events(specs, store, runner=runner, device=device, grouped=grouped, address=address)
    with closing(events):  # whatever `watch` raises, no run stays claimed
        for run_id, event in events:
            watch(by_id[run_id], event)
            if isinstance(event, DoneEvent) and event.status == "failed":
                failed[run_id] = event.message
    return Sweep(tuple(store.find(by_id)), skipped, failed, time.perf_counter() - began_s)
