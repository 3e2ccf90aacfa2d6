"""φ of snapshots with the end: built so that the answer is known, and beside the φ of `overlap_of`."""

from collections.abc import Callable
from typing import Literal

import pytest
import torch

from lora_lab.analysis import chance_level, drift, drift_of, overlap_of
from lora_lab.errors import AdapterError, SpecError
from lora_lab.lowrank import LowRank

Side = Literal["in", "out"]
sides = pytest.mark.parametrize("side", ["in", "out"])


def axes(*rows: int, dimension: int = 10) -> LowRank:
    """An update that reads and writes these coordinates, the first most strongly."""
    k = len(rows)
    picked = torch.eye(dimension)[list(rows)]
    return LowRank(picked.mT * torch.arange(k, 0, -1), picked, 1.0)


@sides
def test_phi_is_that_of_the_leading_directions(draw: Callable[..., LowRank], side: Side) -> None:
    snapshots = [(step, draw(20, 14, r, seed=step)) for step, r in ((1, 3), (5, 5), (9, 4))]
    found = drift_of("q", snapshots, k=3, side=side)
    assert (found.name, found.side, found.k) == ("q", side, 3)
    assert [point.step for point in found.points] == [1, 5, 9]
    for point, (_, delta) in zip(found.points, snapshots, strict=True):
        assert point.phi == pytest.approx(overlap_of("q", delta, snapshots[-1][1], side=side).phi[2][2], rel=1e-9)
        assert point.chance == chance_level(3, 3, {"in": 14, "out": 20}[side])


@sides
def test_directions_that_are_found_one_by_one(side: Side) -> None:
    end = axes(0, 1, 2, 3)
    snapshots = [(0, axes(4, 5, 6, 7)), (10, axes(4, 0, 6, 7)), (20, axes(3, 2, 0, 9)), (30, end)]
    found = drift_of("q", snapshots, k=4, side=side)
    assert [point.phi for point in found.points] == pytest.approx([0, 1 / 4, 3 / 4, 1], abs=1e-12)


@sides
def test_before_the_first_step_there_is_no_direction_rather_than_none_in_common(side: Side) -> None:
    start = LowRank(torch.zeros(10, 4), torch.eye(4, 10), 1.0)
    found = drift_of("q", [(0, start), (1, axes(0, 1))], side=side)
    assert (found.points[0].directions, found.points[0].phi, found.points[0].chance) == (0, None, None)
    assert (found.k, found.points[1].phi) == (2, 1.0)


def test_a_snapshot_of_lower_rank_is_compared_by_what_it_has() -> None:
    found = drift_of("q", [(1, axes(2)), (2, axes(5)), (3, axes(0, 1, 2))], k=3)
    assert [(point.directions, point.phi, point.chance) for point in found.points] == [
        (1, pytest.approx(1), 0.3),
        (1, pytest.approx(0), 0.3),
        (3, pytest.approx(1), 0.3),
    ]


def test_an_end_without_direction_gives_no_phi() -> None:
    found = drift_of("q", [(1, axes(2)), (2, LowRank(torch.zeros(10, 1), torch.eye(1, 10), 1.0))])
    assert (found.k, [point.phi for point in found.points]) == (0, [None, None])


def test_every_matrix_has_its_own_history_and_one_may_be_asked_for(draw: Callable[..., LowRank]) -> None:
    snapshots = [(step, {"q": draw(20, 14, 3, seed=step), "v": draw(8, 14, 2, seed=step + 9)}) for step in (1, 5, 9)]
    found = drift(snapshots, k=2, side="out")
    for one in found:
        assert one == drift_of(one.name, [(step, modules[one.name]) for step, modules in snapshots], k=2, side="out")
    assert [one.name for one in found] == ["q", "v"]
    assert drift(snapshots, module="v", k=2, side="out") == found[1:]


def test_a_matrix_without_a_history_is_refused(draw: Callable[..., LowRank]) -> None:
    snapshots = [(1, {"q": draw(4, 4, 2)}), (2, {"q": draw(4, 4, 2), "v": draw(4, 4, 2)})]
    with pytest.raises(AdapterError, match=r"The module parameter of drift must be one of q, v\. Got 'k'\."):
        drift(snapshots, module="k")
    with pytest.raises(AdapterError, match=r"v must be in all snapshots\. It is not in that of step 1\."):
        drift(snapshots)
    with pytest.raises(SpecError, match="at least one"):
        drift([])


def test_what_is_no_history_is_refused(draw: Callable[..., LowRank]) -> None:
    with pytest.raises(SpecError, match=r"snapshots parameter of drift_of must be at least one"):
        drift_of("q", [])
    with pytest.raises(SpecError, match=r"k parameter of drift_of must be an int of at least 1\. Got 0\."):
        drift_of("q", [(1, axes(0))], k=0)
    with pytest.raises(AdapterError, match=r"q must have one shape in all snapshots\. Got \(8, 6\), \(10, 10\)\."):
        drift_of("q", [(1, axes(0)), (2, draw(8, 6, 2))])
