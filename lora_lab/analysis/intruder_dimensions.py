"""Does W + ΔW have strong directions that W had not?"""

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor

from lora_lab.analysis.base_matrix import NamedWeights, base_matrix
from lora_lab.analysis.base_records import Intruders
from lora_lab.analysis.base_spectra import BaseSpectrum, base_spectrum
from lora_lab.errors import SpecError, out_of_range
from lora_lab.lowrank import LowRank


def intruders(
    adapter: Mapping[str, LowRank], base: NamedWeights, *, k: int = 10, threshold: float = 0.5, against: int | None = None
) -> tuple[Intruders, ...]:
    """The intruder dimensions of every adapted matrix, in the adapter's order, one W in memory at a time.

    Args:
        adapter: ΔW by module name.
        base: the W that each changes, by the same names.
        k: how many leading directions of W + ΔW are looked at.
        threshold: the |cos| below which a direction has no counterpart.
        against: how many leading directions of W they are compared with; None for all, which takes the whole SVD of W:
            a second at 1024 × 1024, minutes at 4096 × 4096.

    Raises:
        AdapterError: ΔW and W have different shapes.
        DataError: the base has no such matrix.
        SpecError: k, threshold or against is out of range.

    Source: Shuttleworth et al. 2024, "LoRA vs full fine-tuning: an illusion of equivalence", definition 1 and algorithm 1.
    """
    return tuple(
        intruders_of(name, delta, base.named(name), k=k, threshold=threshold, against=against) for name, delta in adapter.items()
    )


def intruders_of(
    name: str,
    delta: LowRank,
    w: Float[Tensor, "d_out d_in"],
    *,
    k: int = 10,
    threshold: float = 0.5,
    against: int | None = None,
) -> Intruders:
    """The leading left singular vectors of W + ΔW whose |cos| with every one of W's stays below the threshold.

    The sign of a singular vector is arbitrary, so the cosine never has one. Where W has equal singular values its vectors
    are arbitrary too, and no counterpart means little.

    Raises:
        AdapterError: ΔW and W have different shapes.
        SpecError: k, threshold or against is out of range.

    Source: as of `intruders`.
    """
    if not 0 < threshold <= 1:
        raise SpecError(out_of_range("threshold", "intruders", "above 0 and at most 1", threshold))
    w = base_matrix(name, delta, w)
    return intruders_between(name, base_spectrum(w + delta.dense(), k), base_spectrum(w, against), threshold=threshold)


def intruders_between(name: str, tuned: BaseSpectrum, base: BaseSpectrum, *, threshold: float) -> Intruders:
    """The directions of the spectrum of W + ΔW that have no counterpart in that of W."""
    found = direction_map(tuned.u, base.u).max(dim=1)
    return Intruders(
        name=name,
        k=tuned.k,
        threshold=threshold,
        against=base.k,
        is_complete=base.is_complete,
        count=int((found.values < threshold).sum()),
        cosines=tuple(found.values.clamp(max=1).tolist()),
        counterparts=tuple((found.indices + 1).tolist()),
        singular_values=tuple(tuned.singular_values.tolist()),
        residual=tuned.relative_residual,
    )


def direction_map(u: Float[Tensor, "d i"], v: Float[Tensor, "d j"]) -> Float[Tensor, "i j"]:
    """|cos| of every direction of one set, as columns, with every one of another: |uᵀv|.

    Source: Shuttleworth et al. 2024, the similarity matrices.
    """
    return (u.mT @ v).abs()


def intruder_map(name: str, delta: LowRank, w: Float[Tensor, "d_out d_in"], *, k: int | None = None) -> Float[Tensor, "i j"]:
    """|UᵀU|: row i is the i-th left singular vector of W + ΔW, column j the j-th of W; a diagonal where nothing changed.

    Args:
        name: of the matrix, for the error.
        delta: the update.
        w: the matrix that it changes.
        k: how many leading ones of either; None for all.

    Raises:
        AdapterError: ΔW and W have different shapes.
        SpecError: k is below 1.
    """
    w = base_matrix(name, delta, w)
    return direction_map(base_spectrum(w + delta.dense(), k).u, base_spectrum(w, k).u)
