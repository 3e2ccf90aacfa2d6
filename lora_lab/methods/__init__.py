"""Attaching a method to a model. A spec becomes a PEFT config here and nowhere else."""

from lora_lab.methods.attach_method import attach_method, beneath, quiet_peft
from lora_lab.methods.config_file import attach_config
from lora_lab.methods.method_config import method_config
from lora_lab.methods.peft_config import from_peft, to_peft
from lora_lab.methods.quantize import quantize
from lora_lab.methods.refusals import refuse_unfit
from lora_lab.methods.start import draw_start
from lora_lab.methods.trainable import trainable_params

__all__ = [
    "attach_config",
    "attach_method",
    "beneath",
    "draw_start",
    "from_peft",
    "method_config",
    "quantize",
    "quiet_peft",
    "refuse_unfit",
    "to_peft",
    "trainable_params",
]
