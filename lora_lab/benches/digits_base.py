"""Train the base of the digits bench: `python -m lora_lab.benches.digits_base [FOLDER]`, about a minute on 2 cores.

Writes config.json, model.safetensors and training.json (seed, steps, accuracy on the upright held-out digits).
"""

import json
import sys
from pathlib import Path

import torch
from torch.nn.functional import pad
from transformers import ViTForImageClassification, get_cosine_schedule_with_warmup

from lora_lab.assets import DATA_DIR
from lora_lab.benches.bench import Split
from lora_lab.benches.digits import base_config, split

SEED, STEPS, BATCH, LEARNING_RATE, WEIGHT_DECAY = 0, 2500, 64, 2e-3, 0.05


def shifted(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Each image moved by up to one pixel in both directions: 1,300 digits are few."""
    padded = pad(images, (1, 1, 1, 1), value=-1.0)
    rows, columns = torch.randint(0, 3, (2, len(images)), generator=generator)
    grid = torch.arange(8)
    index = torch.arange(len(images))[:, None, None]
    return padded[index, 0, (rows[:, None] + grid)[:, :, None], (columns[:, None] + grid)[:, None, :]][:, None]


def train() -> ViTForImageClassification:
    """The base, from its seed."""
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    model, (training, _) = ViTForImageClassification(base_config()), split()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = get_cosine_schedule_with_warmup(optimizer, STEPS // 20, STEPS)
    for _ in range(STEPS):
        batch = training.batch(torch.randint(0, len(training), (BATCH,), generator=generator))
        batch["pixel_values"] = shifted(batch["pixel_values"], generator)
        model(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return model.eval()


@torch.no_grad()
def accuracy(model: ViTForImageClassification, held_out: Split) -> float:
    """The share of the held-out digits that the model names."""
    logits = model(pixel_values=held_out.columns["pixel_values"]).logits
    return float((logits.argmax(1) == held_out.columns["labels"]).float().mean())


def main(folder: Path) -> None:
    """Train, measure, write."""
    model = train()
    model.save_pretrained(folder)
    facts = {"seed": SEED, "steps": STEPS, "batch_size": BATCH, "accuracy_upright": accuracy(model, split()[1])}
    (folder / "training.json").write_text(json.dumps(facts, indent=1) + "\n")
    sys.stdout.write(json.dumps(facts) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else DATA_DIR / "digits-base")
