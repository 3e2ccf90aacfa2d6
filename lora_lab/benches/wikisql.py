"""A row of WikiSQL as a schema with a question, and the query that answers it, for SQLite.

As the dataset's own evaluation does, texts are compared in lower case, in the table and in the query alike, and what a query asks
of a column of numbers is read as a number.

Source: Zhong et al. 2017 (arXiv 1709.00103); github.com/salesforce/WikiSQL, lib/query.py and lib/dbengine.py, for what the
numbers of `agg` and of a condition's operator mean.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from lora_lab.benches.examples import Cell, Completion, Table

TABLE_NAME = "table"
AGGREGATES = ("", "MAX", "MIN", "COUNT", "SUM", "AVG")
OPERATORS = ("=", ">", "<")
_TYPES = {"real": "REAL", "text": "TEXT"}
_NUMBER = re.compile(r"[-+]?(?:\d[\d,]*(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?")


def wikisql_rows(rows: Iterable[dict[str, Any]], columns: Mapping[str, str]) -> Iterator[Completion]:
    """Every question with its query; questions of one table share the table."""
    tables: dict[str, Table] = {}
    for row in rows:
        said = row[columns["table"]]
        table = tables.get(said["id"]) or tables.setdefault(said["id"], _table(said))
        prompt = f"{schema_text(table)}\n-- {row[columns['question']]}\n"
        yield Completion(prompt, _query(table, row[columns["sql"]]), table=table)


def schema_text(table: Table) -> str:
    """The table as SQL would make it.

    >>> schema_text(Table("table", ("Player", "Goals"), ("TEXT", "REAL"), ()))
    'CREATE TABLE "table" ("Player" TEXT, "Goals" REAL)'
    """
    columns = ", ".join(f"{_quoted(name)} {kind}" for name, kind in zip(table.columns, table.types, strict=True))
    return f"CREATE TABLE {_quoted(table.name)} ({columns})"


def _table(said: Mapping[str, Any]) -> Table:
    types = tuple(_TYPES.get(kind, "TEXT") for kind in said["types"])
    rows = tuple(tuple(_cell(text, kind) for text, kind in zip(row, types, strict=True)) for row in said["rows"])
    return Table(TABLE_NAME, _distinct(said["header"]), types, rows)


def _distinct(header: Sequence[str]) -> tuple[str, ...]:
    """The column names, numbered where a table has one twice or leaves it empty: SQLite takes neither."""
    names: dict[str, str] = {}  # by lower case, which SQLite does not tell apart
    for given in header:
        stem = name = given.strip() or "column"
        number = 2
        while name.lower() in names:
            name, number = f"{stem} {number}", number + 1
        names[name.lower()] = name
    return tuple(names.values())


def _cell(text: str, kind: str) -> Cell:
    number = _number(text) if kind == "REAL" else None
    return text.lower() if number is None else number


def _number(text: str) -> float | None:
    found = _NUMBER.fullmatch(text.strip().lower())
    return float(found[0].replace(",", "")) if found else None


def _query(table: Table, said: Mapping[str, Any]) -> str:
    asked = _quoted(table.columns[said["sel"]])
    aggregate = AGGREGATES[said["agg"]]
    query = f"SELECT {f'{aggregate}({asked})' if aggregate else asked} FROM {_quoted(table.name)}"
    conds = said["conds"]  # a struct of lists: the i-th of each is the i-th condition
    terms = [
        f"{_quoted(table.columns[column])} {OPERATORS[operator]} {_literal(value, table.types[column])}"
        for column, operator, value in zip(conds["column_index"], conds["operator_index"], conds["condition"], strict=True)
    ]
    return f"{query} WHERE {' AND '.join(terms)}" if terms else query


def _literal(text: str, kind: str) -> str:
    """A number for a column of numbers, the first in the text if there is more; else the text in lower case."""
    lower = text.lower()
    number = None
    if kind == "REAL":
        first = _NUMBER.search(lower)
        number = _number(lower) if first is None else _number(first[0])
    if number is None:
        return "'" + lower.replace("'", "''") + "'"
    return str(int(number)) if number.is_integer() else repr(number)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
