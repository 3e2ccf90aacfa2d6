"""How far rank r reaches: never past the best there is, practically to it, and to everything at r = min(d_out, d_in)."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

import lora_lab as ll
from lora_lab.analysis.records import Reach
from lora_lab.errors import SpecError
from lora_lab.training import reach
from lora_lab.training.reach import best_error, error_of, fit, inputs_of, known_change

Q, FC1, FIRST_Q = "vit.layers.1.attention.q_proj", "vit.layers.1.mlp.fc1", "vit.layers.0.attention.q_proj"
ROUNDING = 1e-9


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def uneven(n: int, d_in: int) -> Tensor:
    """Inputs as activations are: a few directions hold nearly all of them."""
    return drawn(n, d_in, seed=5) * torch.logspace(0, -3, d_in, dtype=torch.float64) @ torch.linalg.qr(drawn(d_in, d_in)).Q


@pytest.fixture(scope="module")
def square() -> Reach:
    return reach(matrix=Q)


@pytest.fixture(scope="module")
def tall() -> Reach:
    return reach(matrix=FC1, ranks=(2, 16, 64))


def test_the_record_says_what_was_fitted(square: Reach, tall: Reach) -> None:
    assert (square.bench, square.matrix, square.shape, square.activations) == ("digits", Q, (64, 64), 1300 * 17)
    assert [point.r for point in square.points] == [1, 2, 4, 8, 16, 32, 64]
    assert [point.params for point in tall.points] == [r * (160 + 64) for r in (2, 16, 64)]
    assert (tall.shape, tall.max_r, tall.matrix_params) == ((160, 64), 64, 160 * 64)
    assert square.full is square.points[-1]


def test_the_change_has_full_rank_and_a_tenth_of_the_weight(square: Reach) -> None:
    weight = ll.find_bench("digits").build().get_parameter(f"{Q}.weight").detach()
    change = known_change(weight, seed=0)
    assert int(torch.linalg.matrix_rank(change)) == 64
    assert float(change.norm() / weight.double().norm()) == pytest.approx(square.change_share) == pytest.approx(0.1)
    assert square.change_singular_values == pytest.approx(torch.linalg.svdvals(change).tolist())


def test_a_higher_rank_leaves_less(square: Reach, tall: Reach) -> None:
    for record in (square, tall):
        for low, high in pairwise(record.points):
            assert high.error < low.error
            assert high.best_error < low.best_error
            assert high.logits_error < low.logits_error


def test_training_gets_to_the_best_of_each_rank_and_never_past_it(square: Reach, tall: Reach) -> None:
    for point in (*square.points, *tall.points):
        assert point.error >= point.best_error - ROUNDING
        assert point.error <= 1.02 * point.best_error + 1e-6


def test_at_full_rank_nothing_is_left(square: Reach, tall: Reach) -> None:
    for record in (square, tall):
        assert record.full is not None
        assert record.full.best_error == 0.0
        assert record.full.error < 1e-6
        assert record.full.logits_error < 1e-6


def test_at_rank_1_much_of_what_the_change_does_is_left(square: Reach) -> None:
    assert square.points[0].error > 0.5
    assert square.points[0].logits_error > 0.3


def test_the_best_is_that_of_a_dense_svd_over_all_activations(square: Reach) -> None:
    """Computed here without the second moment's root: the SVD of Δ* X itself, X with every activation."""
    bench = ll.find_bench("digits")
    model = bench.build().double()
    seen: list[Tensor] = []
    model.get_submodule(Q).register_forward_hook(lambda _module, given, _out: seen.append(given[0].detach().reshape(-1, 64)))
    with torch.no_grad():
        model(pixel_values=bench.splits()[0].columns["pixel_values"].double())
    (x,) = seen
    change = known_change(model.get_parameter(f"{Q}.weight").detach())
    outputs = torch.linalg.svdvals(x @ change.mT)
    for point in square.points[:-1]:
        left = float(outputs[point.r :].square().sum().sqrt() / outputs.norm())
        assert point.best_error == pytest.approx(left, rel=1e-9)


def test_where_inputs_span_less_their_rank_is_enough() -> None:
    """The first layer sees 4 grey values and a place: its inputs span 22 of 64 dimensions."""
    record = reach(matrix=FIRST_Q, ranks=(16, 22))
    assert record.activations_rank == 22
    assert record.points[0].error > 0.01
    assert record.points[1].error < 1e-6
    assert record.points[1].logits_error < 1e-6


def test_the_logits_are_those_of_the_model_with_its_weight_set(square: Reach) -> None:
    bench = ll.find_bench("digits")
    model = bench.build().double()
    images = bench.splits()[1].columns["pixel_values"].double()
    weight = model.get_parameter(f"{Q}.weight")
    with torch.no_grad():
        base = model(pixel_values=images).logits
        weight += known_change(weight.detach(), seed=0)
        moved = model(pixel_values=images).logits - base
    assert square.logits_change == pytest.approx(float(moved.norm() / base.norm()), rel=1e-9)


@pytest.mark.parametrize(("d_out", "d_in"), [(12, 12), (20, 9), (9, 20)], ids=["square", "tall", "wide"])
def test_a_change_of_rank_2_is_fitted_at_r_2_and_not_before(d_out: int, d_in: int) -> None:
    change, inputs = drawn(d_out, 2) @ drawn(2, d_in, seed=1), inputs_of(uneven(200, d_in))
    left = {r: error_of(fit(change, inputs, r=r)[0], change, inputs) for r in (1, 2, 3)}
    assert left[1] > 1e-3
    assert left[1] == pytest.approx(best_error(change, inputs, 1), rel=1e-6)
    assert max(left[2], left[3]) < 1e-6


@pytest.mark.parametrize(("d_out", "d_in"), [(12, 12), (20, 9), (9, 20)], ids=["square", "tall", "wide"])
def test_full_rank_fits_a_full_change_and_then_is_the_change(d_out: int, d_in: int) -> None:
    change, inputs = drawn(d_out, d_in), inputs_of(drawn(300, d_in, seed=2))
    delta, _ = fit(change, inputs, r=min(d_out, d_in))
    torch.testing.assert_close(delta.dense(), change, rtol=0, atol=1e-6)


def test_the_error_is_measured_on_the_inputs_themselves() -> None:
    x, change = uneven(50, 8), drawn(6, 8)
    delta, _ = fit(change, inputs_of(x), r=2)
    direct = (delta.dense() - change) @ x.mT
    assert error_of(delta, change, inputs_of(x)) == pytest.approx(float(direct.norm() / (change @ x.mT).norm()), rel=1e-9)


def test_outside_the_inputs_span_a_stays_at_its_start() -> None:
    basis = torch.linalg.qr(drawn(8, 3, seed=3)).Q
    inputs = inputs_of(drawn(100, 3, seed=4) @ basis.mT)
    outside = torch.eye(8, dtype=torch.float64) - basis @ basis.mT
    fits = [fit(change, inputs, r=2, seed=0)[0].lora_a for change in (drawn(6, 8, seed=6), drawn(6, 8, seed=7))]
    torch.testing.assert_close(fits[0] @ outside, fits[1] @ outside)
    assert (fits[0] @ outside).norm() > 0.1  # LoRA's start, not 0
    assert not torch.allclose(fits[0] @ basis, fits[1] @ basis)


def test_the_same_seed_gives_the_same_record_and_draws_nothing_global(square: Reach) -> None:
    state = torch.get_rng_state()
    again = reach(matrix=Q, ranks=(2,))
    assert again.points[0] == square.points[1]
    assert torch.equal(torch.get_rng_state(), state)


def test_a_seed_draws_the_change_and_the_start_of_a() -> None:
    weight, inputs = drawn(6, 8), inputs_of(drawn(20, 8))
    assert not torch.equal(known_change(weight, seed=0), known_change(weight, seed=1))
    assert torch.equal(known_change(weight, seed=1), known_change(weight, seed=1))
    one, other, same = (fit(weight, inputs, r=2, seed=seed)[0].lora_a for seed in (0, 1, 0))
    assert torch.equal(one, same)
    assert not torch.allclose(one, other)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"bench_name": "reviews"}, "bench_name parameter of reach must be one of digits, "),
        ({"matrix": "vit.layers.9"}, "matrix parameter of reach must be a linear map .* Got 'vit.layers.9'"),
        ({"ranks": (1, 65)}, r"must be ints in 1\.\.min\(d_out, d_in\)=64\. Got 65"),
        ({"ranks": (0,)}, r"Got 0\."),
        ({"ranks": ()}, r"Got \(\)\."),
    ],
)
def test_what_cannot_be_fitted_is_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        reach(**wrong)
