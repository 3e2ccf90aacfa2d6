"""All that ΔW does to W, from one spectrum of W, is what each measure says alone."""

from collections.abc import Callable

import numpy as np
import pytest
from torch import Tensor

from lora_lab.analysis import amplification_of, base_spectrum, effect_on_base, intruder_map, intruders_of, location_of
from lora_lab.lowrank import LowRank


@pytest.mark.parametrize("case", [(48, 40, 3), (40, 48, 8)], ids=str)
def test_every_part_is_what_the_measure_says_alone(
    draw: Callable[..., LowRank], draw_base: Callable[..., Tensor], case: tuple[int, int, int]
) -> None:
    delta, w = draw(*case), draw_base(*case[:2])
    found = effect_on_base("q", delta, w, k=6, shown=9)
    assert found.amplification == amplification_of("q", delta, w)
    assert found.location == location_of("q", delta, base_spectrum(w))
    alone = intruders_of("q", delta, w, k=6)
    np.testing.assert_allclose(found.intruders.cosines, alone.cosines, atol=1e-9)
    assert (found.intruders.count, found.intruders.counterparts) == (alone.count, alone.counterparts)
    np.testing.assert_allclose(found.cosines, intruder_map("q", delta, w, k=9).numpy(), atol=1e-9)


@pytest.mark.slow
def test_of_a_large_matrix_the_records_say_that_not_all_directions_were_compared(
    draw: Callable[..., LowRank], draw_base: Callable[..., Tensor]
) -> None:
    found = effect_on_base("q", draw(1100, 1030, 2), draw_base(1100, 1030))
    assert (found.intruders.is_complete, found.intruders.against, len(found.cosines)) == (False, 256, 32)
    assert [band.name for band in found.location.of("in")] == ["top", "rest"]
