"""How large ΔW is beside the W that it changes."""

from jaxtyping import Float
from torch import Tensor

from lora_lab.analysis.base_matrix import base_matrix
from lora_lab.analysis.base_records import RelativeNorms
from lora_lab.analysis.base_spectra import base_spectrum
from lora_lab.lowrank import LowRank


def relative_norms(name: str, delta: LowRank, w: Float[Tensor, "d_out d_in"]) -> RelativeNorms:
    """‖ΔW‖_F / ‖W‖_F and ‖ΔW‖_2 / ‖W‖_2.

    Raises:
        AdapterError: ΔW and W have different shapes.

    Source: Hu et al. 2021, section 7.3, for the Frobenius norms.
    """
    base = base_spectrum(base_matrix(name, delta, w), 1)
    frobenius, spectral = delta.frobenius(), delta.spectral()
    return RelativeNorms(
        name=name,
        frobenius=frobenius,
        spectral=spectral,
        base_frobenius=base.frobenius,
        base_spectral=base.spectral,
        frobenius_share=_share(frobenius, base.frobenius),
        spectral_share=_share(spectral, base.spectral),
    )


def frobenius_share(name: str, delta: LowRank, w: Float[Tensor, "d_out d_in"]) -> float | None:
    """‖ΔW‖_F / ‖W‖_F alone, which takes no singular value of W; None where W = 0.

    Raises:
        AdapterError: ΔW and W have different shapes.
    """
    return _share(delta.frobenius(), float(base_matrix(name, delta, w).norm()))


def _share(norm: float, base_norm: float) -> float | None:
    return norm / base_norm if base_norm > 0 else None
