"""φ and principal angles against naive loops, SciPy, and subspaces built by hand."""

import math
from collections.abc import Callable

import pytest
import torch
from scipy.linalg import subspace_angles
from torch import Tensor

from lora_lab.analysis import chance_sd, control_overlap, directions, overlap, overlap_of, principal_angles, subspace_similarity
from lora_lab.analysis.records import LeadingOverlap, Of, Overlap, Side
from lora_lab.errors import AdapterError, SpecError
from lora_lab.lowrank import LowRank

KINDS: list[tuple[Of, Side]] = [("delta", "in"), ("delta", "out"), ("a", "in")]
kinds = pytest.mark.parametrize(("of", "side"), KINDS)


def random_delta(r: int, *, seed: int, d_out: int = 20, d_in: int = 14) -> LowRank:
    generator = torch.Generator().manual_seed(seed)
    return LowRank(torch.randn(d_out, r, generator=generator), torch.randn(r, d_in, generator=generator), 0.5)


def orthonormal(d: int, k: int, *, seed: int) -> Tensor:
    return torch.linalg.qr(torch.randn(d, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))[0]


def reading(*rows: int, d_in: int = 6) -> LowRank:
    """An update that reads these input coordinates, the first most strongly, and writes each to an output of its own."""
    k = len(rows)
    return LowRank(torch.eye(8, k) * torch.arange(k, 0, -1), torch.eye(d_in)[list(rows)], 1.0)


def dense_directions(delta: LowRank, of: Of, side: Side) -> Tensor:
    """Singular vectors of the whole matrix, as columns, by a dense SVD in float64."""
    whole = delta.lora_a.double() if of == "a" else delta.scaling * delta.lora_b.double() @ delta.lora_a.double()
    u, _, vh = torch.linalg.svd(whole, full_matrices=False)
    return (vh.mT if side == "in" else u)[:, : delta.r]


def grid(record: Overlap) -> Tensor:
    return torch.tensor(record.phi, dtype=torch.float64)


@pytest.mark.parametrize(("i", "j"), [(1, 1), (2, 5), (5, 2), (7, 7)])
def test_similarity_is_the_mean_squared_cosine_of_the_angles(i: int, j: int) -> None:
    u, v = orthonormal(16, i, seed=1), orthonormal(16, j, seed=2)
    cosines = torch.tensor([math.cos(angle) for angle in subspace_angles(u.numpy(), v.numpy())])
    assert subspace_similarity(u, v) == pytest.approx(float(cosines.square().mean()), rel=1e-6)


@kinds
@pytest.mark.parametrize(("first_r", "second_r"), [(1, 1), (3, 6), (6, 3), (14, 20)])
def test_phi_is_the_similarity_of_every_pair_of_leading_subspaces(of: Of, side: Side, first_r: int, second_r: int) -> None:
    first, second = random_delta(first_r, seed=1), random_delta(second_r, seed=2)
    u, v = dense_directions(first, of, side), dense_directions(second, of, side)
    naive = [[subspace_similarity(u[:, :i], v[:, :j]) for j in range(1, v.shape[1] + 1)] for i in range(1, u.shape[1] + 1)]
    record = overlap_of("q", first, second, of=of, side=side)
    torch.testing.assert_close(grid(record), torch.tensor(naive, dtype=torch.float64), rtol=0, atol=1e-9)
    assert record.dimension == u.shape[0]


@kinds
def test_phi_with_itself_is_one_wherever_one_subspace_holds_the_other(of: Of, side: Side) -> None:
    delta = random_delta(5, seed=3)
    torch.testing.assert_close(grid(overlap_of("q", delta, delta, of=of, side=side)), torch.ones(5, 5, dtype=torch.float64))


@kinds
def test_phi_lies_between_zero_and_one(of: Of, side: Side) -> None:
    first = random_delta(12, seed=4)
    nearly = LowRank(first.lora_b + 1e-7, first.lora_a + 1e-7, 1.0)
    for other in (first, nearly, random_delta(9, seed=5)):
        phi = grid(overlap_of("q", first, other, of=of, side=side))
        assert bool(((phi >= 0) & (phi <= 1)).all())


@kinds
def test_swapping_the_adapters_transposes_phi(of: Of, side: Side) -> None:
    first, second = random_delta(3, seed=6), random_delta(5, seed=7)
    forth, back = (overlap_of("q", *pair, of=of, side=side) for pair in ((first, second), (second, first)))
    torch.testing.assert_close(grid(forth), grid(back).mT, rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.tensor(forth.chance), torch.tensor(back.chance).mT)


def rotated(delta: LowRank) -> LowRank:
    q = orthonormal(delta.r, delta.r, seed=8)
    return LowRank(delta.lora_b.double() @ q, q.mT @ delta.lora_a.double(), delta.scaling)


def resigned(delta: LowRank) -> LowRank:
    return LowRank(-delta.lora_b, delta.lora_a, delta.scaling)


def rescaled(delta: LowRank) -> LowRank:
    return LowRank(1024 * delta.lora_b, delta.lora_a / 64, 3 * delta.scaling)


@kinds
@pytest.mark.parametrize("change", [rotated, resigned, rescaled])
def test_phi_does_not_depend_on_basis_sign_or_size_of_the_factors(change: Callable[[LowRank], LowRank], of: Of, side: Side) -> None:
    first, second = random_delta(4, seed=9), random_delta(6, seed=10)
    plain = overlap_of("q", first, second, of=of, side=side)
    changed = overlap_of("q", change(first), second, of=of, side=side)
    torch.testing.assert_close(grid(changed), grid(plain), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (reading(0, 1), reading(2, 3), [[0, 0], [0, 0]]),
        (reading(0, 1), reading(0, 2), [[1, 1], [1, 1 / 2]]),
        (reading(0, 1), reading(1, 0), [[0, 1], [1, 1]]),
        (reading(0, 1, 2), reading(2), [[0], [0], [1]]),
    ],
)
def test_phi_on_coordinate_axes_counts_the_shared_ones(first: LowRank, second: LowRank, expected: list[list[float]]) -> None:
    torch.testing.assert_close(grid(overlap_of("q", first, second)), torch.tensor(expected, dtype=torch.float64))


def test_input_and_output_sides_are_told_apart() -> None:
    first, second = reading(0, 1), reading(2, 3)  # different inputs, the same two outputs
    assert grid(overlap_of("q", first, second, side="in")).max() < 1e-12
    assert grid(overlap_of("q", first, second, side="out")).min() > 1 - 1e-12


def test_directions_of_a_ignore_b() -> None:
    delta = random_delta(3, seed=11)
    untrained = LowRank(torch.zeros_like(delta.lora_b), delta.lora_a, 1.0)
    assert overlap_of("q", untrained, delta, of="a").phi == overlap_of("q", delta, delta, of="a").phi


def test_only_directions_that_are_used_are_compared() -> None:
    rank_two = LowRank(torch.eye(8, 5) * torch.tensor([2.0, 1, 0, 0, 0]), random_delta(5, seed=12).lora_a, 1.0)
    record = overlap_of("q", rank_two, random_delta(4, seed=13, d_out=8))
    assert (len(record.phi), len(record.phi[0])) == (2, 4)
    assert directions(rank_two, of="a").shape == (14, 5)


@pytest.mark.parametrize("side", ["in", "out"])
@pytest.mark.parametrize("zero_first", [True, False])
def test_a_zero_update_has_no_overlap(side: Side, zero_first: bool) -> None:
    trained = random_delta(3, seed=14)
    zero = LowRank(torch.zeros_like(trained.lora_b), trained.lora_a, 1.0)
    record = overlap_of("q", *((zero, trained) if zero_first else (trained, zero)), side=side)
    assert (record.phi, record.chance, record.leading()) == (None, None, None)
    assert record.dimension == {"in": 14, "out": 20}[side]


@kinds
def test_the_chance_level_of_each_cell_is_the_larger_share_of_the_space(of: Of, side: Side) -> None:
    record = overlap_of("q", random_delta(2, seed=15), random_delta(3, seed=16), of=of, side=side)
    d = {"in": 14, "out": 20}[side]
    assert record.chance == ((1 / d, 2 / d, 3 / d), (2 / d, 2 / d, 3 / d))


def test_left_vectors_of_a_are_refused() -> None:
    with pytest.raises(SpecError, match=r"side parameter of directions must be 'in' when of is 'a'\. Got 'out'\."):
        directions(random_delta(2, seed=17), of="a", side="out")


@pytest.mark.parametrize("angles", [(0.0, 1e-10, 1e-3), (0.7, 0.78, 0.79), (0.0, 0.5, math.pi / 2), (1.5, 1.57, math.pi / 2)])
@pytest.mark.parametrize("extra", [0, 2])
def test_principal_angles_are_those_that_were_built_in(angles: tuple[float, ...], extra: int) -> None:
    k, basis = len(angles), orthonormal(12, 12, seed=18)
    theta = torch.tensor(angles, dtype=torch.float64)
    u = basis[:, : k + extra]
    v = basis[:, :k] * theta.cos() + basis[:, 6 : 6 + k] * theta.sin()
    mixed = v @ orthonormal(k, k, seed=19)
    for pair in ((u, mixed), (mixed, u)):
        torch.testing.assert_close(principal_angles(*pair), theta, rtol=1e-6, atol=1e-14)


@pytest.mark.parametrize(("i", "j"), [(1, 1), (3, 3), (2, 6), (6, 2), (9, 9)])
def test_principal_angles_agree_with_scipy(i: int, j: int) -> None:
    u, v = orthonormal(12, i, seed=20), orthonormal(12, j, seed=21)
    expected = torch.from_numpy(subspace_angles(u.numpy(), v.numpy()).copy()).flip(0)
    torch.testing.assert_close(principal_angles(u, v), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("most", "i"), [(1, 1), (2, 2), (4, 3), (9, 3)])
def test_leading_takes_as_many_directions_as_both_have(most: int, i: int) -> None:
    record = overlap_of("q", random_delta(3, seed=22), random_delta(5, seed=23))
    leading = record.leading(most)
    assert (leading.i, leading.phi, leading.chance) == (i, record.phi[i - 1][i - 1], record.chance[i - 1][i - 1])


@pytest.mark.parametrize(
    ("phi", "chance", "tells", "is_above_chance"),
    [
        (0.50, 0.10, True, True),
        (0.30, 0.10, True, False),  # exactly four standard deviations above
        (0.02, 0.10, True, False),
        (1.00, 0.50, True, True),
        (1.00, 0.51, False, False),
    ],
)
def test_an_overlap_is_above_chance_only_beyond_its_spread_and_where_it_can_tell(
    phi: float, chance: float, tells: bool, is_above_chance: bool
) -> None:
    leading = LeadingOverlap(4, phi, chance, 0.05)
    assert (leading.tells, leading.is_above_chance) == (tells, is_above_chance)


def test_overlap_takes_the_shared_modules_in_the_first_adapters_order() -> None:
    first = {name: random_delta(2, seed=24) for name in ("v", "q", "only here")}
    second = {name: random_delta(3, seed=25) for name in ("q", "only there", "v")}
    assert [record.name for record in overlap(first, second)] == ["v", "q"]
    assert [record.name for record in overlap(first, second, module="q")] == ["q"]


def test_overlap_refuses_what_cannot_be_compared() -> None:
    first = {"q": random_delta(2, seed=26), "v": random_delta(2, seed=27)}
    with pytest.raises(AdapterError, match=r"at least one matrix in common\. They share none\."):
        overlap(first, {"k": random_delta(2, seed=28)})
    with pytest.raises(AdapterError, match=r"module parameter of overlap must be one of q, v\. Got 'k'\."):
        overlap(first, first, module="k")
    with pytest.raises(AdapterError, match=r"q must have one shape in both adapters. Got \(20, 14\) and \(20, 15\)"):
        overlap(first, {"q": random_delta(2, seed=29, d_in=15)})


def test_at_most_so_many_directions_are_the_corner_of_all() -> None:
    first, second = random_delta(5, seed=30), random_delta(7, seed=31)
    whole, corner = overlap_of("q", first, second), overlap_of("q", first, second, most=3)
    assert len(corner.phi) == 3
    for row, of_all in zip(corner.phi, whole.phi, strict=False):
        assert row == pytest.approx(of_all[:3], abs=1e-12)


def test_mean_above_chance_is_the_mean_over_the_cells_that_can_tell() -> None:
    record = overlap_of("q", random_delta(9, seed=32), random_delta(4, seed=33))
    cells = [(record.phi[i][j], max(i + 1, j + 1) / 14) for i in range(9) for j in range(4)]
    told = [phi - chance for phi, chance in cells if chance <= 0.5]
    assert len(told) == 28
    assert record.mean_above_chance == pytest.approx(sum(told) / 28)
    narrow = overlap_of("q", random_delta(1, seed=34, d_in=1), random_delta(1, seed=35, d_in=1))
    assert narrow.mean_above_chance is None


def test_the_control_has_the_sizes_of_what_it_stands_beside_and_the_level_of_chance() -> None:
    record = overlap_of("q", random_delta(4, seed=36, d_in=60), random_delta(6, seed=37, d_in=60))
    controls = [control_overlap(record, seed=seed) for seed in range(200)]
    assert {(len(c.phi), len(c.phi[0]), c.dimension) for c in controls} == {(4, 6, 60)}
    assert control_overlap(record, seed=1).phi == controls[1].phi != controls[2].phi
    mean = sum(c.phi[3][5] for c in controls) / 200
    assert mean == pytest.approx(0.1, abs=4 * chance_sd(4, 6, 60) / 200**0.5)
    assert abs(sum(c.mean_above_chance for c in controls) / 200) < 0.01
