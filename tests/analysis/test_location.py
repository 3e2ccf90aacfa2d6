"""Shares of ΔW in bands of W's directions: by numpy's projectors, by hand, and by chance."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from lora_lab.analysis import base_spectrum, exact_spectrum, location_of
from lora_lab.errors import AdapterError, SpecError
from lora_lab.lowrank import LowRank

CASES = [(24, 16, 1), (16, 24, 3), (18, 18, 18), (24, 16, 16)]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("k", [1, 3, 8])
def test_shares_are_norms_of_projections_by_numpy(
    draw: Callable[..., LowRank],
    draw_base: Callable[..., Tensor],
    dense: Callable[..., np.ndarray],
    case: tuple[int, int, int],
    k: int,
) -> None:
    delta, w = draw(*case), draw_base(*case[:2])
    change, m = dense(delta), min(case[:2])
    u, _, vh = np.linalg.svd(w.double().numpy(), full_matrices=True)
    found = location_of("q", delta, base_spectrum(w), k=k)
    spans = {"top": (0, k), "middle": (k, m - k), "tail": (m - k, m)}
    for side, basis, projected in (("out", u, u.T @ change), ("in", vh.T, change @ vh.T)):
        energy = (projected**2).sum(axis=1 if side == "out" else 0) / (change**2).sum()
        d = len(basis)
        expected = [(name, first + 1, last, energy[first:last].sum(), (last - first) / d) for name, (first, last) in spans.items()]
        expected.append(("outside", m + 1, d, energy[m:].sum(), (d - m) / d))
        bands = [(band.name, band.first, band.last, band.share, band.chance) for band in found.of(side)]
        for band, (*which, share, chance) in zip(bands, [one for one in expected if one[2] >= one[1]], strict=True):
            assert band == (*which, pytest.approx(share, abs=1e-9), pytest.approx(chance))


@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize("shape", [(24, 16), (16, 24), (20, 20)], ids=str)
def test_bands_make_up_each_side(
    draw: Callable[..., LowRank], draw_base: Callable[..., Tensor], shape: tuple[int, int], complete: bool
) -> None:
    found = location_of("q", draw(*shape, 4), base_spectrum(draw_base(*shape), None if complete else 5))
    for side, d in (("out", shape[0]), ("in", shape[1])):
        bands = found.of(side)
        assert sum(band.share for band in bands) == pytest.approx(1, abs=1e-12)
        assert sum(band.chance for band in bands) == pytest.approx(1, abs=1e-12)
        assert [band.first for band in bands] == [1, *(band.last + 1 for band in bands[:-1])]
        assert bands[-1].last == d


def test_by_hand_an_update_that_writes_the_strong_and_reads_the_weak(draw_base: Callable[..., Tensor]) -> None:
    w = draw_base(20, 20)
    u, _, vh = torch.linalg.svd(w.double())
    found = location_of("q", LowRank(u[:, :2], vh[-2:], 3.0), base_spectrum(w), k=2)
    assert [band.share for band in found.of("out")] == pytest.approx([1, 0, 0], abs=1e-9)
    assert [band.share for band in found.of("in")] == pytest.approx([0, 0, 1], abs=1e-9)


def test_an_update_in_random_directions_lies_everywhere_by_chance(
    draw: Callable[..., LowRank], draw_base: Callable[..., Tensor]
) -> None:
    base, draws = base_spectrum(draw_base(20, 14)), 400
    found = [location_of("q", draw(20, 14, 2, seed=seed), base, k=3).bands for seed in range(draws)]
    for bands in zip(*found, strict=True):
        shares = np.array([band.share for band in bands])
        assert abs(shares.mean() - bands[0].chance) < 4 * shares.std() / draws**0.5


def test_from_leading_directions_alone_come_the_same_top_and_the_rest(
    draw: Callable[..., LowRank], draw_base: Callable[..., Tensor]
) -> None:
    delta, w = draw(24, 16, 3), draw_base(24, 16)
    whole, part = location_of("q", delta, base_spectrum(w), k=2), location_of("q", delta, exact_spectrum(w, 4), k=2)
    assert [band.name for band in part.of("in")] == ["top", "rest"]
    for side in ("in", "out"):
        top, rest = part.of(side)
        assert top.share == pytest.approx(whole.of(side)[0].share, abs=1e-9)
        assert rest.share == pytest.approx(1 - top.share, abs=1e-12)


def test_a_zero_update_lies_nowhere(draw: Callable[..., LowRank], draw_base: Callable[..., Tensor]) -> None:
    delta = draw(24, 16, 3)
    found = location_of("q", LowRank(torch.zeros_like(delta.lora_b), delta.lora_a, 1.0), base_spectrum(draw_base(24, 16)))
    assert {band.share for band in found.bands} == {None}
    assert [band.name for band in found.of("out")] == ["top", "middle", "tail", "outside"]


def test_a_tenth_is_the_width_where_none_is_given(draw: Callable[..., LowRank], draw_base: Callable[..., Tensor]) -> None:
    for d, last in ((40, 4), (6, 1)):
        assert location_of("q", draw(d, d, 1), base_spectrum(draw_base(d, d))).bands[0].last == last


def test_widths_and_shapes_that_do_not_fit_are_refused(draw: Callable[..., LowRank], draw_base: Callable[..., Tensor]) -> None:
    base = base_spectrum(draw_base(24, 16))
    with pytest.raises(SpecError, match=r"k parameter of location_of must be an int in 1\.\.8\. Got 9\."):
        location_of("q", draw(24, 16, 3), base, k=9)
    with pytest.raises(AdapterError, match=r"Got \(16, 24\) and \(24, 16\)\."):
        location_of("q", draw(16, 24, 3), base)
