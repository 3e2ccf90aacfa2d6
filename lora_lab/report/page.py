"""One standalone page: each finding with its verdict, its figures and tables, and where the numbers come from."""

from collections.abc import Iterable
from html import escape
from pathlib import Path

import plotly.graph_objects as go

from lora_lab.report.figures import figures_of
from lora_lab.report.provenance import Provenance
from lora_lab.report.records import Evidence
from lora_lab.report.tables import Table, tables_of
from lora_lab.report.verdicts import Finding
from lora_lab.units import seconds

_COLOURS = {"agrees": "#12855a", "agrees in part": "#a36a00", "does not agree": "#c9384a", "cannot be told": "#6a6f7a"}
_STYLE = Path(__file__).with_name("style.css")


def report_html(evidence: Evidence, found: Iterable[Finding], source: Provenance) -> str:
    """The page as one text; plotly's script is in it, and nothing is fetched."""
    found = list(found)
    sections = "".join(_section(finding, evidence) for finding in found)
    script = go.Figure().to_html(full_html=False, include_plotlyjs=True).split("</script>")[1]  # after the one that sets MathJax up
    title = f"Section 7 of the LoRA paper on {escape(evidence.bench)}"
    style = _STYLE.read_text(encoding="utf-8")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{style}</style>{script}</script>'
        f"</head><body><main><h1>{title}</h1>{_intro(evidence, source)}{_summary(found)}{sections}{_provenance(source)}</main>"
        "</body></html>\n"
    )


def _intro(evidence: Evidence, source: Provenance) -> str:
    note = f" {escape(source.base_note)}" if source.base_note else ""
    seeds = ", ".join(map(str, evidence.seeds))
    return (
        f'<p class="soft">Hu et al. 2021, arXiv 2106.09685. {source.runs} runs, seeds {seeds}; scores are of the test split,'
        " mean ± sd (seeds). A difference is told by Welch's t over all pairs of a table (Holm, 5 %); an overlap is above chance"
        f" where it is four standard deviations of random subspaces above their mean.{note}</p>"
    )


def _summary(found: Iterable[Finding]) -> str:
    rows = "".join(f"<tr><td>{escape(f.source)}</td><td>{escape(f.claim)}</td><td>{_verdict(f)}</td></tr>" for f in found)
    wrapped = rows.replace("<td>", '<td style="text-align:left;white-space:normal">')
    return f"<section><h2>Does it agree?</h2><table>{wrapped}</table></section>"


def _verdict(finding: Finding) -> str:
    return f'<span class="verdict" style="background:{_COLOURS[finding.verdict]}">{finding.verdict}</span>'


def _section(finding: Finding, evidence: Evidence) -> str:
    drawn = "".join(f"<h3>{escape(title)}</h3>{_drawn(fig)}" for title, fig in figures_of(finding.key, evidence).items())
    shown = "".join(_table(one) for one in tables_of(finding.key, evidence))
    claim = f'<div class="soft">{escape(finding.source)}: {escape(finding.claim)}</div>'
    head = f"<h2>{escape(finding.title)}{_verdict(finding)}</h2>{claim}"
    return f'<section id="{finding.key}">{head}<div class="say">{escape(finding.paragraph)}</div>{shown}{drawn}</section>'


def _drawn(fig: go.Figure) -> str:
    return str(fig.to_html(full_html=False, include_plotlyjs=False, config={"displaylogo": False, "responsive": True}))


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(title)}</th>" for title in table.head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
    return f'<h3>{escape(table.title)}</h3><table id="{table.key}"><tr>{head}</tr>{body}</table>'


def _provenance(source: Provenance) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in source.versions.items())
    trained = f"{source.trained} runs were trained for it in {seconds(source.trained_s)}; the others were in the store."
    return (
        f'<section id="provenance"><h2>Where the numbers come from</h2><p class="soft">{escape(source.command)}<br>{source.date},'
        f" {escape(source.device)}. {trained}<br>{escape(versions)}</p></section>"
    )
