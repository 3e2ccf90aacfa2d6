"""The loop that yields events, and what it needs: a plan, a device, a score."""

from lora_lab.training.devices import pick_device, threads_for
from lora_lab.training.evaluation import Score, evaluate
from lora_lab.training.loop import train_events
from lora_lab.training.planning import plan_run

__all__ = ["Score", "evaluate", "pick_device", "plan_run", "threads_for", "train_events"]
