"""Movie reviews: all-MiniLM-L6-v2 told to say whether a sentence praises or pans."""

from pathlib import Path

import torch
from transformers import PreTrainedModel

from lora_lab.assets import MINILM, MOVIE_REVIEWS, Notify, fetch
from lora_lab.benches.bench import Bench, Defaults, Retention, Splits, halved, shuffled
from lora_lab.benches.examples import Labelled
from lora_lab.benches.task import Classification
from lora_lab.benches.text import classifier, tokenised

HELD_OUT = 1000
NEUTRAL = 0.5  # mean ratings from -0.5 to 0.5 are left out


def labelled(path: Path) -> list[tuple[str, int]]:
    """(sentence, 1 for praise or 0 for panning) from lines of id, mean rating in -4..4, sentence; in a fixed shuffle."""
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").split("\n") if line]
    pairs = [(sentence, int(float(rating) > 0)) for _, rating, sentence in rows if abs(float(rating)) > NEUTRAL]
    return [pairs[i] for i in shuffled(len(pairs)).tolist()]


class ReviewsBench(Bench):
    """The base has no head for this task: one is trained in full beside the adapter."""

    base_name = MINILM.hub_id

    def base_folder(self, *, notify: Notify = lambda _: None) -> Path:
        return fetch(MINILM, notify=notify)

    def prepare(self, *, notify: Notify = lambda _: None) -> None:
        super().prepare(notify=notify)
        fetch(MOVIE_REVIEWS, notify=notify)

    def build(self, *, meta: bool = False) -> PreTrainedModel:
        return classifier(self.base_folder(), num_labels=2, meta=meta)

    def splits(self) -> Splits:
        pairs = labelled(fetch(MOVIE_REVIEWS) / MOVIE_REVIEWS.files[0].name)
        split = tokenised(self.base_folder(), [Labelled(sentence, label) for sentence, label in pairs], Classification())
        rows = torch.arange(len(split))
        held_out = split.take(rows[-HELD_OUT:])
        seen = {tuple(row) for row in held_out.columns["input_ids"].tolist()}
        fresh = [tuple(row) not in seen for row in split.columns["input_ids"].tolist()]  # some sentences come twice
        return Splits(split.take(rows[torch.tensor(fresh)]), *halved(held_out))

    def label_names(self) -> tuple[str, ...]:
        return "negative", "positive"

    def retention(self) -> Retention:
        """MiniLM gives sentences their embeddings: how far those of 200 held-out sentences move."""
        test = self.splits().test
        return Retention("cosine", test.take(torch.arange(200)))


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
