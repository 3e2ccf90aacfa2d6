"""Datasets of the Hugging Face Hub: those of the LoRA paper by name, any other as rows.

`datasets` from version 4 on runs no loading scripts. Where a repository is still a script, its rows come from the Parquet files
that the Hub itself makes of it, on the branch `refs/convert/parquet`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from lora_lab import assets
from lora_lab.benches.bench import shuffled
from lora_lab.benches.examples import Completion, Labelled, TextData, TextKind
from lora_lab.benches.smollm import HUB_ID as SMOLLM2_ID
from lora_lab.benches.wikisql import wikisql_rows
from lora_lab.errors import AssetError, DataError

Row = dict[str, Any]
Example = Labelled | Completion
Parse = Callable[[Iterable[Row], Mapping[str, str]], Iterator[Example]]
CONVERTED = "refs/convert/parquet"
ROBERTA, GPT2 = "FacebookAI/roberta-base", "openai-community/gpt2-medium"


@dataclass(frozen=True, slots=True, kw_only=True)
class HubDataset:
    """A dataset of the Hub that has a name here.

    Attributes:
        hub_id: the repository, as it is called today.
        config: the part of it, None where it has one part only.
        revision: a branch other than main, None for main.
        splits: ours -> theirs; a validation that is empty is cut from their train.
        columns: what a column is to us -> its name there.
        gathers: whether the answers to one prompt are each other's references, and held-out rows one a prompt.
        base: a model of the Hub to show it on.
    """

    name: str
    about: str
    hub_id: str
    config: str | None = None
    revision: str | None = None
    splits: Mapping[str, str]
    kind: TextKind
    metric: str
    columns: Mapping[str, str]
    parse: Parse
    gathers: bool = False
    base: str


def _labelled(rows: Iterable[Row], columns: Mapping[str, str]) -> Iterator[Labelled]:
    """A label of -1 is one that the Hub hides: such rows are left out."""
    pair = columns.get("pair")
    for row in rows:
        label = row[columns["label"]]
        if label is not None and label >= 0:
            yield Labelled(row[columns["text"]], label, row[pair] if pair else None)


def _completions(rows: Iterable[Row], columns: Mapping[str, str], *, template: str) -> Iterator[Completion]:
    """Rows without a prompt or a completion are left out: SAMSum has a dialogue that is empty."""
    for row in rows:
        prompt, completion = row[columns["prompt"]], row[columns["completion"]]
        if prompt and completion:
            yield Completion(template.format(prompt), completion)


# GLUE. Shape: the card and the tree of nyu-mll/glue (a folder of Parquet a config since January 2024); metrics: Table 2 of the
# LoRA paper (arXiv 2106.09685): Matthews' correlation on CoLA, Pearson's on STS-B, accuracy on the others. The labels of its
# test splits are hidden (-1), so that the validation split is what it is tested on, as in the paper.


def _glue(config: str, about: str, *columns: str, metric: str = "accuracy", tested_on: str = "validation") -> HubDataset:
    return HubDataset(
        name=f"glue:{config}",
        about=about,
        hub_id="nyu-mll/glue",
        config=config,
        splits={"train": "train", "validation": "", "test": tested_on},
        kind="regression" if metric == "pearson" else "classification",
        metric=metric,
        columns={**dict(zip(("text", "pair"), columns, strict=False)), "label": "label"},
        parse=_labelled,
        base=ROBERTA,
    )


_GLUE = (
    _glue("mnli", "does one sentence follow from another?", "premise", "hypothesis", tested_on="validation_matched"),
    _glue("sst2", "does a piece of a film review praise or pan?", "sentence"),
    _glue("mrpc", "do two sentences of the news say the same?", "sentence1", "sentence2"),
    _glue("cola", "is a sentence one of English?", "sentence", metric="matthews"),
    _glue("qnli", "does a sentence of Wikipedia answer the question?", "question", "sentence"),
    _glue("qqp", "do two questions of Quora ask the same?", "question1", "question2"),
    _glue("rte", "does one sentence follow from another?", "sentence1", "sentence2"),
    _glue("stsb", "how alike are two sentences, from 0 to 5?", "sentence1", "sentence2", metric="pearson"),
)

# Shape: the card and the tree of nyu-mll/multi_nli (Parquet since January 2024), which has no test split.
_MULTINLI = HubDataset(
    name="multinli",
    about="does one sentence follow from another? MNLI with its genres and parses",
    hub_id="nyu-mll/multi_nli",
    splits={"train": "train", "validation": "", "test": "validation_matched"},
    kind="classification",
    metric="accuracy",
    columns={"text": "premise", "pair": "hypothesis", "label": "label"},
    parse=_labelled,
    base=ROBERTA,
)

# Shape: dataset_infos.json of tuetschek/e2e_nlg, and the tree of its converted branch (default/train/0000.parquet and so on);
# its main branch is a script. It is the dataset of Novikova et al. 2017 (arXiv 1706.09254), not its cleaned version.
_E2E = HubDataset(
    name="e2e_nlg",
    about="facts about a restaurant, written out as a text",
    hub_id="tuetschek/e2e_nlg",
    revision=CONVERTED,
    splits={"train": "train", "validation": "validation", "test": "test"},
    kind="completion",
    metric="bleu",
    columns={"prompt": "meaning_representation", "completion": "human_reference"},
    parse=partial(_completions, template="{}\n"),
    gathers=True,
    base=GPT2,
)

# Shape: dataset_infos.json of Salesforce/wikisql and its script, by which cells and conditions are strings; its main branch is
# that script. The converted branch has default/train/0000.parquet and so on.
_WIKISQL = HubDataset(
    name="wikisql",
    about="a question about a table, as SQL",
    hub_id="Salesforce/wikisql",
    revision=CONVERTED,
    splits={"train": "train", "validation": "validation", "test": "test"},
    kind="completion",
    metric="execution_accuracy",
    columns={"question": "question", "table": "table", "sql": "sql"},
    parse=wikisql_rows,
    base=SMOLLM2_ID,
)

# Shape: the card and the tree of knkarthick/samsum (train.csv, validation.csv, test.csv). Samsung/samsum, where the dataset
# first was, is gone from the Hub: github.com/huggingface/datasets/issues/7573.
_SAMSUM = HubDataset(
    name="samsum",
    about="a chat, summed up",
    hub_id="knkarthick/samsum",
    splits={"train": "train", "validation": "validation", "test": "test"},
    kind="completion",
    metric="rouge_l",
    columns={"prompt": "dialogue", "completion": "summary"},
    parse=partial(_completions, template="{}\n\nSummary:\n"),
    base=SMOLLM2_ID,
)

HUB_DATASETS: Mapping[str, HubDataset] = {d.name: d for d in (*_GLUE, _MULTINLI, _E2E, _WIKISQL, _SAMSUM)}


def fetch_command(name: str) -> str:
    """The command that fetches the dataset from the Hub and trains a base on it.

    >>> fetch_command("glue:sst2")
    'python -m lora_lab train --bench FacebookAI/roberta-base --data glue:sst2'
    """
    return f"python -m lora_lab train --bench {HUB_DATASETS[name].base} --data {name}"


def load_named(name: str, *, source: Path | None = None) -> TextData:
    """A dataset of `HUB_DATASETS`, parsed.

    Args:
        name: its name here.
        source: a folder laid out as the repository is on the Hub, to read instead of it.

    Raises:
        DataError: no such name, or what is read has not the shape that the dataset has.
        AssetError: the Hub does not give it, and it is not in the cache of `datasets`.
    """
    if name not in HUB_DATASETS:
        raise DataError(f"The dataset must be one of {', '.join(HUB_DATASETS)}. Got {name!r}.")
    return _load_once(name) if source is None else _load(HUB_DATASETS[name], source)


@lru_cache(maxsize=2)
def _load_once(name: str) -> TextData:
    """A bench asks for its data at every turn, and MNLI takes a while to parse."""
    return _load(HUB_DATASETS[name], None)


def _load(dataset: HubDataset, source: Path | None) -> TextData:
    loaded = _open(dataset.hub_id, dataset.config, dataset.revision, source)
    parsed = {ours: _parse(dataset, loaded, ours) for ours, theirs in dataset.splits.items() if theirs}
    if not dataset.splits["validation"]:
        parsed["train"], parsed["validation"] = cut(parsed["train"], hub_share(len(parsed["train"])))
    names = _label_names(dataset, loaded) if dataset.kind == "classification" else ()
    return TextData(dataset.kind, dataset.metric, **parsed, label_names=names)


def _parse(dataset: HubDataset, loaded: Any, ours: str) -> tuple[Any, ...]:
    theirs, wanted = dataset.splits[ours], list(dataset.columns.values())
    if theirs not in loaded:
        raise DataError(f"{dataset.hub_id} must have a split named {theirs}. Got {', '.join(loaded)}.")
    split = loaded[theirs]
    if not set(wanted) <= set(split.column_names):
        raise DataError(f"{dataset.hub_id} must have columns {', '.join(wanted)}. Got {', '.join(split.column_names)}.")
    examples = tuple(dataset.parse(_rows(split.select_columns(wanted)), dataset.columns))
    if not examples:
        raise DataError(f"The {theirs} split of {dataset.hub_id} must have at least one row with a label. Got none.")
    return _gathered(examples, held_out=ours != "train") if dataset.gathers else examples


def _label_names(dataset: HubDataset, loaded: Any) -> tuple[str, ...]:
    """In the order of the Hub's class labels."""
    feature = loaded["train"].features[dataset.columns["label"]]
    names = getattr(feature, "names", None)
    if names is None:
        raise DataError(f"The label column of {dataset.hub_id} must hold class labels. Got {type(feature).__name__}.")
    return tuple(names)


def _rows(split: Any) -> Iterator[Row]:
    """Row by row, read a thousand at a time: the split whole would stand in memory twice."""
    for batch in split.iter(1000):
        for values in zip(*batch.values(), strict=True):
            yield dict(zip(batch, values, strict=True))


def _gathered(pairs: tuple[Any, ...], *, held_out: bool) -> tuple[Completion, ...]:
    """Pairs with every answer to their prompt as references; one a prompt where they are held out."""
    answers: dict[str, tuple[str, ...]] = {}
    for pair in pairs:
        answers[pair.prompt] = (*answers.get(pair.prompt, ()), pair.completion)
    kept = {pair.prompt: pair for pair in reversed(pairs)} if held_out else {}
    return tuple(replace(p, references=answers[p.prompt]) for p in pairs if not held_out or kept[p.prompt] is p)


def cut(rows: tuple[Any, ...], n: int) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """(the other rows, n of them), by a shuffle that is always the same."""
    order = shuffled(len(rows)).tolist()
    kept, held_out = order[: len(rows) - n], order[len(rows) - n :]
    return tuple(rows[i] for i in kept), tuple(rows[i] for i in held_out)


def hub_share(n: int) -> int:
    """Rows cut from a train split of n for validation: a tenth, no more than a thousand.

    >>> hub_share(40), hub_share(392_702)
    (4, 1000)
    """
    return max(1, min(1000, n // 10))


def hub_rows(given: str, *, source: Path | None = None) -> dict[str, list[Row]]:
    """The rows of any dataset of the Hub, by split; class labels as their names, rows whose label is hidden left out.

    Args:
        given: `owner/name`, or `owner/name:config`.
        source: as for `load_named`.

    Raises:
        AssetError: the Hub does not give it, and it is not in the cache of `datasets`.
    """
    hub_id, _, config = given.partition(":")
    loaded = _open(hub_id, config or None, None, source)
    splits = {str(name): _named_labels(split) for name, split in loaded.items()}
    return {name: rows for name, rows in splits.items() if rows}


def _named_labels(split: Any) -> list[Row]:
    names = {column: feature.names for column, feature in split.features.items() if hasattr(feature, "names")}
    rows = [row for row in _rows(split) if all(row[column] is not None and row[column] >= 0 for column in names)]
    return [{**row, **{column: names[column][row[column]] for column in names}} for row in rows]


def _open(hub_id: str, config: str | None, revision: str | None, source: Path | None) -> Any:
    """Every split, as `datasets` gives them: from the folder, from the Hub, or from the cache where the Hub does not answer."""
    from datasets import load_dataset  # noqa: PLC0415 (a second, and only where a dataset is asked for)

    with quiet_datasets():
        if source is not None:
            return _from_folder(hub_id, config, source)
        if not assets.hub_reachable():
            return _from_cache(hub_id, config)
        try:
            return load_dataset(hub_id, config, revision=revision)
        except Exception as err:  # its client has many ways to say no
            raise AssetError(f"The Hub does not give the dataset {hub_id!r} ({_reason(err)}).") from err


def _from_folder(hub_id: str, config: str | None, source: Path) -> Any:
    from datasets import load_dataset  # noqa: PLC0415

    if not source.is_dir():
        raise DataError(f"The source must be a folder laid out as {hub_id} is on the Hub. Got {str(source)!r}.")
    try:
        return load_dataset(str(source), config)
    except Exception as err:  # as many ways as it has readers
        raise DataError(f"The source must be laid out as {hub_id} is on the Hub. {str(source)!r} is not ({_reason(err)}).") from err


def _from_cache(hub_id: str, config: str | None) -> Any:
    """What an earlier fetch left, without the half minute for which its client would ask the Hub again."""
    from datasets.packaged_modules.cache.cache import Cache  # noqa: PLC0415

    try:
        found = Cache(dataset_name=hub_id.split("/")[1], repo_id=hub_id, config_name=config, version="auto", hash="auto")
    except ValueError:
        wanted = f"{hub_id}:{config}" if config else hub_id
        raise AssetError(f"The dataset {wanted!r} is not in the cache, and the Hugging Face Hub does not answer.") from None
    return found.as_dataset()


def _reason(err: BaseException) -> str:
    err = err.__cause__ or err  # `datasets` raises an error of its own over the one that tells
    lines = str(err).strip().splitlines()
    return f"{type(err).__name__}: {lines[0].rstrip('.')}" if lines else type(err).__name__


@contextmanager
def quiet_datasets() -> Iterator[None]:
    """No bars and no warnings while a dataset loads; both come back afterwards."""
    from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars, logging  # noqa: PLC0415

    verbosity, silent = logging.get_verbosity(), are_progress_bars_disabled()
    logging.set_verbosity_error()
    disable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if not silent:
            enable_progress_bars()
