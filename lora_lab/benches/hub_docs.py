"""`python -m lora_lab.benches.hub_docs`: the datasets that have a name here, as a page.

It writes `docs/data.md`, from `HUB_DATASETS` alone.
"""

from lora_lab.assets import DATA_DIR
from lora_lab.benches.hub_data import HUB_DATASETS, HubDataset, fetch_command

DATA_MD = DATA_DIR.parent / "docs" / "data.md"

_METRIC_NAMES = {
    "accuracy": "accuracy",
    "matthews": "Matthews' correlation",
    "pearson": "Pearson's correlation",
    "bleu": "BLEU",
    "rouge_l": "ROUGE-L",
    "execution_accuracy": "same answer from SQLite",
}

_HEAD = """# Data

Written by `python -m lora_lab.benches.hub_docs`.

## Datasets by name

Each is fetched from the Hugging Face Hub, once, by `datasets`, and kept in its cache. The machine that the project is
tested on has no way to the Hub: there, files of the same layout, columns and types stand in for the real ones, with a few
rows of invented text. The commands are what fetches the real ones and trains on them.

| name | what it is | on the Hub | train | validation | test | metric | command |
|---|---|---|---|---|---|---|---|
"""

_TAIL = """
- *cut from train*: a tenth of the train split, a thousand rows at most, taken by a shuffle that is always the same.
- The labels of GLUE's own test splits are hidden, and MultiNLI has none: they are tested on the validation split, as in the
  LoRA paper. MNLI's is the matched one; the paper's figure is of matched and mismatched together.
- `refs/convert/parquet` is the branch on which the Hub keeps Parquet files of a repository that is a script.
- E2E NLG: a set of facts has several texts by people. Every one is trained on; in validation and test they are the
  references of one row.
- WikiSQL: texts are compared in lower case, as its own evaluation does.
- SAMSum is under CC BY-NC-ND 4.0: not for commercial use.

## Your own

`--data` also takes a CSV or JSONL file, or the id of any dataset of the Hub that is not a script (`owner/name`, or
`owner/name:config`). The columns tell the task:

| columns | task | metric |
|---|---|---|
| `prompt` and `completion` | completion | BLEU |
| `text` and `label` | classification | accuracy |
| `text` alone | plain text | the loss alone |

Labels that are numbers to be predicted are told by naming the task: `regression`, whose metric is Pearson's correlation.
Of a file a tenth is held out for validation and a tenth for testing, at least one row each; it must have at least ten. A
dataset of the Hub keeps its own splits. Where it holds out but one, that is the test, and validation is cut from train; where
it holds out none, it is cut as a file is.
"""


def as_markdown() -> str:
    """The page."""
    return _HEAD + "".join(map(_row, HUB_DATASETS.values())) + _TAIL


def _row(dataset: HubDataset) -> str:
    place = f"[{dataset.hub_id}](https://huggingface.co/datasets/{dataset.hub_id})"
    place += f", `{dataset.config}`" if dataset.config else ""
    place += f", branch `{dataset.revision}`" if dataset.revision else ""
    splits = (dataset.splits[ours] or "cut from train" for ours in ("train", "validation", "test"))
    metric = _METRIC_NAMES[dataset.metric]
    cells = (f"`{dataset.name}`", dataset.about, place, *splits, metric, f"`{fetch_command(dataset.name)}`")
    return f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    DATA_MD.write_text(as_markdown(), encoding="utf-8")
