"""What the map of layers and matrices can show: the measures of one ΔW by name, in words and as texts."""

from collections.abc import Callable
from dataclasses import dataclass

from lora_lab.plots.captions import small_share


@dataclass(frozen=True, slots=True)
class Measure:
    """A number that every adapted matrix has.

    Attributes:
        label: as a choice names it.
        about: what it is, in a few words.
        text: a value as people read it.
        scale: the least value that the strongest colour stands for; where the largest is above, it is that one.
    """

    name: str
    label: str
    about: str
    text: Callable[[float], str]
    scale: float = 0.0


def _short(value: float) -> str:
    return f"{value:.3g}"


def _tenths(value: float) -> str:
    return f"{value:.1f}"


def _whole(value: int | float) -> str:
    return f"{value:.0f}"


def _signed(value: float) -> str:
    """
    >>> _signed(0.125), _signed(-0.3), _signed(-0.001)
    ('+0.12', '−0.30', '0.00')
    """
    text = f"{value:+.2f}"
    return "0.00" if float(text) == 0 else text.replace("-", "−")


MATRIX_MEASURES = {
    measure.name: measure
    for measure in (
        Measure("frobenius", "‖ΔW‖", "‖ΔW‖_F, the size of the change", _short),
        Measure("share", "‖ΔW‖ / ‖W‖", "‖ΔW‖_F as a share of ‖W‖_F", small_share),
        Measure("stable_rank", "stable rank", "‖ΔW‖_F² / ‖ΔW‖_2²", _tenths),
        Measure("effective_rank", "effective rank", "exp of the entropy of σ / Σσ", _tenths),
        Measure("rank_for_95", "r for 95 %", "the fewest directions that keep 95 % of ‖ΔW‖_F²", _whole),
        Measure("phi", "φ above chance", "mean of φ(i, j) − chance against the other run", _signed, scale=0.25),
        Measure("factor", "amplification", "‖ΔW‖_F / ‖UᵀWVᵀ‖_F, U and V from ΔW", _short),
    )
}
