"""Attaching a method to a model. A spec becomes a PEFT config here and nowhere else."""

from lora_lab.methods.lora import attach, trainable_params
from lora_lab.methods.peft_config import from_peft, to_peft

__all__ = ["attach", "from_peft", "to_peft", "trainable_params"]
