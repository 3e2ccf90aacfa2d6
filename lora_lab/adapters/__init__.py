"""Adapter files and live models <-> factors."""

from lora_lab.adapters.adapter import Adapter
from lora_lab.adapters.folders import restore, saved_step
from lora_lab.adapters.live import VIRTUAL_TOKENS, from_model, moved_by, save, save_initial
from lora_lab.adapters.load import load_adapter
from lora_lab.adapters.own_format import load_trained, save_trained

__all__ = [
    "VIRTUAL_TOKENS",
    "Adapter",
    "from_model",
    "load_adapter",
    "load_trained",
    "moved_by",
    "restore",
    "save",
    "save_initial",
    "save_trained",
    "saved_step",
]
