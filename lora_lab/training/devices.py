"""CUDA, MPS or CPU, whichever there is."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from joblib import cpu_count

from lora_lab.errors import SpecError, out_of_range


def pick_device(wanted: str | None = None) -> torch.device:
    """The device asked for, or the best one there is.

    Raises:
        SpecError: no device of that name on this machine.
    """
    found = [kind for kind, there in (("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available())) if there]
    allowed = [*found, "cpu"]
    if wanted is None:
        return torch.device(allowed[0])
    try:
        device = torch.device(wanted)
    except RuntimeError:
        device = None
    if device is None or device.type not in allowed:
        raise SpecError(out_of_range("device", "training", f"one of {', '.join(allowed)} on this machine", wanted))
    return device


def precision_on(device: torch.device) -> str:
    """`bf16` where a GPU computes it, else `fp32`."""
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"


def compute_dtype_on(device: torch.device) -> torch.dtype:
    """In which a base in NF4 multiplies."""
    return torch.bfloat16 if precision_on(device) == "bf16" else torch.float32


def autocast(device: torch.device) -> AbstractContextManager[object]:
    """bf16 autocast on GPUs that have it, nothing elsewhere. Weights and adapter stay fp32."""
    if precision_on(device) == "bf16":
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()


def seeded(device: torch.device, seed: int) -> AbstractContextManager[None]:
    """A block whose random numbers (dropout) come from `seed` alone and leave the global stream untouched."""
    devices = [] if device.type == "cpu" else [device.index or 0]
    return _SeededBlock(devices, device.type if device.type != "cpu" else "cuda", seed)


class _SeededBlock(AbstractContextManager[None]):
    def __init__(self, devices: list[int], device_type: str, seed: int) -> None:
        self._fork = torch.random.fork_rng(devices=devices, device_type=device_type)
        self._seed = seed

    def __enter__(self) -> None:
        self._fork.__enter__()
        torch.manual_seed(self._seed)

    def __exit__(self, *exc: object) -> None:
        self._fork.__exit__(None, None, None)


def threads_for(bench_threads: int | None) -> int:
    """CPU threads of one run: what its bench says, else every core that this process may use.

    A run's rounding must not depend on its company.
    """
    return bench_threads or cpu_count()


@contextmanager
def pinned_threads(count: int) -> Iterator[None]:
    """A block in which torch computes on so many threads of this process."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def reset_peak_memory(device: torch.device) -> None:
    """Start counting the peak anew, where the device counts."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_bytes(device: torch.device) -> int | None:
    """The most bytes that torch's allocator had given to tensors since the reset; None where nobody counts."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def peak_reserved_bytes(device: torch.device) -> int | None:
    """The most bytes that torch's allocator held on the card since the reset, in use or not; None where nobody counts."""
    return torch.cuda.max_memory_reserved(device) if device.type == "cuda" else None
