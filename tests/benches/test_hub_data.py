"""Every dataset that has a name, read from files laid out as its repository is on the Hub; the texts in them are invented."""

import csv
import json
import sqlite3
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lora_lab.benches.examples import Cell, Completion, Labelled, Table
from lora_lab.benches.hub_data import HUB_DATASETS, _load_once, cut, fetch_command, hub_rows, load_named
from lora_lab.errors import AssetError, DataError

Row = dict[str, Any]
TRAIN = 20
HIDDEN = -1


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of `datasets` of the test's own, and nothing remembered in this process."""
    import datasets

    _load_once.cache_clear()
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)
    return folder


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lora_lab.assets.hub_reachable", lambda: False)


# Files as they are on the Hub


def value(dtype: str) -> Row:
    return {"dtype": dtype, "_type": "Value"}


def a_list(of: Row) -> Row:
    """A list, in the words of the older `datasets` that wrote the files on the Hub."""
    return {"feature": of, "length": -1, "_type": "Sequence"}


def label(*names: str) -> Row:
    return {"names": list(names), "_type": "ClassLabel"}


def write_parquet(path: Path, rows: list[Row], features: Row, types: dict[str, pa.DataType]) -> None:
    """Parquet with the features of `datasets` in its schema's metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = {"huggingface": json.dumps({"info": {"features": features}})}
    schema = pa.schema(list(types.items()), metadata=meta)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)


def write_card(folder: Path, configs: dict[str, dict[str, str]]) -> None:
    """The head of README.md, which tells `datasets` the files of each split of each config."""
    lines = ["---", "configs:"]
    for config, splits in configs.items():
        lines += [f"- config_name: {config}", "  data_files:"]
        for split, pattern in splits.items():
            lines += [f"  - split: {split}", f"    path: {pattern}"]
    (folder / "README.md").write_text("\n".join([*lines, "---", "# Card", ""]), encoding="utf-8")


GLUE_SPLITS = ("train", "validation", "test")
MNLI_SPLITS = ("train", "validation_matched", "validation_mismatched", "test_matched", "test_mismatched")
NLI = ("entailment", "neutral", "contradiction")
GLUE: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {  # columns of text, label names
    "mnli": (("premise", "hypothesis"), NLI),
    "sst2": (("sentence",), ("negative", "positive")),
    "mrpc": (("sentence1", "sentence2"), ("not_equivalent", "equivalent")),
    "cola": (("sentence",), ("unacceptable", "acceptable")),
    "qnli": (("question", "sentence"), ("entailment", "not_entailment")),
    "qqp": (("question1", "question2"), ("not_duplicate", "duplicate")),
    "rte": (("sentence1", "sentence2"), ("entailment", "not_entailment")),
    "stsb": (("sentence1", "sentence2"), ()),
}


def glue_row(config: str, split: str, i: int) -> Row:
    texts, names = GLUE[config]
    given: float = i % len(names) if names else i / 4  # a quarter is exact in 32 bits
    hidden = split.startswith("test")
    return {**{column: f"{split} {column} {i}" for column in texts}, "label": HIDDEN if hidden else given, "idx": i}


def write_glue(folder: Path) -> Path:
    """Two configs would do, but a folder with all of them shows that one is told from another."""
    for config, (texts, names) in GLUE.items():
        features = {
            **{c: value("string") for c in texts},
            "label": label(*names) if names else value("float32"),
            "idx": value("int32"),
        }
        types = {**{c: pa.string() for c in texts}, "label": pa.int64() if names else pa.float32(), "idx": pa.int32()}
        for split in MNLI_SPLITS if config == "mnli" else GLUE_SPLITS:
            rows = [glue_row(config, split, i) for i in range(TRAIN if split == "train" else 4)]
            write_parquet(folder / config / f"{split}-00000-of-00001.parquet", rows, features, types)
    splits = {config: MNLI_SPLITS if config == "mnli" else GLUE_SPLITS for config in GLUE}
    write_card(folder, {config: {split: f"{config}/{split}-*" for split in names} for config, names in splits.items()})
    return folder


MULTINLI_TEXTS = (
    "pairID",
    "premise",
    "premise_binary_parse",
    "premise_parse",
    "hypothesis",
    "hypothesis_binary_parse",
    "hypothesis_parse",
    "genre",
)


def write_multinli(folder: Path) -> Path:
    features = {"promptID": value("int32"), **{c: value("string") for c in MULTINLI_TEXTS}, "label": label(*NLI)}
    types = {"promptID": pa.int32(), **{c: pa.string() for c in MULTINLI_TEXTS}, "label": pa.int64()}
    splits = ("train", "validation_matched", "validation_mismatched")
    for split in splits:
        rows = [
            {"promptID": i, **{column: f"{split} {column} {i}" for column in MULTINLI_TEXTS}, "label": i % 3}
            for i in range(TRAIN if split == "train" else 4)
        ]
        write_parquet(folder / "data" / f"{split}-00000-of-00001.parquet", rows, features, types)
    write_card(folder, {"default": {split: f"data/{split}-*" for split in splits}})
    return folder


E2E_ROWS = {
    "train": [("name[The Fig], food[Thai]", "The Fig is Thai."), ("name[Oak]", "There is Oak."), ("name[Oak]", "Oak is a place.")],
    "validation": [("name[Elm]", "Elm is here."), ("name[Ash], area[quay]", "Ash, by the quay."), ("name[Elm]", "Visit Elm.")],
    "test": [("name[Yew]", "Yew exists."), ("name[Yew]", "A place is Yew."), ("name[Yew]", "Go to Yew."), ("name[Bay]", "Bay!")],
}


def write_converted(folder: Path, splits: dict[str, list[Row]], features: Row, types: dict[str, pa.DataType]) -> Path:
    """The branch refs/convert/parquet: no card, a folder a config, in it a folder a split."""
    for split, rows in splits.items():
        write_parquet(folder / "default" / split / "0000.parquet", rows, features, types)
    return folder


def write_e2e(folder: Path) -> Path:
    columns = ("meaning_representation", "human_reference")
    splits = {split: [dict(zip(columns, pair, strict=True)) for pair in pairs] for split, pairs in E2E_ROWS.items()}
    return write_converted(folder, splits, {c: value("string") for c in columns}, dict.fromkeys(columns, pa.string()))


STRINGS = pa.list_(pa.string())
TABLE_TYPES = {
    "header": STRINGS,
    "page_title": pa.string(),
    "page_id": pa.string(),
    "types": STRINGS,
    "id": pa.string(),
    "section_title": pa.string(),
    "caption": pa.string(),
    "rows": pa.list_(STRINGS),
    "name": pa.string(),
}
CONDS_TYPES = {"column_index": pa.list_(pa.int32()), "operator_index": pa.list_(pa.int32()), "condition": STRINGS}
SQL_TYPES = {
    "human_readable": pa.string(),
    "sel": pa.int32(),
    "agg": pa.int32(),
    "conds": pa.struct(list(CONDS_TYPES.items())),
}
WIKISQL_TYPES = {
    "phase": pa.int32(),
    "question": pa.string(),
    "table": pa.struct(list(TABLE_TYPES.items())),
    "sql": pa.struct(list(SQL_TYPES.items())),
}
_TEXT, _NUMBER = value("string"), value("int32")
WIKISQL_FEATURES = {
    "phase": _NUMBER,
    "question": _TEXT,
    "table": {
        **{name: _TEXT for name in TABLE_TYPES},
        "header": a_list(_TEXT),
        "types": a_list(_TEXT),
        "rows": a_list(a_list(_TEXT)),
    },
    "sql": {
        "human_readable": _TEXT,
        "sel": _NUMBER,
        "agg": _NUMBER,
        "conds": a_list({"column_index": _NUMBER, "operator_index": _NUMBER, "condition": _TEXT}),
    },
}

CLIMBS = {
    "header": ["Peak", "Height (m)", "First climbed by", "peak", ""],
    "types": ["text", "real", "text", "text", "real"],
    "id": "1-1-1",
    "rows": [
        ["Mt. Odd", "1,204.5", 'Ada "Ice" O\'Hara', "north", "3.0"],
        ["Low Hill", "310.0", "Bo", "south", "n/a"],
        ["Mt. Even", "2000", "Bo", "north", "7"],
    ],
}
BOATS = {"header": ["Boat", "Crew"], "types": ["text", "real"], "id": "1-1-2", "rows": [["Gull", "4"], ["Tern", "6"]]}
Cond = tuple[int, int, str]
# what is asked of which table: column, aggregate, conditions -> the SQL and SQLite's answer, both by hand
QUERIES: list[tuple[Row, int, int, list[Cond], str, list[Cell]]] = [
    (CLIMBS, 0, 0, [(2, 0, "BO")], """SELECT "Peak" FROM "table" WHERE "First climbed by" = 'bo\'""", ["low hill", "mt. even"]),
    (CLIMBS, 1, 1, [], 'SELECT MAX("Height (m)") FROM "table"', [2000.0]),
    (CLIMBS, 1, 2, [(3, 0, "North")], """SELECT MIN("Height (m)") FROM "table" WHERE "peak 2" = 'north\'""", [1204.5]),
    (CLIMBS, 0, 3, [(1, 1, "1,000")], 'SELECT COUNT("Peak") FROM "table" WHERE "Height (m)" > 1000', [2]),
    (CLIMBS, 1, 4, [(1, 2, "1204.6 m")], 'SELECT SUM("Height (m)") FROM "table" WHERE "Height (m)" < 1204.6', [1514.5]),
    (
        CLIMBS,
        4,
        0,
        [(2, 0, 'Ada "Ice" O\'Hara'), (1, 0, "1204.5")],
        """SELECT "column" FROM "table" WHERE "First climbed by" = 'ada "ice" o''hara' AND "Height (m)" = 1204.5""",
        [3.0],
    ),
    (CLIMBS, 0, 0, [(4, 0, "n/a")], """SELECT "Peak" FROM "table" WHERE "column" = 'n/a\'""", ["low hill"]),
    (BOATS, 1, 5, [], 'SELECT AVG("Crew") FROM "table"', [5.0]),
]


def wikisql_row(i: int) -> Row:
    table, sel, agg, conds, _, _ = QUERIES[i % len(QUERIES)]
    columns = list(zip(*conds, strict=True)) or [(), (), ()]
    rest = {name: "said elsewhere" for name in TABLE_TYPES if name not in table}
    return {
        "phase": 1,
        "question": f"What about {i}?",
        "table": {**rest, **table},
        "sql": {
            "human_readable": "SELECT something FROM table",
            "sel": sel,
            "agg": agg,
            "conds": {name: list(values) for name, values in zip(CONDS_TYPES, columns, strict=True)},
        },
    }


def write_wikisql(folder: Path) -> Path:
    n = len(QUERIES)
    splits = {"train": [wikisql_row(i) for i in range(n)], "validation": [wikisql_row(n)], "test": [wikisql_row(n - 1)]}
    return write_converted(folder, splits, WIKISQL_FEATURES, WIKISQL_TYPES)


def write_samsum(folder: Path) -> Path:
    rows = {
        "train": [
            ("100", "Ann: tea?\nBob: yes, please", "Bob wants tea."),
            ("101", "", "Nobody says anything."),
            ("102-1", "A: hi", "A greets."),
        ],
        "validation": [("200", "Cy: late, sorry", "Cy is late.")],
        "test": [("300", 'Di: "soon"\nEd: ok', "Di comes soon.")],
    }
    for split, lines in rows.items():
        with (folder / f"{split}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("id", "dialogue", "summary"), *lines])
    return folder


# Parsed values


@pytest.fixture(scope="module")
def glue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub") / "glue"
    folder.mkdir()
    return write_glue(folder)


@pytest.mark.parametrize("config", GLUE)
def test_glue_is_tested_on_its_validation_split(glue: Path, config: str) -> None:
    data = load_named(f"glue:{config}", source=glue)
    texts, names = GLUE[config]
    split = "validation_matched" if config == "mnli" else "validation"
    assert data.label_names == names
    assert data.kind == ("classification" if names else "regression")
    assert data.metric == {"cola": "matthews", "stsb": "pearson"}.get(config, "accuracy")
    pairs = [f"{split} {texts[1]} {i}" if len(texts) == 2 else None for i in range(4)]
    labels = [i % len(names) if names else i / 4 for i in range(4)]
    assert data.test == tuple(Labelled(f"{split} {texts[0]} {i}", labels[i], pairs[i]) for i in range(4))


@pytest.mark.parametrize("config", GLUE)
def test_glue_is_validated_on_a_cut_of_its_train_split(glue: Path, config: str) -> None:
    data = load_named(f"glue:{config}", source=glue)
    assert (len(data.train), len(data.validation)) == (18, 2)
    texts = [row.text for row in (*data.train, *data.validation) if isinstance(row, Labelled)]
    assert Counter(texts) == Counter(f"train {GLUE[config][0][0]} {i}" for i in range(TRAIN))
    assert texts != sorted(texts, key=lambda text: int(text.split()[-1]))
    assert load_named(f"glue:{config}", source=glue) == data


@pytest.mark.parametrize("config", GLUE)
def test_no_label_that_glue_hides_is_used(glue: Path, config: str) -> None:
    data = load_named(f"glue:{config}", source=glue)
    rows = [row for row in (*data.train, *data.validation, *data.test) if isinstance(row, Labelled)]
    assert all(row.label >= 0 for row in rows)
    assert not any(row.text.startswith(("test", "validation_mismatched")) for row in rows)


def test_the_scores_of_stsb_are_floats(glue: Path) -> None:
    data = load_named("glue:stsb", source=glue)
    assert [(type(row.label), row.label) for row in data.test if isinstance(row, Labelled)] == [(float, i / 4) for i in range(4)]


def test_multinli(tmp_path: Path) -> None:
    data = load_named("multinli", source=write_multinli(tmp_path))
    assert (data.kind, data.metric, data.label_names) == ("classification", "accuracy", NLI)
    assert data.test[1] == Labelled("validation_matched premise 1", 1, "validation_matched hypothesis 1")
    assert (len(data.train), len(data.validation), len(data.test)) == (18, 2, 4)


def test_a_row_whose_label_is_hidden_is_left_out(tmp_path: Path) -> None:
    write_multinli(tmp_path)
    path = tmp_path / "data" / "validation_matched-00000-of-00001.parquet"
    table = pq.read_table(path)
    hidden = table.set_column(table.column_names.index("label"), "label", pa.array([0, HIDDEN, 2, None], pa.int64()))
    pq.write_table(hidden.replace_schema_metadata(table.schema.metadata), path)
    data = load_named("multinli", source=tmp_path)
    assert [row.label for row in data.test if isinstance(row, Labelled)] == [0, 2]


def test_e2e_trains_on_every_pair(tmp_path: Path) -> None:
    data = load_named("e2e_nlg", source=write_e2e(tmp_path))
    assert (data.kind, data.metric) == ("completion", "bleu")
    assert data.train == (
        Completion("name[The Fig], food[Thai]\n", "The Fig is Thai.", ("The Fig is Thai.",)),
        Completion("name[Oak]\n", "There is Oak.", ("There is Oak.", "Oak is a place.")),
        Completion("name[Oak]\n", "Oak is a place.", ("There is Oak.", "Oak is a place.")),
    )


def test_e2e_gathers_the_references_of_what_it_is_tested_on(tmp_path: Path) -> None:
    data = load_named("e2e_nlg", source=write_e2e(tmp_path))
    assert data.validation == (
        Completion("name[Elm]\n", "Elm is here.", ("Elm is here.", "Visit Elm.")),
        Completion("name[Ash], area[quay]\n", "Ash, by the quay.", ("Ash, by the quay.",)),
    )
    assert data.test == (
        Completion("name[Yew]\n", "Yew exists.", ("Yew exists.", "A place is Yew.", "Go to Yew.")),
        Completion("name[Bay]\n", "Bay!", ("Bay!",)),
    )


def answer(table: Table, query: str) -> list[Cell]:
    """What plain SQLite says."""
    columns = ", ".join(f'"{name}" {kind}' for name, kind in zip(table.columns, table.types, strict=True))
    with sqlite3.connect(":memory:") as base:
        base.execute(f'CREATE TABLE "{table.name}" ({columns})')
        base.executemany(f'INSERT INTO "{table.name}" VALUES ({", ".join("?" * len(table.columns))})', table.rows)
        found = [cell for (cell,) in base.execute(query)]
    base.close()
    return found


def test_wikisql_makes_tables_that_sqlite_takes(tmp_path: Path) -> None:
    data = load_named("wikisql", source=write_wikisql(tmp_path))
    assert (data.kind, data.metric) == ("completion", "execution_accuracy")
    first = data.train[0]
    assert isinstance(first, Completion)
    assert first.table == Table(
        name="table",
        columns=("Peak", "Height (m)", "First climbed by", "peak 2", "column"),
        types=("TEXT", "REAL", "TEXT", "TEXT", "REAL"),
        rows=(
            ("mt. odd", 1204.5, 'ada "ice" o\'hara', "north", 3.0),
            ("low hill", 310.0, "bo", "south", "n/a"),
            ("mt. even", 2000.0, "bo", "north", 7.0),
        ),
    )
    assert first.prompt == (
        'CREATE TABLE "table" ("Peak" TEXT, "Height (m)" REAL, "First climbed by" TEXT, "peak 2" TEXT, "column" REAL)\n'
        "-- What about 0?\n"
    )


def test_the_queries_of_wikisql_give_the_answers_worked_out_by_hand(tmp_path: Path) -> None:
    data = load_named("wikisql", source=write_wikisql(tmp_path))
    assert (len(data.train), len(data.validation), len(data.test)) == (len(QUERIES), 1, 1)
    for row, (*_, query, expected) in zip(data.train, QUERIES, strict=True):
        assert isinstance(row, Completion)
        assert row.table is not None
        assert row.completion == query
        assert answer(row.table, row.completion) == expected


def test_questions_of_one_table_share_it(tmp_path: Path) -> None:
    data = load_named("wikisql", source=write_wikisql(tmp_path))
    assert len({id(row.table) for row in data.train if isinstance(row, Completion)}) == 2


def test_samsum_leaves_out_the_dialogue_that_is_empty(tmp_path: Path) -> None:
    data = load_named("samsum", source=write_samsum(tmp_path))
    assert (data.kind, data.metric) == ("completion", "rouge_l")
    assert data.train == (
        Completion("Ann: tea?\nBob: yes, please\n\nSummary:\n", "Bob wants tea."),
        Completion("A: hi\n\nSummary:\n", "A greets."),
    )
    assert data.validation == (Completion("Cy: late, sorry\n\nSummary:\n", "Cy is late."),)
    assert data.test == (Completion('Di: "soon"\nEd: ok\n\nSummary:\n', "Di comes soon."),)


# What is no such dataset


def test_every_dataset_is_read_here() -> None:
    assert set(HUB_DATASETS) == {*(f"glue:{config}" for config in GLUE), "multinli", "e2e_nlg", "wikisql", "samsum"}


def assert_one_sentence(error: Exception, *parts: str) -> None:
    message = str(error)
    assert "\n" not in message
    assert message.endswith(".")
    for part in parts:
        assert part in message


def without_label(folder: Path) -> None:
    path = folder / "data" / "train-00000-of-00001.parquet"
    table = pq.read_table(path)
    features = {"premise": value("string"), "hypothesis": value("string"), "verdict": label(*NLI)}
    rows = [{"premise": p, "hypothesis": p, "verdict": 0} for p in table["premise"].to_pylist()]
    for found in folder.glob("data/*.parquet"):
        write_parquet(found, rows, features, {"premise": pa.string(), "hypothesis": pa.string(), "verdict": pa.int64()})


def without_test(folder: Path) -> None:
    write_card(folder, {"default": {"train": "data/train-*"}})


def with_plain_labels(folder: Path) -> None:
    for found in folder.glob("data/*.parquet"):
        pq.write_table(pq.read_table(found).replace_schema_metadata(None), found)


@pytest.mark.parametrize(
    ("spoil", "parts"),
    [
        (without_label, ("nyu-mll/multi_nli", "columns premise, hypothesis, label", "verdict")),
        (without_test, ("nyu-mll/multi_nli", "split named validation_matched", "Got train")),
        (with_plain_labels, ("nyu-mll/multi_nli", "class labels")),
    ],
)
def test_a_dataset_of_another_shape_is_refused(tmp_path: Path, spoil: Callable[[Path], None], parts: tuple[str, ...]) -> None:
    write_multinli(tmp_path)
    spoil(tmp_path)
    with pytest.raises(DataError) as caught:
        load_named("multinli", source=tmp_path)
    assert_one_sentence(caught.value, *parts)


@pytest.mark.parametrize("place", ["missing", "empty"])
def test_a_source_that_is_none_is_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError) as caught:
        load_named("samsum", source=tmp_path / place)
    assert_one_sentence(caught.value, "laid out as knkarthick/samsum", str(tmp_path / place))


def test_a_name_that_is_none_is_told_the_names_there_are() -> None:
    with pytest.raises(DataError) as caught:
        load_named("glue:wnli")
    assert_one_sentence(caught.value, "'glue:wnli'", "glue:sst2", "samsum")


# The Hub and its cache


@pytest.mark.usefixtures("no_hub")
@pytest.mark.parametrize(("name", "wanted"), [("glue:sst2", "'nyu-mll/glue:sst2'"), ("samsum", "'knkarthick/samsum'")])
def test_without_a_hub_and_a_cache_one_sentence_says_so(name: str, wanted: str) -> None:
    with pytest.raises(AssetError) as caught:
        load_named(name)
    assert_one_sentence(caught.value, wanted, "not in the cache", "does not answer")


@pytest.mark.usefixtures("no_hub")
def test_what_the_cache_holds_needs_no_hub(glue: Path, cache: Path) -> None:
    import datasets

    for config in ("sst2", "cola"):
        datasets.load_dataset(str(glue), config)
    (cache / "glue").rename(cache / "nyu-mll___glue")  # where a fetch from the Hub keeps the same files
    assert (load_named("glue:sst2"), load_named("glue:cola")) == (
        load_named("glue:sst2", source=glue),
        load_named("glue:cola", source=glue),
    )


def test_what_the_hub_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(*place: object, **revision: object) -> None:
        asked.append((*place, *revision.values()))
        raise ConnectionError("no such luck.\nAnd more.")

    monkeypatch.setattr("lora_lab.assets.hub_reachable", lambda: True)
    monkeypatch.setattr("datasets.load_dataset", refuse)
    for name in ("glue:rte", "multinli", "e2e_nlg", "wikisql", "samsum"):
        with pytest.raises(AssetError) as caught:
            load_named(name)
        assert_one_sentence(caught.value, HUB_DATASETS[name].hub_id, "(ConnectionError: no such luck)")
    assert asked == [
        ("nyu-mll/glue", "rte", None),
        ("nyu-mll/multi_nli", None, None),
        ("tuetschek/e2e_nlg", None, "refs/convert/parquet"),
        ("Salesforce/wikisql", None, "refs/convert/parquet"),
        ("knkarthick/samsum", None, None),
    ]


def test_loading_leaves_bars_and_warnings_as_they_were(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from datasets.utils import are_progress_bars_disabled, logging

    before = (logging.get_verbosity(), are_progress_bars_disabled())
    load_named("samsum", source=write_samsum(tmp_path))
    assert (logging.get_verbosity(), are_progress_bars_disabled()) == before
    assert capfd.readouterr() == ("", "")


# Any dataset


def test_rows_of_any_dataset_have_labels_by_name(glue: Path) -> None:
    splits = hub_rows("somebody/glue:sst2", source=glue)
    assert list(splits) == ["train", "validation"]  # every label of the test split is hidden
    assert splits["validation"][1] == {"sentence": "validation sentence 1", "label": "positive", "idx": 1}


@pytest.mark.usefixtures("no_hub")
def test_any_dataset_needs_the_hub_or_the_cache() -> None:
    with pytest.raises(AssetError) as caught:
        hub_rows("somebody/something:part")
    assert_one_sentence(caught.value, "'somebody/something:part'", "does not answer")


def test_a_cut_is_the_same_every_time_and_loses_nothing() -> None:
    kept, held_out = cut(tuple(range(100)), 10)
    assert (len(kept), len(held_out)) == (90, 10)
    assert sorted((*kept, *held_out)) == list(range(100))
    assert cut(tuple(range(100)), 10) == (kept, held_out)
    assert held_out != tuple(range(90, 100))


@pytest.mark.parametrize("name", HUB_DATASETS)
def test_the_command_names_a_base_and_the_dataset(name: str) -> None:
    assert fetch_command(name).endswith(f" --data {name}")
    assert fetch_command(name).startswith("python -m lora_lab train --bench ")
