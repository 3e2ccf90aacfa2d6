"""LoRA through PEFT, with an initialisation that depends on (seed, r, module) and on nothing else."""

import hashlib
import math
import warnings
from collections.abc import Iterable

import torch
from peft import PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import nn

from lora_lab.live_geometry import read_geometry
from lora_lab.methods.peft_config import to_peft
from lora_lab.specs import ALL_LINEAR, LoraSpec


def attach(
    model: nn.Module,
    spec: LoraSpec,
    *,
    seed: int,
    head_modules: Iterable[str] = (),
    task_type: str | None = None,
) -> PeftModel:
    """The model with LoRA on it, ΔW = 0. PEFT changes `model` in place: give a fresh one.

    Args:
        model: a base on the CPU.
        spec: the adapter, its targets resolved.
        seed: keys the start values of A and of the head.
        head_modules: modules trained and saved in full, drawn anew from the seed.
        task_type: PEFT's name of the task, for the adapter's config file.
    """
    config = to_peft(spec, task_type=task_type, modules_to_save=head_modules)
    if config.target_modules == ALL_LINEAR:  # PEFT would adapt a head that is to stay frozen
        config.target_modules = {m.name for m in read_geometry(model).matching(ALL_LINEAR)}
    # PEFT draws start values too, which are drawn anew below: the global random stream stays as it was. And it still asks
    # transformers by a name that is deprecated there.
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
        peft_model: PeftModel = get_peft_model(model, config)
    _initialise_a(peft_model, seed=seed, r=spec.r)
    for name in head_modules:
        _initialise_head(peft_model, name, seed=seed)
    return peft_model


def trainable_params(peft_model: nn.Module) -> tuple[int, int]:
    """(all that PEFT trains, the part of it that is a task head)."""
    trained = [(name, p.numel()) for name, p in peft_model.named_parameters() if p.requires_grad]
    return sum(n for _, n in trained), sum(n for name, n in trained if "modules_to_save" in name)


def _generator(*key: object) -> torch.Generator:
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest) >> 1)


def _initialise_a(peft_model: nn.Module, *, seed: int, r: int) -> None:
    """PEFT's own distribution, one random stream a module: with a shared one the A of r = 8 would be rows of that of
    r = 64, and their overlap an artefact."""
    for name, module in peft_model.named_modules():
        if isinstance(module, LoraLayer):
            for linear in module.lora_A.values():
                generator = _generator("lora_a", seed, r, name)
                nn.init.kaiming_uniform_(linear.weight, a=math.sqrt(5), generator=generator)


def _initialise_head(peft_model: nn.Module, head: str, *, seed: int) -> None:
    """The linear maps of a head as transformers draws them: normal with sd 0.02, bias 0; the same for every r."""
    for name, module in peft_model.named_modules():
        if f"{head}.modules_to_save" in name and isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02, generator=_generator("head", seed, name))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
