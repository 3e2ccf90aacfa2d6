"""Adapter files and live models <-> factors."""

from lora_lab.adapters.adapter import Adapter
from lora_lab.adapters.live import from_model, restore, save, saved_step
from lora_lab.adapters.peft_format import load_adapter

__all__ = ["Adapter", "from_model", "load_adapter", "restore", "save", "saved_step"]
