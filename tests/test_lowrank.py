"""LowRank against the dense matrix in float64, which it never builds."""

from collections.abc import Callable
from typing import Literal

import jaxtyping
import pytest
import torch
from torch import Tensor

from lora_lab.errors import AdapterError, SpecError
from lora_lab.lowrank import LowRank, stacked_singular_values

Method = Literal["qr", "gram"]
SHAPES = [(40, 24, 4), (24, 40, 4), (16, 16, 1), (12, 20, 12), (20, 12, 12), (6, 10, 9), (10, 6, 40)]  # (d_out, d_in, r)
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)
methods = pytest.mark.parametrize("method", ["qr", "gram"])


def random_delta(
    d_out: int, d_in: int, r: int, *, scaling: float = 0.75, dtype: torch.dtype = torch.float32, seed: int = 0
) -> LowRank:
    generator = torch.Generator().manual_seed(seed)
    lora_b, lora_a = torch.randn(d_out, r, generator=generator), torch.randn(r, d_in, generator=generator)
    return LowRank(lora_b.to(dtype), lora_a.to(dtype), scaling)


def dense(delta: LowRank) -> Tensor:
    """scaling · B A the plain way, in float64: the independent computation."""
    return delta.scaling * delta.lora_b.double() @ delta.lora_a.double()


@shapes
@methods
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_singular_values_are_those_of_the_dense_matrix(shape: tuple[int, int, int], method: Method, dtype: torch.dtype) -> None:
    delta = random_delta(*shape, dtype=dtype)
    expected = torch.linalg.svdvals(dense(delta))[: min(shape)]
    tolerance = {"qr": 1e-10, "gram": 1e-5}[method]
    torch.testing.assert_close(delta.svd(method)[1], expected, rtol=tolerance, atol=0)


@shapes
@methods
@pytest.mark.parametrize("scaling", [0.75, -2.0])
def test_the_svd_is_thin_and_rebuilds_delta_w(shape: tuple[int, int, int], method: Method, scaling: float) -> None:
    delta, k = random_delta(*shape, scaling=scaling), min(shape)
    u, s, vh = delta.svd(method)
    assert (u.shape, s.shape, vh.shape) == ((shape[0], k), (k,), (k, shape[1]))
    torch.testing.assert_close(u * s @ vh, dense(delta), rtol=0, atol=1e-12 * float(s[0]))


@shapes
@methods
def test_singular_vectors_are_orthonormal(shape: tuple[int, int, int], method: Method) -> None:
    u, _, vh = random_delta(*shape).svd(method)
    identity = torch.eye(min(shape), dtype=torch.float64)
    tolerance = {"qr": 1e-12, "gram": 1e-7}[method]
    torch.testing.assert_close(u.mT @ u, identity, rtol=0, atol=tolerance)
    torch.testing.assert_close(vh @ vh.mT, identity, rtol=0, atol=tolerance)


@shapes
def test_the_compact_svd_is_the_thin_one_where_every_direction_is_used(shape: tuple[int, int, int]) -> None:
    delta = random_delta(*shape)
    for compact, thin in zip(delta.compact_svd(), delta.svd(), strict=True):
        assert torch.equal(compact, thin)
    assert delta.spectral() == pytest.approx(float(torch.linalg.matrix_norm(dense(delta), 2)), rel=1e-12)


@pytest.mark.parametrize("used", [0, 2])
def test_the_compact_svd_leaves_out_what_is_not_used_and_still_rebuilds_delta_w(used: int) -> None:
    full = random_delta(20, 12, 5)
    delta = LowRank(full.lora_b * (torch.arange(5) < used), full.lora_a, 0.5)
    u, s, vh = delta.compact_svd()
    assert (u.shape, s.shape, vh.shape) == ((20, used), (used,), (used, 12))
    torch.testing.assert_close(u * s @ vh, dense(delta), rtol=0, atol=1e-12)


def test_qr_resolves_a_spectrum_of_twelve_decades() -> None:
    decades = 10.0 ** -torch.arange(0, 13, 3, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(d, 5, generator=generator, dtype=torch.float64))[0] for d in (30, 20))
    delta = LowRank(left * decades, right.mT, 1.0)
    torch.testing.assert_close(delta.singular_values, decades, rtol=1e-3, atol=0)


def rotated(b: Tensor, a: Tensor) -> tuple[Tensor, Tensor, float]:
    q = torch.linalg.qr(torch.randn(len(a), len(a), generator=torch.Generator().manual_seed(9), dtype=a.dtype))[0]
    return b @ q, q.mT @ a, 1.0


def resigned(b: Tensor, a: Tensor) -> tuple[Tensor, Tensor, float]:
    signs = torch.tensor([-1.0, 1.0], dtype=a.dtype).repeat(len(a))[: len(a)]
    return b * signs, signs[:, None] * a, 1.0


SAME_DELTA: dict[str, Callable[[Tensor, Tensor], tuple[Tensor, Tensor, float]]] = {
    "the r dimensions rotated": rotated,
    "scale moved from A to B": lambda b, a: (1000 * b, a / 1000, 1.0),
    "scale moved to the scaling": lambda b, a: (b / 8, a, 8.0),
    "signs flipped in pairs": resigned,
    "ΔW turned into −ΔW": lambda b, a: (-b, a, 1.0),
    "the scaling negative": lambda b, a: (b, a, -1.0),
}


@methods
@pytest.mark.parametrize("change", SAME_DELTA.values(), ids=SAME_DELTA)
def test_singular_values_do_not_depend_on_how_delta_w_is_factored(
    change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor, float]], method: Method
) -> None:
    delta = random_delta(30, 20, 5, dtype=torch.float64)
    b, a, factor = change(delta.lora_b, delta.lora_a)
    changed = LowRank(b, a, delta.scaling * factor)
    torch.testing.assert_close(changed.svd(method)[1], delta.svd(method)[1], rtol=1e-9, atol=0)


@pytest.mark.parametrize("other_r", [1, 4, 30])
def test_inner_product_is_that_of_the_dense_matrices(other_r: int) -> None:
    first, second = random_delta(20, 12, 4), random_delta(20, 12, other_r, scaling=-3.0, seed=1)
    expected = float((dense(first) * dense(second)).sum())
    assert first.inner(second) == pytest.approx(expected, rel=1e-12)
    assert second.inner(first) == pytest.approx(expected, rel=1e-12)


@shapes
def test_frobenius_norm_is_that_of_the_dense_matrix(shape: tuple[int, int, int]) -> None:
    delta = random_delta(*shape)
    assert delta.frobenius() == pytest.approx(float(torch.linalg.matrix_norm(dense(delta))), rel=1e-12)


@shapes
def test_product_with_a_batch_is_that_of_the_dense_matrix(shape: tuple[int, int, int]) -> None:
    delta, x = random_delta(*shape), torch.randn(shape[1], 3, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(delta @ x, dense(delta) @ x.double(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(delta.dense(), dense(delta), rtol=1e-12, atol=1e-12)


@shapes
def test_what_is_kept_is_counted_as_the_paper_counts_it(shape: tuple[int, int, int]) -> None:
    d_out, d_in, r = shape
    delta = random_delta(*shape)
    assert delta.params == r * (d_out + d_in)
    assert delta.compression == pytest.approx(delta.dense().numel() / delta.params)


def test_inner_product_refuses_two_shapes() -> None:
    with pytest.raises(AdapterError, match=r"need one shape. Got \(20, 12\) and \(12, 20\)\."):
        random_delta(20, 12, 4).inner(random_delta(12, 20, 4))


@pytest.mark.parametrize("shape", [(7, 4), (4, 7), (5, 5)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_dense_change_is_itself_to_the_bit_and_of_full_rank(shape: tuple[int, int], dtype: torch.dtype) -> None:
    change = torch.randn(*shape, generator=torch.Generator().manual_seed(3)).to(dtype)
    delta = LowRank.of_dense(change)
    assert torch.equal(delta.dense(), change.double())
    assert (delta.shape, delta.r, delta.numerical_rank) == (shape, min(shape), min(shape))
    torch.testing.assert_close(delta.singular_values, torch.linalg.svdvals(change.double()), rtol=1e-10, atol=0)


def test_a_dense_change_of_low_rank_has_that_rank() -> None:
    change = random_delta(20, 12, 3, dtype=torch.float64).dense().float()
    assert LowRank.of_dense(change).numerical_rank == 3


@pytest.mark.parametrize("other_scaling", [0.75, -3.0])
def test_a_difference_is_that_of_the_dense_matrices(other_scaling: float) -> None:
    first, second = random_delta(20, 12, 4), random_delta(20, 12, 6, scaling=other_scaling, seed=1)
    difference = first - second
    assert difference.r == 10
    torch.testing.assert_close(difference.dense(), dense(first) - dense(second), rtol=1e-6, atol=1e-6)


def test_a_difference_of_one_scaling_is_rounded_nowhere() -> None:
    first, second = random_delta(20, 12, 4, dtype=torch.bfloat16), random_delta(20, 12, 6, seed=1)
    torch.testing.assert_close((first - second).dense(), dense(first) - dense(second), rtol=0, atol=1e-14)


@pytest.mark.parametrize("shape", [(20, 12, 4), (12, 20, 4), (200, 300, 16)], ids=str)
@pytest.mark.parametrize("other_scaling", [0.75, 1.5])
def test_a_change_minus_itself_has_no_rank(shape: tuple[int, int, int], other_scaling: float) -> None:
    first = random_delta(*shape)
    again = LowRank(first.lora_b * (0.75 / other_scaling), first.lora_a, other_scaling)  # halved or kept: exact in binary
    assert (first - again).numerical_rank == 0


def test_a_difference_refuses_two_shapes() -> None:
    with pytest.raises(AdapterError, match=r"of a difference need one shape. Got \(20, 12\) and \(12, 20\)\."):
        random_delta(20, 12, 4) - random_delta(12, 20, 4)


@methods
def test_a_zero_update_has_zero_rank_norm_and_singular_values(method: Method) -> None:
    delta = LowRank(torch.zeros(20, 4), random_delta(20, 12, 4).lora_a, 2.0)
    assert (delta.numerical_rank, delta.frobenius()) == (0, 0.0)
    assert delta.svd(method)[1].tolist() == [0.0] * 4


def repeated_columns(delta: LowRank) -> LowRank:
    return LowRank(delta.lora_b[:, [0, 1, 2, 0, 1, 2, 0, 1]], delta.lora_a, delta.scaling)


def empty_rows(delta: LowRank) -> LowRank:
    return LowRank(delta.lora_b, torch.cat([delta.lora_a[:3], torch.zeros_like(delta.lora_a[3:])]), delta.scaling)


def dependent_rows(delta: LowRank) -> LowRank:
    """Rows mixed from three, each rounded to the stored type."""
    mixing = torch.randn(8, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return LowRank(delta.lora_b, (mixing @ delta.lora_a[:3].double()).to(delta.lora_a.dtype), delta.scaling)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("deficient", [repeated_columns, empty_rows, dependent_rows])
def test_numerical_rank_counts_what_rank_deficient_factors_use(deficient: Callable[[LowRank], LowRank], dtype: torch.dtype) -> None:
    assert deficient(random_delta(48, 32, 8, dtype=dtype)).numerical_rank == 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(48, 32, 8), (256, 512, 8), (2048, 1024, 4), (6, 10, 40)], ids=str)
def test_independent_factors_use_their_whole_rank_in_every_stored_type(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    assert random_delta(*shape, dtype=dtype).numerical_rank == min(shape)


@pytest.mark.parametrize(
    ("b_shape", "a_shape"), [((4, 2), (3, 5)), ((2, 4), (5, 2)), ((4,), (4, 5)), ((4, 2), (2,)), ((4, 2, 1, 1), (2, 5, 1, 1))]
)
def test_factors_that_share_no_rank_are_refused_with_their_shapes(
    monkeypatch: pytest.MonkeyPatch, b_shape: tuple[int, ...], a_shape: tuple[int, ...]
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as users run it: tests alone check shapes at the call
    with pytest.raises(AdapterError, match="with one r") as refusal:
        LowRank(torch.zeros(b_shape), torch.zeros(a_shape), 1.0)
    assert f"{b_shape} and {a_shape}" in str(refusal.value)


def test_analysis_of_live_parameters_carries_no_gradient() -> None:
    delta = LowRank(torch.nn.Parameter(torch.ones(4, 2)), torch.nn.Parameter(torch.ones(2, 3)), 1.0)
    results = (*delta.svd("qr"), *delta.svd("gram"), delta.dense(), delta.singular_values)
    assert not any(x.requires_grad for x in results)


@shapes
def test_many_spectra_at_once_are_those_of_the_dense_matrices(shape: tuple[int, int, int]) -> None:
    d_out, d_in, r = shape
    deltas = [random_delta(d_out, d_in, r, scaling=scaling, seed=seed) for seed, scaling in enumerate((0.75, -2.0, 0.0))]
    stacks = (torch.stack([getattr(delta, name) for delta in deltas]) for name in ("lora_b", "lora_a"))
    found = stacked_singular_values(*stacks, torch.tensor([delta.scaling for delta in deltas]))
    for row, delta in zip(found, deltas, strict=True):
        k = min(shape)
        dense = torch.linalg.svdvals(delta.dense())
        torch.testing.assert_close(row[:k], dense[:k], rtol=1e-6, atol=1e-6 * max(1.0, float(dense[0])))
        assert (row[k:] <= 1e-6 * max(1.0, float(dense[0]))).all()


def test_padding_to_a_larger_rank_adds_zeros_to_a_spectrum() -> None:
    delta = random_delta(12, 20, 3)
    b, a = torch.zeros(1, 12, 5), torch.zeros(1, 5, 20)
    b[0, :, :3], a[0, :3] = delta.lora_b, delta.lora_a
    (found,) = stacked_singular_values(b, a, torch.tensor([delta.scaling]))
    torch.testing.assert_close(found[:3], delta.singular_values, rtol=1e-6, atol=0)
    assert (found[3:] < 1e-6).all()


@shapes
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_the_best_part_of_rank_k_is_that_of_the_dense_matrix(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    delta = random_delta(*shape, dtype=dtype)
    u, s, vh = torch.linalg.svd(dense(delta), full_matrices=False)
    for k in range(1, min(shape) + 1):
        part = delta.truncated(k)
        assert (part.r, part.shape) == (k, delta.shape)
        torch.testing.assert_close(dense(part), (u[:, :k] * s[:k]) @ vh[:k], rtol=0, atol=1e-9)
        torch.testing.assert_close((dense(delta) - dense(part)).norm(), s[k:].norm(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("k", [-1, 0, 4])
def test_a_part_of_more_directions_than_there_are_is_refused(k: int) -> None:
    with pytest.raises(SpecError, match=rf"must be an int in 1\.\.3\. Got {k}\."):
        random_delta(8, 6, 3).truncated(k)
