"""Adapters of a model in memory."""

import json
import os
import shutil
from pathlib import Path

from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import nn

from lora_lab.adapters.adapter import Adapter
from lora_lab.lowrank import LowRank

_STEP = "lora_lab.json"
_PREFIX = "base_model.model."


def from_model(peft_model: nn.Module, *, adapter_name: str = "default") -> Adapter:
    """The LoRA updates of a live PEFT model as they are now, copied off it."""
    modules = {}
    for name, module in peft_model.named_modules():
        if isinstance(module, LoraLayer) and adapter_name in module.lora_A:
            a = module.lora_A[adapter_name].weight.detach().cpu().clone()
            b = module.lora_B[adapter_name].weight.detach().cpu().clone()
            modules[name.removeprefix(_PREFIX)] = LowRank(b, a, float(module.scaling[adapter_name]))
    return Adapter("peft", modules, scaling_source="live model")


def save(peft_model: PeftModel, folder: Path, *, base_name: str, step: int) -> None:
    """Write the adapter as a PEFT folder: a reader sees a whole one or, if this is killed between two renames, none.

    Args:
        peft_model: the model that carries it.
        folder: where to; replaced if it is there.
        base_name: the base that the adapter's config names, a Hub id or a folder.
        step: the optimizer step that the weights stand at, kept beside them.
    """
    fresh = folder.with_name(folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    # PEFT would ask the Hub whether the vocabulary changed, and wait for an answer: no embedding is adapted here.
    peft_model.save_pretrained(str(fresh), save_embedding_layers=False)
    _name_base(fresh / "adapter_config.json", base_name)
    (fresh / _STEP).write_text(json.dumps({"step": step}) + "\n")
    (fresh / "README.md").unlink(missing_ok=True)  # PEFT's empty model card: nothing in it is filled in
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)  # left by a save that was killed here
    if folder.exists():
        os.rename(folder, old)
    os.rename(fresh, folder)
    shutil.rmtree(old, ignore_errors=True)


def saved_step(folder: Path) -> int | None:
    """The optimizer step that a saved adapter stands at; None where there is none, or it was not saved here."""
    try:
        return int(json.loads((folder / _STEP).read_text())["step"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def restore(folder: Path) -> None:
    """Bring back the old folder where `save` was killed between putting it aside and putting the new one in place."""
    old = folder.with_name(folder.name + ".old")
    if old.exists() and not folder.exists():
        os.rename(old, folder)


def _name_base(config_path: Path, base_name: str) -> None:
    config = json.loads(config_path.read_text())
    config["base_model_name_or_path"] = base_name
    config_path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
