"""W, ΔW and their sum as pictures of a bounded size, with ΔW cut to its strongest directions."""

from math import ceil

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d

from lora_lab.analysis.base_matrix import base_matrix
from lora_lab.analysis.base_records import Cells, MergedMatrix
from lora_lab.errors import SpecError, out_of_range
from lora_lab.lowrank import LowRank


def merged_matrix(
    name: str, delta: LowRank, w: Float[Tensor, "d_out d_in"], *, kept: int | None = None, most_cells: int = 256
) -> MergedMatrix:
    """W, the best part of rank `kept` of ΔW, and their sum, cell by cell; of a larger matrix in means of equal blocks.

    Args:
        name: of the matrix.
        delta: the update.
        w: the matrix that it changes.
        kept: how many of its strongest directions; None for all, 0 for none.
        most_cells: a side of the picture.

    Raises:
        AdapterError: ΔW and W have different shapes.
        SpecError: kept is not in 0..the numerical rank of ΔW.
    """
    w = base_matrix(name, delta, w)
    block = ceil(w.shape[0] / most_cells), ceil(w.shape[1] / most_cells)
    return _merged(name, delta, _means(w, block), block, delta.numerical_rank if kept is None else kept)


def with_kept(one: MergedMatrix, delta: LowRank, kept: int) -> MergedMatrix:
    """The same picture with another part of the same ΔW, without going through W again.

    Raises:
        SpecError: as of `merged_matrix`.
    """
    return _merged(one.name, delta, torch.tensor(one.base, dtype=torch.float64), one.block, kept)


def _merged(name: str, delta: LowRank, base: Tensor, block: tuple[int, int], kept: int) -> MergedMatrix:
    rank = delta.numerical_rank
    if not 0 <= kept <= rank:
        raise SpecError(out_of_range("kept", "merged_matrix", f"an int in 0..{rank}", kept))
    part = delta.truncated(kept) if kept else None
    change = torch.zeros_like(base) if part is None else _low_rank_means(part, block)
    return MergedMatrix(
        name=name,
        shape=delta.shape,
        rank=rank,
        kept=kept,
        norm_share=(part.frobenius() if part else 0.0) / delta.frobenius() if rank else None,
        block=block,
        base=_cells(base),
        delta=_cells(change),
        merged=_cells(base + change),
    )


def _means(x: Float[Tensor, "d_out d_in"], block: tuple[int, int]) -> Tensor:
    """Mean of every block, those at the far edges of what is left for them."""
    return avg_pool2d(x[None], block, ceil_mode=True)[0]


def _low_rank_means(delta: LowRank, block: tuple[int, int]) -> Tensor:
    """The same of B A, which is the product of the means of its factors: ΔW is never built."""
    b, a = _means(delta.lora_b, (block[0], 1)), _means(delta.lora_a, (1, block[1]))
    return delta.scaling * (b @ a)


def _cells(x: Tensor) -> Cells:
    return tuple(map(tuple, x.tolist()))
