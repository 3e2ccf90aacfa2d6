"""One ΔW beside the W that it changes: every measure of the two that takes singular vectors of W, from one spectrum."""

from jaxtyping import Float
from torch import Tensor

from lora_lab.analysis.amplifications import amplification_of
from lora_lab.analysis.base_matrix import base_matrix
from lora_lab.analysis.base_records import EffectOnBase
from lora_lab.analysis.base_spectra import BaseSpectrum, base_spectrum
from lora_lab.analysis.intruder_dimensions import direction_map, intruders_between
from lora_lab.analysis.location import location_of
from lora_lab.lowrank import LowRank

WHOLE = 1024  # min(d_out, d_in) up to which the whole SVD of W takes about a second
_LEADING = 256  # directions of a larger W


def effect_on_base(name: str, delta: LowRank, w: Float[Tensor, "d_out d_in"], *, k: int = 10, shown: int = 32) -> EffectOnBase:
    """Amplification, intruder dimensions and location of one ΔW.

    Of a W with more than 1024 singular values the 256 leading directions stand for all; the records say so.

    Args:
        name: of the matrix.
        delta: the update.
        w: the matrix that it changes.
        k: how many leading directions of W + ΔW may be intruders.
        shown: how many of either the cosines are of.

    Raises:
        AdapterError: ΔW and W have different shapes.

    Source: as of `amplification_of`, `intruders_of` and `location_of`.
    """
    w = base_matrix(name, delta, w)
    base = base_spectrum(w, None if min(w.shape) <= WHOLE else _LEADING)
    tuned = base_spectrum(w + delta.dense(), max(k, shown))
    return EffectOnBase(
        amplification=amplification_of(name, delta, w),
        intruders=intruders_between(name, _leading(tuned, k), base, threshold=0.5),
        cosines=tuple(map(tuple, direction_map(tuned.u[:, :shown], base.u[:, :shown]).clamp(max=1).tolist())),
        location=location_of(name, delta, base),
    )


def _leading(spectrum: BaseSpectrum, k: int) -> BaseSpectrum:
    u, s, vh = spectrum.u[:, :k], spectrum.singular_values[:k], spectrum.vh[:k]
    return BaseSpectrum(u, s, vh, spectrum.frobenius, spectrum.residuals[:k])
