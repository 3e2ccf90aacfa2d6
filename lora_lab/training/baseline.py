"""The loop that somebody would write over PEFT and PyTorch: what grouped training is measured against, and held to."""

from collections.abc import Sequence
from pathlib import Path

import torch
from peft import get_peft_model
from torch import nn

from lora_lab.benches import Bench, Splits
from lora_lab.benches.task import on
from lora_lab.live_geometry import read_geometry
from lora_lab.methods import draw_start, to_peft
from lora_lab.specs import RunSpec
from lora_lab.training.begin import batches
from lora_lab.training.devices import pinned_threads
from lora_lab.training.evaluation import Score, evaluate
from lora_lab.training.optimizers import warm_up_and_cosine


def plain_loop(bench: Bench, specs: Sequence[RunSpec], folder: Path, *, threads: int) -> list[Score]:
    """Train LoRA runs one after the other on the CPU, each into a PEFT folder of its own, and score them on the test split.

    A good loop: data read once, fused AdamW, evaluated as often as the specs say, saved once at the end. No events, no spectra,
    no adapters saved on the way, no base scores. It draws start values and batches as the lab does, so that both learn the same.

    Args:
        bench: the bench of all.
        specs: planned runs of `lora` or `rslora`.
        folder: an existing folder.
        threads: that torch computes on.
    """
    with pinned_threads(threads):
        splits = bench.splits()
        return [_one(bench, splits, spec, folder / spec.run_id) for spec in specs]


def _one(bench: Bench, splits: Splits, spec: RunSpec, folder: Path) -> Score:
    base = bench.build()
    heads = bench.head_modules(read_geometry(base))
    model: nn.Module = get_peft_model(base, to_peft(spec.tuning, task_type=bench.task_type, modules_to_save=heads))
    draw_start(model, spec.tuning, seed=spec.seed, heads=heads)
    model.eval()  # these runs drop nothing
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=spec.learning_rate, weight_decay=spec.weight_decay, fused=True)
    schedule = warm_up_and_cosine(optimizer, warmup_steps=spec.warmup_steps, steps=spec.steps)
    device = torch.device("cpu")
    for step, batch in enumerate(batches(splits.train, spec.batch_size, steps=spec.steps, seed=spec.seed), 1):
        loss = model(**on(device, batch)).loss
        loss.backward()
        nn.utils.clip_grad_norm_(trained, spec.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % spec.eval_every_steps == 0 or step == spec.steps:
            evaluate(model, splits.validation)
    model.save_pretrained(str(folder), save_embedding_layers=False)  # type: ignore[operator]
    return evaluate(model, splits.test)
