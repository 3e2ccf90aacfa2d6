"""The instant bench: a small ViT that reads upright digits, and the same digits turned, inverted or noised."""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Float, Int
from sklearn.datasets import load_digits
from torch import Tensor
from transformers import PreTrainedModel, ViTConfig, ViTForImageClassification

from lora_lab.assets import DATA_DIR, Notify
from lora_lab.benches.bench import Bench, Defaults, Retention, Split, Splits, halved, shuffled
from lora_lab.benches.quiet import quiet_transformers
from lora_lab.benches.task import Classification

HELD_OUT = 497
_FOLDER = DATA_DIR / "digits-base"
_NOISE_SD = 0.35  # of a grey scale in 0..1


def turned(images: Float[Tensor, "n 1 8 8"]) -> Float[Tensor, "n 1 8 8"]:
    """A quarter turn, counterclockwise."""
    return images.rot90(1, (2, 3))


def inverted(images: Float[Tensor, "n 1 8 8"]) -> Float[Tensor, "n 1 8 8"]:
    """White on black becomes black on white."""
    return 1 - images


def noised(images: Float[Tensor, "n 1 8 8"]) -> Float[Tensor, "n 1 8 8"]:
    """Gaussian noise, the same for every run."""
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    return (images + _NOISE_SD * noise).clamp(0, 1)


VARIANTS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "digits": (turned, "turned by 90°"),
    "digits:inverted": (inverted, "inverted"),
    "digits:noised": (noised, "noised"),
}


@cache
def upright() -> tuple[Float[Tensor, "n 1 8 8"], Int[Tensor, " n"]]:
    """The 1,797 digits of scikit-learn in 0..1, upright, in the order that the split cuts."""
    bunch = load_digits()
    order = shuffled(len(bunch.target))
    images = torch.tensor(bunch.images, dtype=torch.float32)[order, None] / 16
    return images, torch.tensor(bunch.target)[order]


def split(change: Callable[[Tensor], Tensor] = lambda images: images) -> tuple[Split, Split]:
    """(1,300 training digits, 497 held out), changed, then scaled to -1..1. No base or adapter trains on the latter."""
    images, labels = upright()
    whole = Split({"pixel_values": change(images) * 2 - 1, "labels": labels}, Classification(rows_a_batch=128))
    rows = torch.arange(len(whole))
    return whole.take(rows[:-HELD_OUT]), whole.take(rows[-HELD_OUT:])


def base_config() -> ViTConfig:
    """4 layers of width 64 over 16 patches of 2 × 2 pixels: 152,650 parameters."""
    return ViTConfig(
        hidden_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=160,
        image_size=8,
        patch_size=2,
        num_channels=1,
        num_labels=10,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )


class DigitsBench(Bench):
    """The base keeps its own head, frozen: the adapter alone must bend the network back to the new look."""

    def base_folder(self, *, notify: Notify = lambda _: None) -> Path:
        return _FOLDER

    def supplies(self) -> Mapping[str, Path]:
        return {}

    def build(self, *, meta: bool = False) -> PreTrainedModel:
        if meta:
            with torch.device("meta"):
                return ViTForImageClassification(base_config())
        with quiet_transformers():
            model: PreTrainedModel = ViTForImageClassification.from_pretrained(_FOLDER)
        return model

    def splits(self) -> Splits:
        training, held_out = split(VARIANTS[self.name][0])
        return Splits(training, *halved(held_out))

    def label_names(self) -> tuple[str, ...]:
        return tuple(map(str, range(10)))

    def retention(self) -> Retention:
        """The upright digits, of which the test split shows the changed ones."""
        return Retention("accuracy", halved(split()[1])[1])


def digits_bench(name: str) -> DigitsBench:
    """One of the three changes of the digits."""
    return DigitsBench(
        name=name,
        title=name.replace(":", " · "),
        about=f"A 0.15 M-parameter ViT that reads upright handwritten digits meets the same digits {VARIANTS[name][1]}.",
        defaults=Defaults(steps=200, batch_size=32, learning_rate=5e-3, threads=1),
    )
