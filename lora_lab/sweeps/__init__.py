"""Grid -> runs: the store that keeps them, the runners that train them, the job that a page watches."""

from lora_lab.sweeps.api import Sweep, sweep, train
from lora_lab.sweeps.grid import expand
from lora_lab.sweeps.jobs import Job
from lora_lab.sweeps.memory import RunMemory, memory_of
from lora_lab.sweeps.progress import RunProgress
from lora_lab.sweeps.run import Run
from lora_lab.sweeps.runners import RUNNERS, sweep_events, warm_up
from lora_lab.sweeps.store import RunStore
from lora_lab.sweeps.worker import record_run

__all__ = [
    "RUNNERS",
    "Job",
    "Run",
    "RunMemory",
    "RunProgress",
    "RunStore",
    "Sweep",
    "expand",
    "memory_of",
    "record_run",
    "sweep",
    "sweep_events",
    "train",
    "warm_up",
]
