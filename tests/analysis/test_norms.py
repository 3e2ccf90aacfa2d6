"""The size of ΔW beside that of W, by numpy."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from lora_lab.analysis import frobenius_share, relative_norms
from lora_lab.errors import AdapterError
from lora_lab.lowrank import LowRank

CASES = [(20, 14, 1), (14, 20, 3), (16, 16, 16)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_norms_and_their_shares_are_numpy_s(
    draw: Callable[..., LowRank], draw_base: Callable[..., Tensor], dense: Callable[..., np.ndarray], case: tuple[int, int, int]
) -> None:
    delta, w = draw(*case), draw_base(*case[:2])
    found, change, base = relative_norms("q", delta, w), dense(delta), w.double().numpy()
    assert found.frobenius == pytest.approx(np.linalg.norm(change), rel=1e-10)
    assert found.spectral == pytest.approx(np.linalg.norm(change, 2), rel=1e-10)
    assert frobenius_share("q", delta, w) == pytest.approx(found.frobenius_share, rel=1e-12)
    assert found.frobenius_share == pytest.approx(np.linalg.norm(change) / np.linalg.norm(base), rel=1e-10)
    assert found.spectral_share == pytest.approx(np.linalg.norm(change, 2) / np.linalg.norm(base, 2), rel=1e-10)
    assert (found.base_frobenius, found.base_spectral) == (
        pytest.approx(np.linalg.norm(base), rel=1e-10),
        pytest.approx(np.linalg.norm(base, 2), rel=1e-10),
    )


def test_a_zero_update_is_no_share_and_a_zero_base_gives_none(
    draw: Callable[..., LowRank], draw_base: Callable[..., Tensor]
) -> None:
    delta = draw(8, 6, 2)
    zero = LowRank(torch.zeros_like(delta.lora_b), delta.lora_a, 1.0)
    found = relative_norms("q", zero, draw_base(8, 6))
    assert (found.frobenius, found.spectral, found.frobenius_share, found.spectral_share) == (0.0, 0.0, 0.0, 0.0)
    found = relative_norms("q", delta, torch.zeros(8, 6))
    assert (found.frobenius_share, found.spectral_share) == (None, None)


def test_a_base_of_another_shape_is_refused(draw: Callable[..., LowRank]) -> None:
    with pytest.raises(AdapterError, match=r"q must have one shape in adapter and base\. Got \(8, 6\) and \(6, 8\)\."):
        relative_norms("q", draw(8, 6, 2), torch.zeros(6, 8))
