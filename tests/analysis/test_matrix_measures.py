"""The numbers of a map of matrices are those of the measures one by one."""

from collections.abc import Callable

import pytest
from torch import Tensor

from lora_lab.analysis import amplification_factor, frobenius_share, overlap, spectrum
from lora_lab.analysis.matrix_measures import BESIDE_BASE, beside_base, of_overlaps, of_spectra
from lora_lab.errors import DataError
from lora_lab.lowrank import LowRank
from lora_lab.sweeps.subjects import GivenWeights


@pytest.fixture
def adapter(draw: Callable[..., LowRank]) -> dict[str, LowRank]:
    return {"a": draw(12, 8, 3), "b": draw(6, 10, 2, seed=1), "zero": draw(8, 8, 2, scaling=0.0)}


def test_a_field_of_the_spectra_is_none_where_nothing_changed(adapter: dict[str, LowRank]) -> None:
    spectra = spectrum(adapter)
    assert of_spectra("stable_rank", spectra) == {"a": spectra[0].stable_rank, "b": spectra[1].stable_rank, "zero": None}
    assert of_spectra("frobenius", spectra)["zero"] == 0.0


def test_phi_above_chance_is_none_where_there_is_no_direction(adapter: dict[str, LowRank]) -> None:
    found = of_overlaps({one.name: one for one in overlap(adapter, adapter)})
    assert found["zero"] is None
    assert found["a"] is not None
    assert found["a"] > 0


def test_beside_w_each_matrix_meets_its_own(adapter: dict[str, LowRank], draw_base: Callable[..., Tensor]) -> None:
    base = {name: draw_base(*delta.shape) for name, delta in adapter.items()}
    computed = {"share": frobenius_share, "factor": amplification_factor}
    assert set(BESIDE_BASE) == set(computed)
    for measure, compute in computed.items():
        assert beside_base(measure, adapter, GivenWeights(base)) == {n: compute(n, delta, base[n]) for n, delta in adapter.items()}
    with pytest.raises(DataError, match="Got none called a"):
        beside_base("share", adapter, GivenWeights({}))
