"""Attaching a method to a model. A spec becomes a PEFT config here and nowhere else."""

from lora_lab.methods.attach_method import attach_method
from lora_lab.methods.config_file import attach_config
from lora_lab.methods.lora import attach, trainable_params
from lora_lab.methods.method_config import method_config
from lora_lab.methods.peft_config import from_peft, to_peft

__all__ = ["attach", "attach_config", "attach_method", "from_peft", "method_config", "to_peft", "trainable_params"]
