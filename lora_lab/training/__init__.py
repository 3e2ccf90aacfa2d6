"""The loop that yields events, and what it needs: a plan, a device, a score."""

from lora_lab.training.base_gradients import base_gradients
from lora_lab.training.devices import pick_device, threads_for
from lora_lab.training.evaluation import Score, evaluate
from lora_lab.training.gradients import chain_rule, first_gradients, gradient_norms
from lora_lab.training.grouped import may_share, sharing_key
from lora_lab.training.loop import group_events, train_events
from lora_lab.training.planning import methods_for, plan_run
from lora_lab.training.reach import reach

__all__ = [
    "Score",
    "base_gradients",
    "chain_rule",
    "evaluate",
    "first_gradients",
    "gradient_norms",
    "group_events",
    "may_share",
    "methods_for",
    "pick_device",
    "plan_run",
    "reach",
    "sharing_key",
    "threads_for",
    "train_events",
]
