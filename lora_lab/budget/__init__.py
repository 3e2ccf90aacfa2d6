"""What a configuration costs, from shapes alone: no model is loaded, nothing is trained."""

from lora_lab.budget.counts import head_params, lora_params

__all__ = ["head_params", "lora_params"]
