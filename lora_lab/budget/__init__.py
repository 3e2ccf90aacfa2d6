"""What a configuration costs, from shapes alone: no model is loaded, nothing is trained."""

from lora_lab.budget.counts import lora_params

__all__ = ["lora_params"]
