"""Queries on a table in memory: what they may do, when two answers are one, and how a generated text is scored."""

import time
from pathlib import Path

import pytest

from lora_lab.benches.examples import Completion, Table
from lora_lab.benches.sqlite import MAX_ROWS, execute, execution_accuracy, first_query, opened, same_answer
from lora_lab.errors import DataError

FLEET = Table(
    'the "old" fleet',
    ("name", "Crew, paid", "tonnage", "order"),
    ("TEXT", "INTEGER", "REAL", "TEXT"),
    (("Ada", 7, 12.5, "x"), ("Bo", 3, 9.0, "y"), ("O'Neil", 5, 30.25, None)),
)
T = Table("t", ("a", "b"), ("INTEGER", "TEXT"), tuple((i, f"row {i}") for i in range(8)))
HOSTILE = {
    "drop": "DROP TABLE t",
    "delete": "DELETE FROM t",
    "insert": "INSERT INTO t VALUES (9, 'z')",
    "update": "UPDATE t SET a = 0",
    "create": "CREATE TABLE u AS SELECT * FROM t",
    "attach": "ATTACH DATABASE '{folder}/other.db' AS other",
    "vacuum into": "VACUUM INTO '{folder}/copy.db'",
    "pragma": "PRAGMA user_version",
    "pragma as a table": "SELECT * FROM pragma_database_list",
    "transaction": "BEGIN",
    "load_extension": "SELECT load_extension('{folder}/evil')",
    "file": "SELECT readfile('/etc/hostname')",
    "recursive": "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT COUNT(*) FROM c",
    "recursive with rows": "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c",
    "cross join": "SELECT COUNT(*) FROM " + ", ".join(f"t AS t{i}" for i in range(12)),
    "sorted cross join": "SELECT t1.a FROM " + ", ".join(f"t AS t{i}" for i in range(12)) + " ORDER BY t3.b DESC",
    "long string": "SELECT replace(hex(zeroblob(4000)), '0', 'aaaaaaaaaa') FROM t",
    "long blob": "SELECT hex(zeroblob(900000000))",
    "two statements": "SELECT a FROM t; SELECT b FROM t",
    "a statement behind": "SELECT a FROM t; DROP TABLE t",
    "no such table": "SELECT a FROM u",
    "no such column": "SELECT c FROM t",
    "words": "The answer is 3.",
    "nothing": "",
    "a comment": "-- SELECT a FROM t",
    "a parameter": "SELECT a FROM t WHERE a = ?",
    "a null character": "SELECT a\0 FROM t",
    "half a pair": "SELECT '\ud800' FROM t",
    "deep": "SELECT " + "(" * 5000 + "1" + ")" * 5000,
    "not text": "SELECT CAST(x'ff' AS TEXT)",
}


@pytest.mark.parametrize("query", HOSTILE.values(), ids=HOSTILE)
def test_what_is_no_single_short_select_finds_nothing_and_does_nothing(query: str, tmp_path: Path) -> None:
    begun = time.perf_counter()
    with opened(T) as run:
        assert run(query.format(folder=tmp_path)) is None
        assert run("SELECT COUNT(*), SUM(a) FROM t") == [(8, 28)]
    assert time.perf_counter() - begun < 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        ('SELECT name FROM "the ""old"" fleet" WHERE "Crew, paid" > 4', [("Ada",), ("O'Neil",)]),
        ('SELECT SUM("Crew, paid"), MAX(tonnage) FROM "the ""old"" fleet"', [(15, 30.25)]),
        ('SELECT "order" FROM "the ""old"" fleet" WHERE NAME = \'O\'\'Neil\'', [(None,)]),
        ('SELECT name FROM "the ""old"" fleet" ORDER BY tonnage LIMIT 1;', [("Bo",)]),
        ('SELECT name FROM "the ""old"" fleet" WHERE tonnage > 99', []),
        ('WITH big AS (SELECT * FROM "the ""old"" fleet" WHERE tonnage > 10) SELECT COUNT(*) FROM big', [(2,)]),
    ],
)
def test_a_select_finds_its_rows(query: str, rows: list[tuple[object, ...]]) -> None:
    assert execute(FLEET, query) == rows


def test_cells_keep_the_types_of_their_columns() -> None:
    ((whole, real),) = execute(FLEET, 'SELECT "Crew, paid", tonnage FROM "the ""old"" fleet" WHERE name = \'Bo\'')
    assert (type(whole), type(real)) == (int, float)


def test_a_query_ends_at_its_last_step_or_row() -> None:
    count = "SELECT COUNT(*) FROM t AS x, t AS y, t AS z"
    assert execute(T, count) == [(512,)]
    assert execute(T, count, max_steps=100) is None
    product = "SELECT x.a FROM t AS x, t AS y, t AS z, t AS w"
    assert len(execute(T, f"{product} LIMIT {MAX_ROWS}")) == MAX_ROWS
    assert execute(T, f"{product} LIMIT {MAX_ROWS + 1}") is None


def test_every_query_has_steps_of_its_own_even_one_run_again() -> None:
    with opened(T, max_steps=2000) as run:
        assert run(HOSTILE["cross join"]) is None
        for _ in range(50):
            assert run("SELECT MAX(a) FROM t") == [(7,)]


@pytest.mark.parametrize(
    "table",
    [
        Table("t", ("a", "A"), ("TEXT", "TEXT"), ()),
        Table("t", ("a",), ("TEXT",), ((1, 2),)),
        Table("sqlite_t", ("a",), ("TEXT",), ()),
    ],
    ids=["a column twice", "a cell too many", "a reserved name"],
)
def test_a_table_that_sqlite_cannot_hold_is_the_datas_fault(table: Table) -> None:
    with pytest.raises(DataError, match=rf"^The table '{table.name}' must be one that SQLite can hold. It says: .+\.$"):
        execute(table, "SELECT 1")


@pytest.mark.parametrize(
    ("found", "expected", "same"),
    [
        ([(3,)], [(3.0,)], True),
        ([(0.1 + 0.2,)], [(0.3,)], True),
        ([(1_000_000.5,)], [(1_000_000,)], True),
        ([(1_000_002,)], [(1_000_000,)], False),
        ([(0,)], [(0.001,)], False),
        ([("3",)], [(3,)], False),
        ([("a",)], [("A",)], False),
        ([(None,)], [(None,)], True),
        ([(None,)], [(0,)], False),
        ([(1, "a"), (2, "b")], [(2, "b"), (1, "a")], True),
        ([(1, "a"), (2, "b")], [(1, "b"), (2, "a")], False),
        ([("a",), ("a",), ("b",)], [("a",), ("b",), ("b",)], False),
        ([("a",), ("a",)], [("a",)], False),
        ([("a", "b")], [("b", "a")], False),
        ([("a",)], [("a", "a")], False),
        ([], [], True),
        ([], [(0,)], False),
        (None, [], False),
        ([], None, False),
        (None, None, False),
        ([(b"a",)], [("a",)], False),
        ([(float("inf"),)], [(float("inf"),)], True),
        ([(2**63 - 1,)], [(2.0**63,)], True),
    ],
)
def test_answers_are_compared_as_bags_of_rows(found: object, expected: object, same: bool) -> None:
    assert same_answer(found, expected) is same


@pytest.mark.parametrize(
    ("generated", "query"),
    [
        (" SELECT a FROM t", "SELECT a FROM t"),
        ("SELECT a FROM t;", "SELECT a FROM t"),
        (" SELECT a FROM t\nQuestion: next?", "SELECT a FROM t"),
        ("\n\n SELECT a FROM t  \nSELECT b", "SELECT a FROM t"),
        ("SELECT a FROM t; DROP TABLE t", "SELECT a FROM t"),
        ("SELECT a FROM t WHERE b = 'x;y' AND \"c;d\" = 1; more", "SELECT a FROM t WHERE b = 'x;y' AND \"c;d\" = 1"),
        ("SELECT a FROM t WHERE b = 'x; more", "SELECT a FROM t WHERE b = 'x"),
        ("SELECT 'x\ny'", "SELECT 'x"),
        ("", ""),
        (" \n ", ""),
    ],
)
def test_a_generated_text_is_cut_after_its_first_query(generated: str, query: str) -> None:
    assert first_query(generated) == query


def test_a_hostile_length_is_cut_at_once() -> None:
    begun = time.perf_counter()
    assert len(first_query("'\"" * 50_000)) == 100_000
    assert time.perf_counter() - begun < 1


def test_accuracy_is_the_share_of_right_answers_however_they_are_put() -> None:
    gold = Completion("q", " SELECT MAX(a) FROM t", table=T)
    other = Completion("q", " SELECT a FROM t WHERE a > 5", table=T)
    right = ["select max(a) from t; and so on", "SELECT a FROM t WHERE a >= 6 ORDER BY a DESC\nSELECT"]
    assert execution_accuracy(right, [gold, other]) == 1.0
    assert execution_accuracy([right[0], "SELECT a FROM t"], [gold, other]) == 0.5
    assert execution_accuracy(right[::-1], [gold, other]) == 0.0
    assert execution_accuracy(["", "SELECT a FROM u"], [gold, other]) == 0.0


def test_each_query_is_run_on_the_table_of_its_own_example() -> None:
    smaller = Table("t", ("a", "b"), ("INTEGER", "TEXT"), T.rows[:3])
    examples = [Completion("q", " SELECT MAX(a) FROM t", table=table) for table in (T, smaller)]
    assert execution_accuracy(["SELECT 7", "SELECT 7"], examples) == 0.5


@pytest.mark.parametrize(
    ("queries", "examples", "says"),
    [
        ([], [], "Got 0 and 0"),
        (["SELECT 1"], [], "Got 1 and 0"),
        ([], [Completion("q", "SELECT 1", table=T)], "Got 0 and 1"),
        (["SELECT 1"], [Completion("which?", "SELECT 1")], "This one has none: 'which?'"),
    ],
)
def test_what_cannot_be_scored_is_refused(queries: list[str], examples: list[Completion], says: str) -> None:
    with pytest.raises(DataError, match=rf"{says.replace('?', '[?]')}\.$"):
        execution_accuracy(queries, examples)
