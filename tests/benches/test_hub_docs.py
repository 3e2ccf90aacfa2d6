"""The page of data is what the module writes now, and names every dataset once."""

from lora_lab.benches.hub_data import HUB_DATASETS, fetch_command
from lora_lab.benches.hub_docs import DATA_MD, as_markdown

PAGE = DATA_MD.read_text(encoding="utf-8")


def table() -> list[list[str]]:
    """The cells of the first table, its head and rule left out."""
    lines = PAGE.split("\n\n")[4].splitlines()[2:]
    return [line.removeprefix("| ").removesuffix(" |").split(" | ") for line in lines]


def test_the_committed_page_is_what_the_module_writes_now() -> None:
    assert as_markdown() == PAGE


def test_every_dataset_has_a_row_with_its_place_and_its_command() -> None:
    assert [row[0] for row in table()] == [f"`{name}`" for name in HUB_DATASETS]
    for row in table():
        dataset = HUB_DATASETS[row[0].strip("`")]
        assert len(row) == 8
        assert f"https://huggingface.co/datasets/{dataset.hub_id})" in row[2]
        assert ("branch" in row[2]) == (dataset.revision is not None)
        assert row[7] == f"`{fetch_command(dataset.name)}`"


def test_the_row_of_sst2_reads_as_written_here() -> None:
    (row,) = [row for row in table() if row[0] == "`glue:sst2`"]
    assert row[2:7] == [
        "[nyu-mll/glue](https://huggingface.co/datasets/nyu-mll/glue), `sst2`",
        "train",
        "cut from train",
        "validation",
        "accuracy",
    ]
