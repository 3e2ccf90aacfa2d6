"""The whole of it: train what is missing, look at it, write the page."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lora_lab.benches import find_bench
from lora_lab.errors import SpecError, out_of_range
from lora_lab.events import DoneEvent, Event
from lora_lab.report.evidence import gather
from lora_lab.report.page import report_html
from lora_lab.report.plan import plan_reproduction
from lora_lab.report.provenance import Provenance, provenance
from lora_lab.report.records import Evidence
from lora_lab.report.tables import tables
from lora_lab.report.verdicts import Finding, findings
from lora_lab.specs import RunSpec
from lora_lab.sweeps.api import run_specs
from lora_lab.sweeps.method_export import write_text
from lora_lab.sweeps.run import Run
from lora_lab.training import pick_device

Notify = Callable[[str], None]


@dataclass(frozen=True)
class Reproduction:
    """A report and what it rests on; `failed` holds a sentence for every run that did not come about."""

    report: Path
    evidence: Evidence
    findings: tuple[Finding, ...]
    source: Provenance
    failed: dict[str, str]
    runs: tuple[Run, ...]

    def to_json(self) -> dict[str, Any]:
        """Findings and tables, and where they come from."""
        found = {"findings": [asdict(one) for one in self.findings], "tables": [t.to_json() for t in tables(self.evidence)]}
        return {"report": str(self.report), **found, "provenance": self.source.to_json(), "failed": self.failed}


def reproduce(
    bench: str,
    *,
    out: Path,
    runs: str | Path = "runs",
    seeds: tuple[int, ...] | None = None,
    steps: int | None = None,
    device: str | None = None,
    notify: Notify = lambda _: None,
) -> Reproduction:
    """Train the runs of the five analyses that the store lacks, and write one standalone page of what they show.

    Stopped anywhere, it goes on where it was when it is called again.

    Args:
        bench: of the lab.
        out: the page.
        runs: the store's folder.
        seeds: at least two; the bench's own where None.
        steps: of a run; the bench's own where None.
        device: as for `train_events`.
        notify: told how far it is.

    Raises:
        SpecError: fewer than two seeds, or a bench that is not there.
    """
    if seeds is not None and len(set(seeds)) < 2:
        raise SpecError(out_of_range("seeds", "reproduce", "at least two, as their spread is what tells", seeds))
    found = find_bench(bench)
    found.prepare(notify=notify)
    plan = plan_reproduction(found, seeds=seeds, steps=steps)
    done = [0]

    def watch(spec: RunSpec, event: Event) -> None:
        if isinstance(event, DoneEvent):
            done[0] += 1
            notify(f"run {done[0]} of {len(plan.specs)} {event.status}: r = {spec.tuning.r}, {', '.join(spec.tuning.targets)}")

    sweep = run_specs(plan.specs, runs, runner="process", device=device, watch=watch)
    evidence = gather(plan, sweep.runs)
    verdicts = findings(evidence)
    source = provenance(
        _command(bench, seeds, steps, device),
        device=str(pick_device(device)),
        runs=len(sweep.runs),
        trained=len(sweep.runs) - len(sweep.skipped),
        trained_s=sweep.wall_s,
        base_note=found.note(),
    )
    write_text(out, report_html(evidence, verdicts, source))
    return Reproduction(out, evidence, verdicts, source, sweep.failed, sweep.runs)


def _command(bench: str, seeds: tuple[int, ...] | None, steps: int | None, device: str | None) -> str:
    """What somebody else types for the same numbers."""
    given = {"seeds": ",".join(map(str, seeds)) if seeds else None, "steps": steps, "device": device}
    flags = [f" --{name} {value}" for name, value in given.items() if value is not None]
    return f"python -m lora_lab reproduce --bench {bench}{''.join(flags)}"
