"""The paper's section 7 on a bench of one's own: which runs it takes, what they show, whether that agrees, and one page of it."""

from importlib import import_module
from typing import Any

_HOME = {
    "Evidence": "records",
    "Finding": "verdicts",
    "Recorded": "recordings",
    "Reproduction": "reproduction",
    "ReproductionPlan": "plan",
    "figures_of": "figures",
    "findings": "verdicts",
    "gather": "evidence",
    "plan_reproduction": "plan",
    "ranks_finding": "verdicts",
    "ranks_table": "tables",
    "recorded": "recordings",
    "recorded_names": "recordings",
    "report_html": "page",
    "reproduce": "reproduction",
    "score_table": "evidence",
    "targets_finding": "verdicts",
    "targets_table": "tables",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"lora_lab.report.{_HOME[name]}"), name)
    raise AttributeError(f"module 'lora_lab.report' has no attribute {name!r}")
