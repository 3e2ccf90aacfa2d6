"""Singular triplets of a dense matrix: those of numpy, and an error that is what it says."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from lora_lab.analysis import BaseSpectrum, base_spectrum, exact_spectrum, leading_spectrum, principal_angles
from lora_lab.errors import SpecError

SHAPES = [(90, 60), (60, 90), (70, 70)]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


def assert_is_of(found: BaseSpectrum, w: Tensor, k: int) -> None:
    """The k leading triplets of W, by numpy; vectors up to their common sign."""
    u, s, vh = np.linalg.svd(w.double().numpy(), full_matrices=False)
    np.testing.assert_allclose(found.singular_values.numpy(), s[:k], rtol=1e-8)
    assert (found.shape, found.k) == (tuple(w.shape), k)
    np.testing.assert_allclose((found.u * found.singular_values @ found.vh).numpy(), (u[:, :k] * s[:k]) @ vh[:k], atol=1e-4 * s[0])
    assert found.frobenius == pytest.approx(np.linalg.norm(w.double().numpy()), rel=1e-12)
    assert found.rest_frobenius == pytest.approx(np.sqrt((s[k:] ** 2).sum()), rel=1e-6, abs=1e-6 * s[0])


@shapes
@pytest.mark.parametrize("k", [1, 7])
@pytest.mark.parametrize("find", [exact_spectrum, leading_spectrum, base_spectrum])
def test_the_leading_triplets_are_numpy_s(
    draw_base: Callable[..., Tensor], shape: tuple[int, int], k: int, find: Callable[..., BaseSpectrum]
) -> None:
    w = draw_base(*shape)
    assert_is_of(find(w, k), w, k)


@shapes
def test_without_a_number_it_is_the_whole_svd(draw_base: Callable[..., Tensor], shape: tuple[int, int]) -> None:
    w = draw_base(*shape)
    found = base_spectrum(w)
    assert_is_of(found, w, min(shape))
    assert found.is_complete
    assert not base_spectrum(w, 3).is_complete


@pytest.mark.parametrize("products", [1, 2, 4])
def test_residuals_are_how_far_each_triplet_is_from_being_one(products: int) -> None:
    """On independent entries, whose spectrum is flat, so few products do not suffice."""
    w = torch.randn(80, 120, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    found = leading_spectrum(w, 5, products=products)
    s = np.linalg.svd(w.numpy(), compute_uv=False)
    for i, residual in enumerate(found.residuals):
        u, sigma, v = found.u[:, i].numpy(), float(found.singular_values[i]), found.vh[i].numpy()
        assert residual == pytest.approx(np.linalg.norm(w.numpy() @ v - sigma * u), rel=1e-8)
        np.testing.assert_allclose(w.numpy().T @ u, sigma * v, atol=1e-10)
        assert residual > 1e-3 * s[0]
        assert np.abs(s - sigma).min() <= residual
        assert sigma <= s[i] + 1e-10  # the best in a subspace never overshoots


def test_more_products_bring_the_residual_below_the_tolerance() -> None:
    w = torch.randn(80, 120, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    residuals = [leading_spectrum(w, 5, products=products).relative_residual for products in (1, 2, 3, 5)]
    assert residuals == sorted(residuals, reverse=True)
    assert leading_spectrum(w, 5, tolerance=1e-2, products=5).relative_residual <= 1e-2


def test_a_large_matrix_is_done_from_its_leading_directions_and_agrees_with_its_whole_svd(draw_base: Callable[..., Tensor]) -> None:
    w = draw_base(600, 560)
    found, exact = base_spectrum(w, 6), exact_spectrum(w, 6)
    assert not torch.equal(found.u, exact.u)  # another way was taken
    assert found.relative_residual <= 1e-6
    torch.testing.assert_close(found.singular_values, exact.singular_values, rtol=1e-9, atol=0)
    assert float(principal_angles(found.u, exact.u).max()) < 1e-4
    assert float(principal_angles(found.vh.mT, exact.vh.mT).max()) < 1e-4


def test_a_flat_spectrum_is_found_though_the_basis_is_cut_many_times() -> None:
    w = torch.randn(300, 400, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    found = leading_spectrum(w, 3, products=40)  # the basis is full, 78 directions, after six
    np.testing.assert_allclose(found.singular_values.numpy(), np.linalg.svd(w.numpy(), compute_uv=False)[:3], rtol=1e-9)
    assert found.relative_residual <= 1e-6
    assert leading_spectrum(w, 3, products=6).relative_residual > 1e-6


def test_float32_is_as_good_as_float32_is(draw_base: Callable[..., Tensor]) -> None:
    w = draw_base(90, 60)
    found = leading_spectrum(w, 4, dtype=torch.float32)
    assert found.u.dtype == torch.float32
    torch.testing.assert_close(found.singular_values.double(), exact_spectrum(w, 4).singular_values, rtol=1e-5, atol=0)


def test_the_global_stream_changes_nothing_and_stays(draw_base: Callable[..., Tensor]) -> None:
    w = draw_base(90, 60)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        first, state = leading_spectrum(w, 4), torch.get_rng_state()
        torch.manual_seed(1)
        assert torch.equal(torch.get_rng_state(), state)
        torch.manual_seed(2)
        assert torch.equal(leading_spectrum(w, 4).u, first.u)


@pytest.mark.parametrize("find", [exact_spectrum, leading_spectrum])
def test_a_matrix_of_low_rank_and_one_of_zeros_are_found_too(find: Callable[..., BaseSpectrum]) -> None:
    generator = torch.Generator().manual_seed(5)
    low = torch.randn(40, 2, generator=generator, dtype=torch.float64) @ torch.randn(
        2, 30, generator=generator, dtype=torch.float64
    )
    found = find(low, 4)
    np.testing.assert_allclose(found.singular_values.numpy(), np.linalg.svd(low.numpy())[1][:4], atol=1e-12 * found.spectral)
    assert found.rest_frobenius < 1e-6 * found.spectral
    nothing = find(torch.zeros(40, 30), 4)
    assert (nothing.singular_values.tolist(), nothing.relative_residual, nothing.rest_frobenius) == ([0.0] * 4, 0.0, 0.0)


def test_a_number_of_directions_that_there_is_not_is_refused() -> None:
    with pytest.raises(SpecError, match=r"k parameter of base_spectrum must be an int in 1\.\.min\(d_out, d_in\)=4\. Got 0\."):
        base_spectrum(torch.ones(4, 6), 0)
    with pytest.raises(SpecError, match=r"k parameter of leading_spectrum must be an int in 1\.\.min\(d_out, d_in\)=4\. Got 5\."):
        leading_spectrum(torch.ones(4, 6), 5)
    with pytest.raises(SpecError, match=r"products parameter of leading_spectrum must be an int of at least 1\. Got 0\."):
        leading_spectrum(torch.ones(4, 6), 2, products=0)
