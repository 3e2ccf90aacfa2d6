"""SELECT statements as values: written out as SQL, and the mistakes that are near them."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from lora_lab.benches.examples import Cell, Table

AGGREGATES = ("MAX", "MIN", "AVG", "SUM")
_FLIPPED = {">": "<", "<": ">", "=": "<>", "ASC": "DESC", "DESC": "ASC"}
_PLAIN = re.compile(r"[A-Za-z_]+")


@dataclass(frozen=True, slots=True)
class Condition:
    """One comparison of a column with a value: `=`, `>` or `<`."""

    column: str
    operator: str
    value: Cell

    def sql(self) -> str:
        value = f"'{self.value}'" if isinstance(self.value, str) else self.value
        return f"{identifier(self.column)} {self.operator} {value}"


@dataclass(frozen=True, slots=True)
class Query:
    """A column of a table, or an aggregate of it, where all conditions hold; the first in an order, if there is one."""

    table: str
    column: str  # * is every row, for COUNT
    aggregate: str = ""
    conditions: tuple[Condition, ...] = ()
    order: tuple[str, str] | None = None  # (column, ASC or DESC)

    def sql(self) -> str:
        """
        >>> Query("owls", "ring number", "MAX", (Condition("habitat", "=", "marsh"),)).sql()
        'SELECT MAX("ring number") FROM owls WHERE habitat = \\'marsh\\''
        """
        column = identifier(self.column) if self.column != "*" else "*"
        parts = [f"SELECT {self.aggregate}({column})" if self.aggregate else f"SELECT {column}", f"FROM {identifier(self.table)}"]
        if self.conditions:
            parts.append("WHERE " + " AND ".join(condition.sql() for condition in self.conditions))
        if self.order:
            parts.append(f"ORDER BY {identifier(self.order[0])} {self.order[1]} LIMIT 1")
        return " ".join(parts)


def identifier(name: str) -> str:
    """A name as SQL has it, quoted where it is more than one word.

    >>> identifier("habitat"), identifier("ring number")
    ('habitat', '"ring number"')
    """
    return name if _PLAIN.fullmatch(name) else f'"{name}"'


def mistakes(query: Query, table: Table) -> Iterator[Query]:
    """Queries one slip away: a condition left out, a comparison or an order turned round, another aggregate, another
    column of the same sort."""
    yield from _with_other_conditions(query)
    yield from (_renamed(query, names) for names in _swaps(query, table))
    if query.aggregate in AGGREGATES:
        yield from (replace(query, aggregate=other) for other in AGGREGATES if other != query.aggregate)
    if query.order:
        yield replace(query, order=(query.order[0], _FLIPPED[query.order[1]]))
        yield replace(query, order=None)


def _with_other_conditions(query: Query) -> Iterator[Query]:
    for i, condition in enumerate(query.conditions):
        before, after = query.conditions[:i], query.conditions[i + 1 :]
        yield replace(query, conditions=before + after)
        turned = replace(condition, operator=_FLIPPED[condition.operator])
        yield replace(query, conditions=(*before, turned, *after))


def _swaps(query: Query, table: Table) -> Iterator[Mapping[str, str]]:
    """Each column that the query names, taken for each other one that is text too, or a number too."""
    is_text = dict(zip(table.columns, (kind == "TEXT" for kind in table.types), strict=True))
    used = {query.column, *(c.column for c in query.conditions), *(query.order or ())[:1]}
    for name in table.columns:
        for other in table.columns:
            if name in used and other != name and is_text[other] == is_text[name]:
                yield {name: other}


def _renamed(query: Query, names: Mapping[str, str]) -> Query:
    conditions = tuple(replace(c, column=names.get(c.column, c.column)) for c in query.conditions)
    order = (names.get(query.order[0], query.order[0]), query.order[1]) if query.order else None
    return replace(query, column=names.get(query.column, query.column), conditions=conditions, order=order)
