"""Edges of random matrices: limits that are known, and draws."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from lora_lab.analysis import marchenko_pastur_edges, noise_edges, product_edges
from lora_lab.lowrank import LowRank

PRODUCTS = [(400, 120, 350), (300, 100, 500), (300, 300, 300), (400, 300, 150)]


@pytest.mark.parametrize(("d_out", "d_in"), [(600, 200), (200, 600), (400, 400)])
def test_singular_values_of_a_drawn_matrix_end_at_the_edges(d_out: int, d_in: int) -> None:
    entries = 0.3 * np.random.default_rng(0).standard_normal((d_out, d_in))
    s = torch.linalg.svdvals(torch.from_numpy(entries))
    lower, upper = marchenko_pastur_edges(0.3, d_out, d_in)
    assert float(s[0]) == pytest.approx(upper, rel=0.03)
    assert float(s[-1]) == pytest.approx(lower, abs=0.03 * upper)


@pytest.mark.parametrize(("d_out", "r", "d_in"), PRODUCTS)
def test_singular_values_of_a_drawn_product_end_at_the_edges(d_out: int, r: int, d_in: int) -> None:
    rng = np.random.default_rng(1)
    product = (0.5 * rng.standard_normal((d_out, r))) @ (2.0 * rng.standard_normal((r, d_in)))
    s = torch.linalg.svdvals(torch.from_numpy(product))[: min(d_out, r, d_in)]
    lower, upper = product_edges(1.0, d_out, r, d_in)
    assert float(s[0]) == pytest.approx(upper, rel=0.04)
    assert float(s[-1]) == pytest.approx(lower, abs=0.04 * upper)


@pytest.mark.parametrize("sizes", [(30, 4, 20), (4, 30, 20), (20, 30, 4)])
def test_the_edges_of_a_product_do_not_depend_on_which_size_is_which(sizes: tuple[int, int, int]) -> None:
    assert product_edges(0.7, *sizes) == pytest.approx(product_edges(0.7, 30, 20, 4), rel=1e-9)


@pytest.mark.parametrize(("d_out", "r"), [(50, 5), (8, 32)])
def test_with_one_size_without_end_a_product_is_one_matrix(d_out: int, r: int) -> None:
    endless = 10**9  # A A^T / d_in goes to 1 there
    expected = marchenko_pastur_edges(1.0, d_out, r)
    assert [edge / math.sqrt(endless) for edge in product_edges(1.0, d_out, r, endless)] == pytest.approx(expected, rel=1e-3)


def test_square_factors_have_the_edge_of_fuss_and_catalan() -> None:
    lower, upper = product_edges(1.0, 100, 100, 100)
    assert upper / 100 == pytest.approx(math.sqrt(27 / 4), rel=1e-9)
    assert lower / 100 == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize(("d_out", "d_in", "r"), [(300, 200, 30), (200, 300, 100)])
def test_an_update_of_random_factors_lies_between_its_own_edges(
    draw: Callable[..., LowRank], d_out: int, d_in: int, r: int
) -> None:
    delta = draw(d_out, d_in, r)
    edges = noise_edges(delta.frobenius(), d_out=d_out, d_in=d_in, r=r)
    s = delta.singular_values
    assert float(s[0]) == pytest.approx(edges.product_upper, rel=0.06)
    assert float(s[-1]) == pytest.approx(edges.product_lower, rel=0.06)
    assert float(s[0]) > edges.dense_upper  # a low rank concentrates the norm, learned or not


def test_the_entry_sd_is_that_of_the_entries(draw: Callable[..., LowRank], dense: Callable[..., np.ndarray]) -> None:
    delta = draw(30, 20, 4)
    edges = noise_edges(delta.frobenius(), d_out=30, d_in=20, r=4)
    assert edges.entry_sd == pytest.approx(math.sqrt((dense(delta) ** 2).mean()), rel=1e-10)
    assert (edges.dense_lower, edges.dense_upper) == pytest.approx(marchenko_pastur_edges(edges.entry_sd, 30, 20))


def test_no_update_has_no_edges() -> None:
    assert noise_edges(0.0, d_out=30, d_in=20, r=4) is None
