"""A question about a table -> the SQL that answers it, written by a seeded generator; it stands for WikiSQL."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from random import Random

from lora_lab.benches.draws import pick, some
from lora_lab.benches.examples import Cell, Completion, Table, TextData
from lora_lab.benches.queries import Condition, Query, identifier, mistakes
from lora_lab.benches.sqlite import Answer, opened, same_answer
from lora_lab.benches.topics import TEST_TOPICS, TRAIN_TOPICS, VALIDATION_TOPICS, Topic

TRAIN, HELD_OUT = 4_000, 200

_COMPARED = {
    "=": ("{} is {}", "{} equals {}", "{} is exactly {}"),
    ">": ("{} is above {}", "{} is more than {}", "{} is over {}"),
    "<": ("{} is below {}", "{} is less than {}", "{} is under {}"),
}
_SELECTED = ("What is the {} where {}?", "Which {} is there when {}?", "Give the {} if {}.", "Find every {} where {}.")
_COUNTED = ("How many {} are there where {}?", "Count the {} where {}.", "What is the number of {} where {}?")
_AGGREGATED = ("What is the {} {}{}?", "Give the {} {}{}.", "Find the {} {}{}.")
_CALLED = {
    "MAX": ("maximum", "highest", "largest"),
    "MIN": ("minimum", "lowest", "smallest"),
    "AVG": ("average", "mean"),
    "SUM": ("total", "sum of every"),
}
_FIRST = ("Which {} has the {} {}?", "What is the {} with the {} {}?", "Give the {} with the {} {}.")
_EXTREMES = {"DESC": ("highest", "largest", "greatest"), "ASC": ("lowest", "smallest", "least")}


@dataclass(frozen=True, slots=True)
class World:
    """What one split's tables are made of: topics, and the two halves of the names in their rows."""

    topics: tuple[Topic, ...]
    beginnings: tuple[str, ...]
    endings: tuple[str, ...]

    def names(self, rng: Random, n: int) -> list[str]:
        """n different made-up names."""
        return [a + b for a, b in zip(some(rng, self.beginnings, n), some(rng, self.endings, n), strict=True)]


def _world(topics: tuple[Topic, ...], beginnings: str, endings: str) -> World:
    return World(topics, tuple(beginnings.split()), tuple(endings.split()))


_TRAIN_WORLD = _world(
    TRAIN_TOPICS,
    "Bal Cor Dan Fen Gal Har Jor Kal Lor Mar Nor Pel Ram San Tal Vor",
    "an bert dor en fin gan ia ic len mon na old ra ton vik wen",
)
_VALIDATION_WORLD = _world(VALIDATION_TOPICS, "Ald Bry Eth Hux Ost Quil Thr Wyn", "aby eck ido ock ope umer urst yne")
_TEST_WORLD = _world(TEST_TOPICS, "Cze Drus Fjo Ghi Jup Kny Plo Zab", "aquo bish dulf emka kyo lund pex zov")


@cache
def table_questions() -> TextData:
    """4,000 examples to train on, 200 to validate and 200 to test with; the same on every machine.

    Every example has a table of its own, whose rows the model does not see. Names of tables, names of columns and the
    text in cells are of one split alone; SQL and the words of a question are shared. So what is learned is how a
    question becomes a query: to repeat a query seen in training answers nothing, as its table is not there.

    Each query finds something, and none that is one slip away (see `mistakes`) finds the same.
    """
    return TextData(
        kind="completion",
        metric="execution_accuracy",
        train=_split(Random(1), _TRAIN_WORLD, TRAIN),
        validation=_split(Random(2), _VALIDATION_WORLD, HELD_OUT),
        test=_split(Random(3), _TEST_WORLD, HELD_OUT),
    )


def _split(rng: Random, world: World, n: int) -> tuple[Completion, ...]:
    """n examples, no prompt twice."""
    made: dict[str, Completion] = {}
    while len(made) < n:
        example = _example(rng, world, pick(rng, _KINDS))
        made.setdefault(example.prompt, example)
    return tuple(made.values())


def _example(rng: Random, world: World, ask: "Ask") -> Completion:
    """A table and a question of one kind, both drawn again until the answer tells right queries from wrong ones."""
    while True:
        table = _table(rng, world)
        question, query = ask(rng, table)
        if _is_telling(query, table):
            return Completion(_prompt(table, question), f" {query.sql()}", table=table)


def _prompt(table: Table, question: str) -> str:
    pairs = zip(table.columns, table.types, strict=True)
    columns = ", ".join(f"{identifier(name)} {kind}" for name, kind in pairs)
    return f"Table: {identifier(table.name)} ({columns})\nQuestion: {question}\nSQL:"


def _table(rng: Random, world: World) -> Table:
    """Two columns of text and 1 to 3 of numbers, in any order; 5 to 8 rows, no name and no number of a column twice."""
    topic, n = pick(rng, world.topics), pick(rng, range(5, 9))
    numbers = some(rng, [*((name, "INTEGER") for name in topic.integers), *((name, "REAL") for name in topic.reals)], 3)
    columns: dict[tuple[str, str], Sequence[Cell]] = {
        (topic.entity, "TEXT"): world.names(rng, n),
        (topic.category, "TEXT"): [pick(rng, topic.categories) for _ in range(n)],
        **{column: _numbers(rng, column[1], n) for column in numbers[: pick(rng, (1, 2, 3))]},
    }
    order = some(rng, list(columns), len(columns))
    names, types = zip(*order, strict=True)
    return Table(topic.table, names, types, tuple(zip(*(columns[column] for column in order), strict=True)))


def _numbers(rng: Random, kind: str, n: int) -> list[int] | list[float]:
    drawn = some(rng, range(11, pick(rng, (100, 1000))), n)
    return [number / 10 for number in drawn] if kind == "REAL" else drawn


def _is_telling(query: Query, table: Table) -> bool:
    """Whether the query finds something but not every row, and none of its mistakes finds the same."""
    with opened(table) as run:
        answer = run(query.sql())
        return _is_worth_asking(answer, table) and not any(
            same_answer(run(mistake.sql()), answer) for mistake in mistakes(query, table)
        )


def _is_worth_asking(answer: Answer | None, table: Table) -> bool:
    """Some rows but not all, nothing missing in them, and no count of 0 or 1, which can be guessed."""
    if not answer or len(answer) >= len(table.rows):
        return False
    return not any(cell in (None, 0, 1) for row in answer for cell in row)


# The kinds of question. Each gives the question and its query; which columns and values it asks about is drawn.

Ask = Callable[[Random, Table], tuple[str, Query]]


def _ask_select(rng: Random, table: Table, *, n: int) -> tuple[str, Query]:
    column, *others = some(rng, table.columns, len(table.columns))
    conditions = _conditions(rng, table, others[:n])
    question = pick(rng, _SELECTED).format(column, _told(rng, conditions))
    return question, Query(table.name, column, conditions=conditions)


def _ask_count(rng: Random, table: Table, *, n: int) -> tuple[str, Query]:
    conditions = _conditions(rng, table, some(rng, table.columns, n))
    question = pick(rng, _COUNTED).format(table.name, _told(rng, conditions))
    return question, Query(table.name, "*", "COUNT", conditions)


def _ask_aggregate(rng: Random, table: Table, *, n: int) -> tuple[str, Query]:
    aggregate, column = pick(rng, list(_CALLED)), pick(rng, _numeric(table))
    conditions = _conditions(rng, table, some(rng, [name for name in table.columns if name != column], n))
    told = f" where {_told(rng, conditions)}" if conditions else ""
    question = pick(rng, _AGGREGATED).format(pick(rng, _CALLED[aggregate]), column, told)
    return question, Query(table.name, column, aggregate, conditions)


def _ask_first(rng: Random, table: Table) -> tuple[str, Query]:
    number, direction = pick(rng, _numeric(table)), pick(rng, list(_EXTREMES))
    column = pick(rng, [name for name in table.columns if name != number])
    question = pick(rng, _FIRST).format(column, pick(rng, _EXTREMES[direction]), number)
    return question, Query(table.name, column, order=(number, direction))


_KINDS: tuple[Ask, ...] = (
    *(partial(_ask_select, n=n) for n in (1, 1, 2)),
    *(partial(_ask_count, n=n) for n in (1, 2)),
    *(partial(_ask_aggregate, n=n) for n in (0, 1)),
    _ask_first,
)


def _numeric(table: Table) -> list[str]:
    return [name for name, kind in zip(table.columns, table.types, strict=True) if kind != "TEXT"]


def _conditions(rng: Random, table: Table, columns: Sequence[str]) -> tuple[Condition, ...]:
    """One condition a column, all of which hold of some row."""
    row = pick(rng, table.rows)
    return tuple(_condition(rng, table, name, row[table.columns.index(name)]) for name in columns)


def _condition(rng: Random, table: Table, name: str, cell: Cell) -> Condition:
    """What holds of the cell: that it is what it is, or lies above or below another of its column."""
    bound = pick(rng, table.rows)[table.columns.index(name)]
    if isinstance(cell, int | float) and isinstance(bound, int | float) and cell != bound:
        return Condition(name, ">" if cell > bound else "<", bound)
    return Condition(name, "=", cell)


def _told(rng: Random, conditions: Sequence[Condition]) -> str:
    return " and ".join(pick(rng, _COMPARED[c.operator]).format(c.column, c.value) for c in conditions)
