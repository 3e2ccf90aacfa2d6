"""Parameter counts in closed form."""

from collections.abc import Iterable

from lora_lab.geometry import Geometry


def lora_params(geometry: Geometry, targets: Iterable[str], *, r: int) -> int:
    """Parameters that LoRA trains: r · (d_in + d_out) over the targeted matrices. A task head is not in it.

    Source: Hu et al. 2021, section 4.1, for matrices of any shape.

    Raises:
        SpecError: a target names no matrix.
    """
    return sum(r * (m.d_in + m.d_out) for m in geometry.targeted(targets))


def head_params(geometry: Geometry, head_modules: Iterable[str]) -> int:
    """Parameters of a task head that is trained in full, its bias included."""
    heads = tuple(head_modules)
    within = tuple(f"{head}." for head in heads)
    inside = [m for m in geometry.matrices if m.name in heads or m.name.startswith(within)]
    return sum(m.d_in * m.d_out + m.bias * m.d_out for m in inside)
