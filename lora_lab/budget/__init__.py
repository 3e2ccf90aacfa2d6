"""What a configuration costs, from shapes alone: no model is loaded, nothing is trained.

The package is also the function of its name: `lora_lab.budget("llama-3.2-3b", LoraSpec(r=32))`.
"""

import sys
from types import ModuleType
from typing import Any

from lora_lab.budget.budget import Budget, budget, budget_of_config, suited_quant
from lora_lab.budget.cards import Card, cards, find_card
from lora_lab.budget.counts import Term, count_terms, head_params, lora_params, method_params
from lora_lab.budget.equal_budget import EqualChoice, equal_choice, r_for_params, ranks_for_params
from lora_lab.budget.ledger import PARTS, Ledger
from lora_lab.budget.models import Model, find_model, model_names
from lora_lab.budget.paper import paper_figures
from lora_lab.budget.sentences import remedy_sentence
from lora_lab.budget.solver import (
    Remedy,
    cheapest_change,
    equal_lines,
    grid,
    max_batch,
    max_r,
    max_seq,
    most_that_fits,
    versus,
)

__all__ = [
    "PARTS",
    "Budget",
    "Card",
    "EqualChoice",
    "Ledger",
    "Model",
    "Remedy",
    "Term",
    "budget",
    "budget_of_config",
    "cards",
    "cheapest_change",
    "count_terms",
    "equal_choice",
    "equal_lines",
    "find_card",
    "find_model",
    "grid",
    "head_params",
    "lora_params",
    "max_batch",
    "max_r",
    "max_seq",
    "method_params",
    "model_names",
    "most_that_fits",
    "paper_figures",
    "r_for_params",
    "ranks_for_params",
    "remedy_sentence",
    "suited_quant",
    "versus",
]


class _Callable(ModuleType):
    """`ll.budget(...)` is the public function, and importing a module of this package must not take it away."""

    def __call__(self, *args: Any, **kwargs: Any) -> Budget:
        return budget(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
