"""ZeroGPU: the same sweep, inline inside the decorated function, which Spaces runs where the GPU is."""

import os
from collections.abc import Generator, Sequence

import spaces

from lora_lab.specs import RunSpec
from lora_lab.sweeps import RunStore, sweep_events
from lora_lab.sweeps.runners import Tagged

_SECONDS_A_STEP, _SECONDS_A_RUN, _MOST_S = 0.1, 8, 300


def runs_inline() -> bool:
    """Whether this is a ZeroGPU Space, whose GPU is there only inside a decorated call."""
    return os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "true")


def duration_s(specs: Sequence[RunSpec], root: str, device: str | None) -> int:
    """How long to ask the GPU for; ZeroGPU calls it with the decorated function's own arguments."""
    return min(_MOST_S, round(sum(_SECONDS_A_RUN + _SECONDS_A_STEP * spec.steps for spec in specs)))


@spaces.GPU(duration=duration_s)
def zero_events(specs: Sequence[RunSpec], root: str, device: str | None) -> Generator[Tagged, None, None]:
    """`sweep_events` in this process; off ZeroGPU the decorator changes nothing."""
    yield from sweep_events(specs, RunStore(root), runner="inline", device=device)
