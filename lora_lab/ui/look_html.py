"""What is known of a run, and the numbers of a plot."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from lora_lab.plots import method_label
from lora_lab.plots.html_parts import folded, table
from lora_lab.plots.look_tables import short
from lora_lab.specs import METHODS
from lora_lab.sweeps import Run
from lora_lab.sweeps.subjects import Subject
from lora_lab.units import count

_MOST_ROWS = 300  # of a folded table; the file has all


def rows_table(name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """The numbers of a plot, folded."""
    if not rows:
        return ""
    titles = list(dict.fromkeys(title for row in rows for title in row))
    texts = [[short(row.get(title)) for title in titles] for row in rows[:_MOST_ROWS]]
    rest = f'<div class="lab-s">{len(rows):,} rows; the CSV file has them all.</div>' if len(rows) > _MOST_ROWS else ""
    return folded("the numbers", f'<div class="lab-scroll">{table(name, titles, texts)}</div>{rest}')


def facts(subject: Subject) -> str:
    """What is known of a run or of an opened adapter."""
    return _run_facts(subject.run) if subject.run else _file_facts(subject)


def _run_facts(run: Run) -> str:
    m, lora = run.metrics, run.spec.tuning
    score, base = (_score(run, run.score(base=base)) for base in (False, True))
    meaning = METHODS[lora.method].r_is
    said = (
        escape(run.spec.bench),
        f"<b>{escape(method_label(run.spec))}</b>",
        *([f"{'r' if meaning == 'rank' else meaning} <b>{lora.r}</b>"] if meaning else []),
        *([f"α <b>{lora.lora_alpha:g}</b>"] if lora.has_alpha else []),
        *([escape(run.spec.optimizer)] if run.spec.optimizer != "AdamW" else []),
        f"seed <b>{run.spec.seed}</b>",
        f"{m['step']} of {run.spec.steps} steps, {escape(m['status'])}",
        f"{escape(run.metric.label)} <b>{escape(score)}</b>, frozen base {escape(base)}",
        f"<b>{count(m['trainable_params'])}</b> trained",
    )
    note = f'<div class="lab-s">{escape(m["base_note"])}</div>' if m.get("base_note") else ""
    return _facts(said) + note


def _file_facts(subject: Subject) -> str:
    adapter = subject.adapter
    kind = str(adapter.config.get("peft_type") or adapter.config.get("method") or adapter.format)
    ranks = sorted({delta.r for delta in adapter.values()})
    r = f"r <b>{ranks[0]}{f'–{ranks[-1]}' if len(ranks) > 1 else ''}</b>" if ranks else ""
    said = (f"<b>{escape(kind)}</b>", *([r] if r else []), f"<b>{len(adapter)}</b> matrices", escape(adapter.scaling_source))
    base = f'<div class="lab-s">made for {escape(subject.base_name)}</div>' if subject.base_name else ""
    return _facts((f"opened from {escape(subject.name)}", *said)) + base


def _facts(said: Iterable[str]) -> str:
    return f'<div class="lab-counts">{"".join(f"<span>{part}</span>" for part in said)}</div>'


def _score(run: Run, score: float | None) -> str:
    return "not measured" if score is None else run.metric.text(score)
