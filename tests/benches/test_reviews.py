"""The reviews bench: sentences with human ratings, and an encoder that has no head for them."""

import hashlib
from collections import Counter

import pytest
import torch
from transformers import AutoTokenizer

from lora_lab.assets import MINILM, MOVIE_REVIEWS, fetch
from lora_lab.benches import Bench, Split, Splits, find_bench
from lora_lab.benches.reviews import labelled
from lora_lab.geometry import Geometry
from lora_lab.live_geometry import read_geometry
from lora_lab.methods import attach_method
from lora_lab.specs import LoraSpec
from lora_lab.training import evaluate

# The file that the model's authors publish: sentence-transformers/all-MiniLM-L6-v2 on the Hub.
OFFICIAL_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@pytest.fixture(scope="module")
def bench() -> Bench:
    return find_bench("reviews")


@pytest.fixture(scope="module")
def geometry(bench: Bench) -> Geometry:
    return bench.geometry()


@pytest.fixture(scope="module")
def splits(bench: Bench) -> Splits:
    return bench.splits()


@pytest.fixture(scope="module")
def pairs() -> list[tuple[str, int]]:
    """(sentence, label) as the bench reads them."""
    return labelled(fetch(MOVIE_REVIEWS) / MOVIE_REVIEWS.files[0].name)


@pytest.fixture(scope="module")
def rated() -> list[tuple[str, float]]:
    """(sentence, mean rating) as the raw file has them."""
    raw = (fetch(MOVIE_REVIEWS) / MOVIE_REVIEWS.files[0].name).read_bytes().decode()
    lines = [line.rstrip("\r").split("\t", 2) for line in raw.split("\n") if line]
    return [(sentence, float(rating)) for _, rating, sentence in lines]


def tokens(split: Split) -> list[tuple[int, ...]]:
    """Each example's token ids, padding left out."""
    ids, mask = split.columns["input_ids"], split.columns["attention_mask"].bool()
    return [tuple(row[kept].tolist()) for row, kept in zip(ids, mask, strict=True)]


def test_neutral_sentences_are_left_out(rated: list[tuple[str, float]], pairs: list[tuple[str, int]]) -> None:
    assert len(rated) == 10_605
    clear = [rating for _, rating in rated if rating < -0.5 or rating > 0.5]
    assert len(pairs) == len(clear) == 10_043


def test_labels_follow_the_ratings(rated: list[tuple[str, float]], pairs: list[tuple[str, int]]) -> None:
    assert Counter(pairs) == Counter((sentence, int(rating > 0.5)) for sentence, rating in rated if abs(rating) > 0.5)


def test_a_thousand_sentences_are_held_out_of_training(splits: Splits) -> None:
    training, validation, test = map(tokens, splits)
    assert len(validation) == len(test) == 500
    assert set(training) & set(validation + test) == set()


def test_the_splits_hold_every_sentence_with_its_label(bench: Bench, pairs: list[tuple[str, int]], splits: Splits) -> None:
    tokenizer = AutoTokenizer.from_pretrained(bench.base_folder())
    ids = tokenizer([sentence for sentence, _ in pairs], truncation=True, max_length=128)["input_ids"]
    expected = {tuple(row): label for row, (_, label) in zip(ids, pairs, strict=True)}
    found = [row for part in splits for row in zip(tokens(part), part.columns["labels"].tolist(), strict=True)]
    assert dict(found) == expected


def test_a_batch_is_cut_to_its_longest_sentence(splits: Splits) -> None:
    held_out = splits[1]
    shortest = held_out.by_length()[:8]
    batch = held_out.batch(shortest)
    assert batch["input_ids"].shape == batch["attention_mask"].shape
    assert batch["attention_mask"].sum(1).max() == batch["input_ids"].shape[1] < held_out.columns["input_ids"].shape[1]


def test_the_encoder_has_six_layers_of_width_384(geometry: Geometry) -> None:
    queries = [m for m in geometry.matrices if m.role == "q"]
    assert [m.layer for m in queries] == list(range(6))
    assert {(m.d_out, m.d_in) for m in queries} == {(384, 384)}
    assert [m.role for m in geometry.block()] == ["q", "k", "v", "o", "up", "down"]


def test_the_geometry_needs_no_weights(bench: Bench, geometry: Geometry) -> None:
    assert geometry == read_geometry(bench.build())


def test_the_weights_are_the_official_ones(bench: Bench) -> None:
    path = bench.base_folder() / "model.safetensors"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == OFFICIAL_SHA256
    assert bench.base_sha256() == OFFICIAL_SHA256
    assert OFFICIAL_SHA256 in {file.sha256 for file in MINILM.files}


def test_a_fresh_head_only_guesses(bench: Bench, splits: Splits) -> None:
    model = attach_method(
        bench.build(),
        LoraSpec(r=1, target_modules=("query",)),
        seed=0,
        head_modules=bench.head_modules(bench.geometry()),
        task_type=bench.task_type,
    )
    some = splits[1].batch(torch.arange(400))
    assert 0.4 < evaluate(model, Split(some)).value < 0.6
