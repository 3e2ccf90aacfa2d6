"""Questions about tables: each query answers its question, tells right from wrong, and is of its own split alone."""

import hashlib
import operator
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import permutations
from pathlib import Path
from statistics import fmean

import pytest

from lora_lab.benches.echo import nearest_answers
from lora_lab.benches.examples import Cell, Completion, Table, TextData
from lora_lab.benches.queries import Condition, Query, mistakes
from lora_lab.benches.sqlite import execute, execution_accuracy, opened, same_answer
from lora_lab.benches.tables import table_questions

SPLITS = ("train", "validation", "test")
PRINT_HASH = """
import hashlib
from lora_lab.benches.tables import table_questions
print(hashlib.sha256(repr(table_questions()).encode()).hexdigest())
"""
OWLS = Table("owls", ("ring", "mass", "wood"), ("INTEGER", "REAL", "TEXT"), ((4, 1.5, "ash"), (7, 2.5, "oak"), (9, 0.5, "ash")))

# English as the test reads it, apart from the generator: longer ways first, since `is` begins most of them.
COMPARED = {
    "is above": operator.gt,
    "is more than": operator.gt,
    "is over": operator.gt,
    "is below": operator.lt,
    "is less than": operator.lt,
    "is under": operator.lt,
    "is exactly": operator.eq,
    "equals": operator.eq,
    "is": operator.eq,
}
TOLD = {
    **dict.fromkeys(("maximum", "highest", "largest"), max),
    **dict.fromkeys(("minimum", "lowest", "smallest"), min),
    **dict.fromkeys(("average", "mean"), fmean),
    **dict.fromkeys(("total", "sum of every"), sum),
}
EXTREME = {**dict.fromkeys(("highest", "largest", "greatest"), max), **dict.fromkeys(("lowest", "smallest", "least"), min)}
Rows = list[dict[str, Cell]]


@pytest.fixture(scope="module")
def data() -> TextData:
    return table_questions()


def rows(data: TextData, split: str) -> tuple[Completion, ...]:
    return getattr(data, split)


def everything(data: TextData) -> list[Completion]:
    return [row for split in SPLITS for row in rows(data, split)]


def question(example: Completion) -> str:
    _, line, end = example.prompt.split("\n")
    assert end == "SQL:"
    return line.removeprefix("Question: ")


def open_values(example: Completion) -> set[str]:
    """Names and text of the table: what no other split may hold."""
    cells = {cell for row in example.table.rows for cell in row if isinstance(cell, str)}
    return {example.table.name, *example.table.columns, *cells}


def either(words: object) -> str:
    return "|".join(map(re.escape, words))


def where(table: Table, conditions: str) -> Rows:
    """The rows of which every condition holds, in plain Python."""
    found = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    for condition in filter(None, conditions.split(" and ")):
        column, how, value = re.fullmatch(rf"({either(table.columns)}) ({either(COMPARED)}) (.+)", condition).groups()
        wanted = value if table.types[table.columns.index(column)] == "TEXT" else float(value)
        found = [row for row in found if COMPARED[how](row[column], wanted)]
    return found


def answered(table: Table, asked: str) -> list[tuple[object, ...]]:
    """What a person would answer who reads the question and looks at the table."""
    head, _, conditions = re.fullmatch(r"(.+?)(?: (where|when|if) (.+))?[?.]", asked).groups()
    found, column = where(table, conditions or ""), f"({either(table.columns)})"
    if head in (f"How many {table.name} are there", f"Count the {table.name}", f"What is the number of {table.name}"):
        return [(len(found),)]
    if match := re.fullmatch(rf"(?:What is|Give|Find) the ({either(TOLD)}) {column}", head):
        return [(TOLD[match[1]](row[match[2]] for row in found),)]
    if match := re.fullmatch(rf"(?:Which|What is the|Give the) {column} (?:has|with) the ({either(EXTREME)}) {column}", head):
        return [(EXTREME[match[2]](found, key=lambda row: row[match[3]])[match[1]],)]
    match = re.fullmatch(rf"(?:What is the|Which|Give the|Find every) {column}(?: is there)?", head)
    return [(row[match[1]],) for row in found]


def renamed(sql: str, table: Table) -> Iterator[str]:
    """The query with one of its columns taken for another of the same sort, by its text alone."""
    sort = {name: kind == "TEXT" for name, kind in zip(table.columns, table.types, strict=True)}
    as_written = {name: f'"{name}"' if " " in name else name for name in table.columns}
    table_name = table.name if table.name in table.columns else None
    for one, other in permutations(table.columns, 2):
        pattern = rf'(?<![\w"\']){re.escape(as_written[one])}(?![\w"\'])'
        if sort[one] == sort[other] and one != table_name and re.search(pattern, sql):
            yield re.sub(pattern, as_written[other], sql)


def test_the_splits_are_as_large_as_told(data: TextData) -> None:
    assert (data.kind, data.metric) == ("completion", "execution_accuracy")
    assert [len(rows(data, split)) for split in SPLITS] == [4000, 200, 200]
    assert all(len({row.prompt for row in rows(data, split)}) == len(rows(data, split)) for split in SPLITS)


def test_another_process_makes_the_same(data: TextData, repository: Path) -> None:
    command = [sys.executable, "-c", PRINT_HASH]
    env = {"PYTHONHASHSEED": "1", "PYTHONPATH": str(repository)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == hashlib.sha256(repr(data).encode()).hexdigest()


def test_every_query_answers_its_question(data: TextData) -> None:
    for example in everything(data):
        found = execute(example.table, example.completion)
        assert found, example
        assert same_answer(found, answered(example.table, question(example))), example


def test_the_prompt_has_the_schema_and_of_the_rows_only_what_is_asked_about(data: TextData) -> None:
    for example in everything(data):
        schema, asked, _ = example.prompt.split("\n")
        for name, kind in zip(example.table.columns, example.table.types, strict=True):
            assert re.search(rf'[(" ]{name}"? {kind}[,)]', schema)
        cells = {cell for row in example.table.rows for cell in row if isinstance(cell, str)}
        assert sum(re.search(rf"\b{cell}\b", asked) is not None for cell in cells) <= 2


def test_tables_are_small_and_of_three_types(data: TextData) -> None:
    for table in (example.table for example in everything(data)):
        assert 3 <= len(table.columns) == len(set(table.columns)) == len(table.types) <= 5
        assert 4 <= len(table.rows) <= 8
        assert set(table.types) <= {"TEXT", "INTEGER", "REAL"}
        for cells, kind in zip(zip(*table.rows, strict=True), table.types, strict=True):
            assert {type(cell) for cell in cells} == {{"TEXT": str, "INTEGER": int, "REAL": float}[kind]}
            assert kind == "TEXT" or len(set(cells)) == len(cells)


@pytest.mark.parametrize(
    ("shape", "share"),
    [
        (r"SELECT [^(]+ WHERE [^=<>]+[=<>] \S+", 0.2),
        (r"SELECT [^(]+ WHERE .+ AND .+", 0.1),
        (r"SELECT COUNT\(\*\) .+", 0.2),
        *((rf"SELECT {name}\(.+\) .+", 0.03) for name in ("MAX", "MIN", "AVG", "SUM")),
        (r"SELECT [^(]+ ORDER BY .+ (ASC|DESC) LIMIT 1", 0.1),
    ],
)
@pytest.mark.parametrize("split", SPLITS)
def test_every_kind_of_query_has_its_share(data: TextData, split: str, shape: str, share: float) -> None:
    fits = [re.fullmatch(shape, example.completion.strip()) is not None for example in rows(data, split)]
    assert fmean(fits) >= share


def test_no_query_without_its_conditions_or_turned_round_finds_the_same(data: TextData) -> None:
    for example in everything(data):
        sql = example.completion
        wrong = {sql.split(" WHERE ")[0], sql.split(" AND ")[0], sql.replace(" > ", " < ", 1), sql.replace(" < ", " > ", 1)}
        wrong |= {sql.replace(" ASC ", " DESC "), sql.replace(" DESC ", " ASC "), sql.replace("MAX(", "MIN(")}
        with opened(example.table) as run:
            assert not any(same_answer(run(query), run(sql)) for query in wrong - {sql}), example


def test_a_wrong_column_finds_something_else(data: TextData) -> None:
    same = []
    for example in everything(data):
        with opened(example.table) as run:
            same += [same_answer(run(wrong), run(example.completion)) for wrong in renamed(example.completion, example.table)]
    assert len(same) > 4000
    assert not any(same)


def test_an_answer_cannot_be_guessed(data: TextData) -> None:
    for example in everything(data):
        found = execute(example.table, example.completion)
        assert len(found) < len(example.table.rows)
        assert not {cell for row in found for cell in row} & {None, 0, 1}


@pytest.mark.parametrize(("one", "other"), [*permutations(SPLITS, 2)])
def test_no_name_or_text_of_a_split_is_in_another(data: TextData, one: str, other: str) -> None:
    values = set().union(*map(open_values, rows(data, one)))
    assert len(values) > 100
    there = set().union(*map(open_values, rows(data, other)))
    text = "\n".join([*there, *(example.prompt + example.completion for example in rows(data, other))]).lower()
    words = set(re.findall(r"\w+", text))
    phrases = {value.lower() for value in values}
    assert phrases & words == set()
    assert [phrase for phrase in phrases if " " in phrase and phrase in text] == []
    assert not {row.completion for row in rows(data, one)} & {row.completion for row in rows(data, other)}


def test_examples_are_short(data: TextData) -> None:
    assert max(len(example.prompt + example.completion) for example in everything(data)) <= 4 * 110


def echoed(train: Sequence[Completion], held_out: Sequence[Completion]) -> float:
    """What repeating the nearest example's query scores."""
    return execution_accuracy(nearest_answers(train, held_out), held_out)


def test_repeating_the_nearest_example_answers_nothing(data: TextData) -> None:
    assert echoed(data.train, data.validation) < 0.2
    assert echoed(data.train, data.test) < 0.2


def test_the_baseline_finds_what_it_has_seen(data: TextData) -> None:
    held_out = data.test[:50]
    assert echoed([*data.train[:200], *held_out], held_out) == 1.0
    assert 0.0 < echoed(data.test[50:], held_out) < 1.0


def test_the_gold_queries_score_one_and_those_of_others_next_to_nothing(data: TextData) -> None:
    queries = [example.completion + "; SELECT" for example in data.test]
    assert execution_accuracy(queries, data.test) == 1.0
    assert execution_accuracy([*queries[1:], queries[0]], data.test) < 0.05


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (
            Query("owls", "*", "COUNT", (Condition("ring", ">", 5),)),
            {
                "SELECT COUNT(*) FROM owls",
                "SELECT COUNT(*) FROM owls WHERE ring < 5",
                "SELECT COUNT(*) FROM owls WHERE mass > 5",
            },
        ),
        (
            Query("owls", "wood", order=("mass", "ASC")),
            {
                "SELECT wood FROM owls ORDER BY ring ASC LIMIT 1",
                "SELECT wood FROM owls ORDER BY mass DESC LIMIT 1",
                "SELECT wood FROM owls",
            },
        ),
        (
            Query("owls", "mass", "MAX", (Condition("wood", "=", "ash"),)),
            {
                "SELECT MAX(mass) FROM owls",
                "SELECT MAX(mass) FROM owls WHERE wood <> 'ash'",
                "SELECT MAX(ring) FROM owls WHERE wood = 'ash'",
                *(f"SELECT {other}(mass) FROM owls WHERE wood = 'ash'" for other in ("MIN", "AVG", "SUM")),
            },
        ),
    ],
    ids=["count", "order", "aggregate"],
)
def test_mistakes_are_one_slip_away(query: Query, expected: set[str]) -> None:
    assert {mistake.sql() for mistake in mistakes(query, OWLS)} == expected


def test_the_reader_of_questions_can_say_no() -> None:
    assert answered(OWLS, "How many owls are there where wood is exactly ash?") == [(2,)]
    assert answered(OWLS, "Which wood has the least mass?") == [("ash",)]
    assert answered(OWLS, "Give the sum of every ring where mass is above 0.5.") == [(11,)]
    assert answered(OWLS, "What is the ring where wood is ash and mass is under 1.5?") == [(9,)]
    with pytest.raises(AttributeError):
        answered(OWLS, "Which wood is there when height is 3?")
