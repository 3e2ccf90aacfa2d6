"""The paper's tables beside the bench's: titles and rows as text, and nothing of how they are drawn."""

from dataclasses import dataclass
from statistics import median
from typing import Any

import pandas as pd

from lora_lab.budget.paper import table_5, table_6, table_7
from lora_lab.report.records import Evidence, ScoreCell, ScoreTable
from lora_lab.roles import label_of

_TABLES_OF = {"targets": ("table_5",), "ranks": ("table_6",), "amplification": ("table_7", "factors")}  # of a finding, by keys
_THEIR_SCORES = ("WikiSQL, %", "MultiNLI, %")


@dataclass(frozen=True, slots=True)
class Table:
    """A title, what its columns are, and its rows; an empty text where nothing was measured."""

    key: str
    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def to_json(self) -> dict[str, Any]:
        """Rows by column."""
        return {"key": self.key, "title": self.title, "rows": [dict(zip(self.head, row, strict=True)) for row in self.rows]}

    def frame(self) -> pd.DataFrame:
        """As pandas shows it, its first column as the index."""
        return pd.DataFrame(self.rows, columns=self.head).set_index(self.head[0])


def tables(evidence: Evidence) -> tuple[Table, ...]:
    """Table 5, where it was run, Table 6 and Table 7, each with the paper's own numbers beside ours."""
    found = [targets_table(evidence.targets, evidence.bench)] if evidence.targets else []
    return (*found, ranks_table(evidence.ranks, evidence.bench), _table_7(evidence), _table_7_everywhere(evidence))


def tables_of(key: str, evidence: Evidence) -> tuple[Table, ...]:
    """Those that belong to a finding."""
    by_key = {table.key: table for table in tables(evidence)}
    return tuple(by_key[one] for one in _TABLES_OF.get(key, ()) if one in by_key)


def targets_table(table: ScoreTable, bench: str) -> Table:
    """A row a choice of targets, the paper's own accuracies beside it."""
    paper = {",".join(row.targets): row for row in table_5()}
    head = ("matrices", "r here", f"{bench}: {table.metric.heading}", "r in the paper", *_THEIR_SCORES)
    rows = []
    for cell in table.cells:
        row = paper.get(cell.targets)
        theirs = (str(row.r), _percent(row.wikisql), _percent(row.multinli)) if row else ("", "", "")
        rows.append((cell.targets.replace(",", ", "), str(cell.r), _score(table, cell), *theirs))
    return Table("table_5", "Table 5: which matrices, at one budget", head, tuple(rows))


def ranks_table(table: ScoreTable, bench: str) -> Table:
    """A row a choice of targets and rank, the paper's own accuracies beside it."""
    paper = {(",".join(row.targets), row.r): row for row in table_6()}
    head = ("matrices", "r", f"{bench}: {table.metric.heading}", *_THEIR_SCORES)
    rows = []
    for cell in table.cells:
        row = paper.get((cell.targets, cell.r))
        theirs = (_percent(row.wikisql), _percent(row.multinli)) if row else ("", "")
        rows.append((cell.targets.replace(",", ", "), str(cell.r), _score(table, cell), *theirs))
    return Table("table_6", "Table 6: how much rank", head, tuple(rows))


def _table_7(evidence: Evidence) -> Table:
    """One matrix of the middle layer, as the paper has one; the paper's two columns below."""
    head = ("matrix", "r", "on ΔW's directions", "on W's own", "on random ones", "‖ΔW‖_F", "‖W‖_F", "factor")
    rows: list[tuple[str, ...]] = []
    for r, by_name in evidence.amplifications.items():
        name = middle_query(evidence)
        one = by_name.get(name)
        if one is not None:
            spread = "" if one.on_random_sd is None else f" ± {one.on_random_sd:.2g}"
            random = "" if one.on_random is None else f"{one.on_random:.3g}{spread}"
            cells = (_number(one.on_delta), _number(one.on_base), random, _number(one.frobenius), _number(one.base_frobenius))
            rows.append((label_of(name), str(r), *cells, _number(one.factor)))
    for theirs in table_7():
        numbers = (theirs.on_delta, theirs.on_base, theirs.on_random, theirs.frobenius, theirs.base_frobenius, theirs.factor)
        rows.append((f"the paper: {theirs.matrix}", str(theirs.r), *map(_number, numbers)))
    return Table("table_7", "Table 7: ‖UᵀWVᵀ‖_F", head, tuple(rows))


def _table_7_everywhere(evidence: Evidence) -> Table:
    head = ("matrix", *(f"factor, r = {r}" for r in evidence.amplifications))
    rows = [(label_of(name), *(_factor(evidence, r, name) for r in evidence.amplifications)) for name in evidence.matrices]
    known = {
        r: [one.factor for one in by_name.values() if one.factor is not None] for r, by_name in evidence.amplifications.items()
    }
    rows.append(("median", *(_number(median(factors)) if factors else "" for factors in known.values())))
    return Table("factors", "The amplification factor of every matrix", head, tuple(rows))


def _factor(evidence: Evidence, r: int, name: str) -> str:
    one = evidence.amplifications[r].get(name)
    return _number(one.factor if one else None)


def middle_query(evidence: Evidence) -> str:
    """The q of the middle layer, as the paper takes layer 48 of 96; nothing where there is none."""
    queries = [name for name in evidence.matrices if label_of(name).endswith("q")] or list(evidence.matrices)
    return queries[len(queries) // 2] if queries else ""


def middle_pair(evidence: Evidence) -> tuple[str, ...]:
    """That q, and the v beside it."""
    query = middle_query(evidence)
    beside = label_of(query).removesuffix("q") + "v"
    return tuple(name for name in evidence.matrices if name == query or label_of(name) == beside)


def _score(table: ScoreTable, cell: ScoreCell) -> str:
    return "" if cell.mean is None else f"{table.metric.cell(cell.mean, cell.sd)} ({len(cell.scores)})"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
