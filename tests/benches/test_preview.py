"""A preview shows rows as the model will read them and counts lengths as its tokenizer does."""

import csv
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from lora_lab.benches import Bench, find_bench
from lora_lab.benches import preview as of_preview
from lora_lab.benches.examples import Completion, Labelled, TextData
from lora_lab.benches.preview import BINS, bin_edges, preview, preview_of
from lora_lab.errors import DataError
from lora_lab.specs import DataSpec


def words(rows: Sequence[Labelled | Completion]) -> list[int]:
    """A tokenizer that takes a word for a token."""
    read = [f"{row.text} {row.pair or ''}" if isinstance(row, Labelled) else f"{row.prompt} {row.completion}" for row in rows]
    return [len(text.split()) for text in read]


TEXTS = ("one", "one two", "one two three", "one two three four", "one two", "one")
CLASSES = TextData(
    "classification",
    "accuracy",
    train=tuple(Labelled(text, i % 3) for i, text in enumerate(TEXTS[:5])),
    validation=(Labelled("a", 0),),
    test=(Labelled("b", 1), Labelled("c", 2)),
    label_names=("bad", "good", "mixed", "never"),
)


def test_a_classification_is_shown_with_its_labels() -> None:
    seen = preview(CLASSES, words, max_tokens=2, rows=2)
    assert (seen.task, seen.metric, seen.train_rows, seen.validation_rows, seen.test_rows) == (
        "classification",
        "accuracy",
        5,
        1,
        2,
    )
    assert seen.examples == (("one", "bad"), ("one two", "good"))
    assert seen.label_counts == (("bad", 2), ("good", 2), ("mixed", 1), ("never", 0))


def test_lengths_are_counted_over_the_training_rows() -> None:
    seen = preview(CLASSES, words, max_tokens=2)
    assert seen.edges_tokens == (0, 1, 2, 3, 4, 5)
    assert seen.bin_counts == (0, 1, 2, 1, 1)  # lengths 1, 2, 3, 4, 2
    assert (seen.longest_tokens, seen.mean_tokens, seen.max_tokens, seen.cut_rows) == (4, 2.4, 2, 2)
    assert preview(CLASSES, words, max_tokens=3).cut_rows == 1
    assert preview(CLASSES, words, max_tokens=4).cut_rows == 0


def test_a_pair_is_read_whole_and_counted_whole() -> None:
    rows = (Labelled("one two", 1, "three"), Labelled("one", 0, "two three four"))
    seen = preview(TextData("classification", "accuracy", rows, rows, rows, ("no", "yes")), words, max_tokens=3)
    assert seen.examples == (("one two\nthree", "yes"), ("one\ntwo three four", "no"))
    assert (seen.longest_tokens, seen.mean_tokens, seen.cut_rows) == (4, 3.5, 1)


def test_a_number_is_shown_as_it_is() -> None:
    rows = (Labelled("a", 2.5), Labelled("b", 0.0))
    seen = preview(TextData("regression", "pearson", rows, rows, rows), words, max_tokens=9)
    assert seen.examples == (("a", "2.5"), ("b", "0.0"))
    assert seen.label_counts == ()


def test_a_completion_is_counted_with_its_prompt() -> None:
    rows = (Completion("say it: ", "it is so"), Completion("", "plain text"))
    seen = preview(TextData("completion", "bleu", rows, rows, rows), words, max_tokens=4)
    assert seen.examples == (("say it: ", "it is so"), ("", "plain text"))
    assert (seen.longest_tokens, seen.mean_tokens, seen.cut_rows) == (5, 3.5, 1)


@pytest.mark.parametrize("longest", [0, 1, 19, 20, 21, 39, 40, 1000, 4096])
def test_bins_are_few_and_hold_the_longest(longest: int) -> None:
    edges = bin_edges(longest)
    assert 1 <= len(edges) - 1 <= BINS
    assert edges[0] == 0
    assert edges[-2] <= longest < edges[-1]
    assert len({upper - lower for lower, upper in pairwise(edges)}) == 1


def test_the_bins_hold_every_row_once() -> None:
    rows = tuple(Completion("", "w " * n) for n in range(1, 101))
    seen = preview(TextData("completion", "", rows, rows, rows), words, max_tokens=50)
    assert sum(seen.bin_counts) == 100
    assert seen.edges_tokens[:3] == (0, 6, 12)
    assert seen.bin_counts[:2] == (5, 6)  # 1 to 5, 6 to 11
    assert seen.cut_rows == 50


def test_of_many_rows_the_first_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_preview, "MOST_COUNTED", 3)
    seen = preview(CLASSES, words, max_tokens=2)
    assert (seen.train_rows, seen.counted_rows, sum(seen.bin_counts)) == (5, 3, 3)
    assert (seen.longest_tokens, seen.mean_tokens, seen.cut_rows) == (3, 2.0, 1)
    assert sum(n for _, n in seen.label_counts) == 5


def test_plain_text_is_told_from_completions() -> None:
    rows = (Completion("", "plain"),)
    assert preview(TextData("completion", "", rows, rows, rows), words, max_tokens=4).task == "text"
    assert preview(TextData("completion", "bleu", rows, rows, rows), words, max_tokens=4).task == "completion"


# Of a bench: the lengths told are the lengths trained on


def lengths_trained_on(bench: Bench) -> Counter[int]:
    return Counter(bench.splits().train.columns["attention_mask"].sum(1).tolist())


def lengths_told(bench: Bench) -> Counter[int]:
    """Every length once more, from the bins of width one that short rows have."""
    seen = preview_of(bench)
    assert seen.edges_tokens[1] == 1
    return Counter({low: n for low, n in zip(seen.edges_tokens, seen.bin_counts, strict=False) if n})


def write(path: Path, *rows: dict[str, str]) -> DataSpec:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return DataSpec(path=str(path))


def test_a_classifiers_rows_are_counted_as_they_are_trained_on(tiny_base: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "a.csv", *({"text": "word1 is good " * (i % 4 + 1), "label": str(i % 2)} for i in range(20)))
    bench = find_bench(str(tiny_base), data)
    assert lengths_told(bench) == lengths_trained_on(bench)
    seen = preview_of(bench)
    assert (seen.train_rows, seen.counted_rows, seen.max_tokens, seen.cut_rows) == (16, 16, 128, 0)


def test_pairs_are_counted_as_they_are_trained_on(tiny_base: Path, tmp_path: Path) -> None:
    rows = ({"text": "good " * (i % 3 + 1), "other": "bad is bad", "label": str(i % 2)} for i in range(20))
    data = write(tmp_path / "a.csv", *rows)
    bench = find_bench(str(tiny_base), DataSpec(path=data.path, pair_column="other"))
    assert lengths_told(bench) == lengths_trained_on(bench)
    assert set(lengths_told(bench)) == {4, 5, 6}


def test_completions_are_counted_with_their_end_of_text(tiny_writer: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "a.csv", *({"prompt": "say good " * (i % 3), "completion": "it is good"} for i in range(20)))
    with pytest.raises(DataError, match="prompt column must be filled"):
        find_bench(str(tiny_writer), data)
    data = write(tmp_path / "a.csv", *({"prompt": "say good " * (i % 3 + 1), "completion": "it is good"} for i in range(20)))
    bench = find_bench(str(tiny_writer), data)
    assert lengths_told(bench) == lengths_trained_on(bench)
    assert set(lengths_told(bench)) == {6, 8, 10}
    assert preview_of(bench).max_tokens == 512


def test_rows_that_are_cut_are_counted_whole(tiny_base: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "a.csv", *({"text": "good " * (200 if i % 2 else 100), "label": str(i % 2)} for i in range(20)))
    bench = find_bench(str(tiny_base), data)
    seen = preview_of(bench)
    assert seen.longest_tokens == 200
    assert seen.cut_rows == lengths_trained_on(bench)[128]
    assert max(lengths_trained_on(bench)) == 128


@pytest.mark.parametrize("name", ["reviews", "e2e", "sql"])
def test_a_bench_of_the_lab_shows_the_rows_that_it_trains_on(name: str) -> None:
    bench = find_bench(name)
    data, splits, seen = bench.text_data(), bench.splits(), preview_of(bench, rows=2)
    assert data is not None
    assert [seen.train_rows, seen.validation_rows, seen.test_rows] == [len(split) for split in splits]
    lengths = splits.train.columns["attention_mask"].sum(1).tolist()[: seen.counted_rows]
    assert seen.mean_tokens == sum(lengths) / len(lengths)
    assert seen.longest_tokens == max(lengths)
    if name == "reviews":
        for rows, split in zip((data.train, data.validation, data.test), splits, strict=True):
            assert [row.label for row in rows] == split.columns["labels"].tolist()
        assert seen.label_counts == (("panning", 4566), ("praise", 4476))


def test_pictures_have_no_preview() -> None:
    assert find_bench("digits").text_data() is None
    with pytest.raises(DataError, match=r"^A preview must be of a task of text\. The data of the bench digits are pictures\.$"):
        preview_of(find_bench("digits"))


def test_a_base_without_a_tokenizer_is_one_sentence(tiny_base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "base"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes((tiny_base / name).read_bytes())
    data = write(tmp_path / "a.csv", *({"text": "good", "label": str(i % 2)} for i in range(20)))
    with pytest.raises(DataError, match="folder with a tokenizer") as caught:
        preview_of(find_bench(str(folder), data))
    assert len(str(caught.value).splitlines()) == 1
