"""One number of every adapted matrix, for a map of them: a field of their spectra, or a measure beside W."""

from collections.abc import Iterable, Mapping

from lora_lab.analysis.amplifications import amplification_factor
from lora_lab.analysis.base_matrix import NamedWeights
from lora_lab.analysis.norms import frobenius_share
from lora_lab.analysis.records import Overlap, Spectrum
from lora_lab.lowrank import LowRank

Values = dict[str, int | float | None]
_BESIDE_BASE = {"share": frobenius_share, "factor": amplification_factor}
BESIDE_BASE = tuple(_BESIDE_BASE)


def of_spectra(measure: str, spectra: Iterable[Spectrum]) -> Values:
    """A field of every spectrum; None where ΔW = 0 has none."""
    return {one.name: getattr(one, measure) for one in spectra}


def of_overlaps(records: Mapping[str, Overlap]) -> Values:
    """The mean of φ above chance of every matrix that two adapters adapt; None where no cell tells."""
    return {name: record.mean_above_chance for name, record in records.items()}


def beside_base(measure: str, adapter: Mapping[str, LowRank], base: NamedWeights) -> Values:
    """`share` or `factor` of every matrix, one W in memory at a time and no SVD of any.

    Raises:
        AdapterError: ΔW and W have different shapes.
        DataError: the base has no such matrix.
    """
    compute = _BESIDE_BASE[measure]
    return {name: compute(name, delta, base.named(name)) for name, delta in adapter.items()}
