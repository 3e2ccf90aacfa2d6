"""Queries that a model wrote, run on a table in memory: they may read it, for a while, and do nothing else."""

import math
import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from statistics import fmean

from lora_lab.benches.examples import Cell, Completion, Table
from lora_lab.errors import DataError

Answer = list[tuple[Cell | bytes, ...]]

MAX_STEPS = 100_000  # instructions of SQLite's virtual machine; a question about 1,000 rows takes about 10,000
MAX_ROWS = 1_000
_MAX_BYTES = 10_000  # of one string or blob, so that no query fills the memory within its steps
_TOLERANCE = 1e-6  # relative; sums in another order differ in the last bits
_READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION}
_FIRST_QUERY = re.compile(r"""(?:'[^'\n]*'|"[^"\n]*"|[^;\n])*""")


@dataclass(frozen=True, slots=True)
class Ran:
    """A query as it was run: the rows that it found, None where it is none that may be run; and whether they are the right ones."""

    query: str
    rows: tuple[tuple[Cell | bytes, ...], ...] | None
    is_right: bool


@contextmanager
def opened(table: Table, *, max_steps: int = MAX_STEPS) -> Iterator[Callable[[str], Answer | None]]:
    """A function that runs queries on the table, as `execute` does, without building the database again for each.

    Raises:
        DataError: SQLite cannot hold such a table.
    """
    # No cache: a statement run again would go on counting the steps of its first time.
    with closing(sqlite3.connect(":memory:", cached_statements=0)) as connection:
        _fill(connection, table)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_BYTES)
        connection.set_authorizer(_may)
        connection.set_progress_handler(lambda: 1, max_steps)  # called once so many steps are taken, and 1 ends the query
        yield lambda query: _answer(connection, query)


def execute(table: Table, query: str, *, max_steps: int = MAX_STEPS) -> Answer | None:
    """The rows that one SELECT finds in the table.

    Names are matched as SQLite matches them: in any case, quoted where they hold spaces. Many builds of SQLite take a
    name in double quotes that is no column for a string.

    Args:
        max_steps: how many instructions of SQLite's virtual machine the query may take.

    Returns:
        None where the query is not valid, is not one statement, does anything but read, recurses, takes more than
        `max_steps`, or finds more than 1,000 rows.

    Raises:
        DataError: SQLite cannot hold such a table.

    >>> birds = Table("birds", ("species", "clutch size"), ("TEXT", "INTEGER"), (("wren", 6), ("heron", 4)))
    >>> execute(birds, 'SELECT species FROM birds WHERE "clutch size" > 5')
    [('wren',)]
    >>> execute(birds, "DROP TABLE birds") is None
    True
    """
    with opened(table, max_steps=max_steps) as run:
        return run(query)


def same_answer(found: Answer | None, expected: Answer | None) -> bool:
    """Whether two answers hold the same rows, as often, in any order.

    Numbers are the same within one part in a million, 3 and 3.0 among them; text must be equal to the letter, and is
    never a number. None, a query that did not run, is the same as nothing, itself included.

    >>> same_answer([("wren", 2), ("heron", 1)], [("heron", 1.0), ("wren", 2.0)])
    True
    """
    if found is None or expected is None or len(found) != len(expected):
        return False
    left = list(expected)
    for row in found:
        match = next((i for i, other in enumerate(left) if _same_row(row, other)), None)
        if match is None:
            return False
        left.pop(match)
    return True


def first_query(generated: str) -> str:
    """What a model wrote up to the first line break or semicolon that stands outside quotes: it may go on after its answer.

    >>> first_query(" SELECT a FROM t WHERE b = 'x;y'; SELECT 2")
    "SELECT a FROM t WHERE b = 'x;y'"
    """
    match = _FIRST_QUERY.match(generated.lstrip())
    return match[0].rstrip() if match else ""


def check_query(generated: str, example: Completion) -> Ran:
    """Run what a model wrote, cut to its first query, on the example's table, and its answer against the right one.

    Raises:
        DataError: the example has no table, or one that SQLite cannot hold.
    """
    if example.table is None:
        raise DataError(f"An example whose queries are run must have a table. This one has none: {example.prompt!r}.")
    query = first_query(generated)
    with opened(example.table) as run:
        rows, right = run(query), run(example.completion)
    return Ran(query, None if rows is None else tuple(rows), same_answer(rows, right))


def execution_accuracy(queries: Sequence[str], examples: Sequence[Completion]) -> float:
    """The share of generated queries, each cut to its first, whose answer is that of the example's own query.

    Raises:
        DataError: there is nothing to score, a query too many or too few, or an example without a table.
    """
    if not examples or len(queries) != len(examples):
        raise DataError(f"Queries and examples must be as many, and at least one. Got {len(queries)} and {len(examples)}.")
    return fmean(check_query(query, example).is_right for query, example in zip(queries, examples, strict=True))


def _fill(connection: sqlite3.Connection, table: Table) -> None:
    """The table as SQLite has it; names and types quoted, since they may hold anything."""
    pairs = zip(table.columns, table.types, strict=True)
    columns = ", ".join(f"{_quoted(name)} {_quoted(kind)}" for name, kind in pairs)
    marks = ", ".join("?" * len(table.columns))
    try:
        connection.execute(f"CREATE TABLE {_quoted(table.name)} ({columns})")
        connection.executemany(f"INSERT INTO {_quoted(table.name)} VALUES ({marks})", table.rows)
        connection.commit()
    except sqlite3.Error as err:
        raise DataError(f"The table {table.name!r} must be one that SQLite can hold. It says: {err}.") from err


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _may(action: int, *_: str | None) -> int:
    return sqlite3.SQLITE_OK if action in _READING else sqlite3.SQLITE_DENY


def _answer(connection: sqlite3.Connection, query: str) -> Answer | None:
    try:
        cursor = connection.execute(query)
        rows: Answer = cursor.fetchmany(MAX_ROWS + 1)
    except (sqlite3.Error, sqlite3.Warning, ValueError):  # ValueError: a null character or half a surrogate pair
        return None
    is_select = cursor.description is not None  # a comment runs too, and finds no columns
    return rows if is_select and len(rows) <= MAX_ROWS else None


def _same_row(row: tuple[Cell | bytes, ...], other: tuple[Cell | bytes, ...]) -> bool:
    return len(row) == len(other) and all(map(_same_cell, row, other))


def _same_cell(cell: Cell | bytes, other: Cell | bytes) -> bool:
    if isinstance(cell, int | float) and isinstance(other, int | float):
        return math.isclose(cell, other, rel_tol=_TOLERANCE)
    return cell == other
