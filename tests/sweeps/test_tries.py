"""Runs whose worker dies: again together, then alone, then no more."""

import pytest

import lora_lab as ll
from lora_lab.sweeps.groups import Group
from lora_lab.sweeps.tries import MOST_TRIES, Tries


@pytest.fixture
def group() -> Group:
    spec = {"bench": "digits", "base_sha256": "0" * 64}
    return Group(tuple(ll.RunSpec(**spec, seed=seed) for seed in range(3)), threads=1, workers=2)


def test_runs_are_tried_together_then_alone_then_given_up(group: Group) -> None:
    tries, waiting, rounds = Tries(), [group], []
    while waiting:
        rounds.append([len(part.specs) for part in waiting])
        outcomes = [tries.again(part, ended=()) for part in waiting]
        waiting = [part for again, _ in outcomes for part in again]
        given_up = [spec for _, last in outcomes for spec in last]
    assert rounds == [[3], [3], [1, 1, 1]]
    assert len(rounds) == MOST_TRIES
    assert given_up == list(group.specs)


def test_what_ended_is_not_tried_again(group: Group) -> None:
    first, *others = group.specs
    ((again,), given_up) = Tries().again(group, ended={first.run_id})
    assert (again.specs, again.threads, again.workers, given_up) == (tuple(others), 1, 2, [])
