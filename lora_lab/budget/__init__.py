"""What a configuration costs, from shapes alone: no model is loaded, nothing is trained."""

from lora_lab.budget.counts import Term, count_terms, head_params, lora_params, method_params
from lora_lab.budget.models import Model, find_model, model_names

__all__ = ["Model", "Term", "count_terms", "find_model", "head_params", "lora_params", "method_params", "model_names"]
