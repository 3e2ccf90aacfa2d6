"""What may be said of a search: the best trial, and the pairs that tell the confirmed apart."""

import json
from dataclasses import replace

import pytest
from scipy.stats import ttest_ind

from lora_lab.analysis.comparison import Prior, all_pairs
from lora_lab.analysis.search_records import Confirmed, Placed, Rung, SearchRecord, best_first

ROWS = [
    Placed(0, "a0", "finished", 0.7, 0.9),
    Placed(1, "a1", "diverged", None, None),
    Placed(2, "a2", "finished", 0.8, 0.5),
    Placed(3, "a3", "finished", 0.7, 0.8),
    Placed(4, "a4", "waiting", None, None),
]


def confirmed(trial: int, *scores: float | None) -> Confirmed:
    runs = tuple(f"{trial}-{seed}" for seed in range(len(scores)))
    return Confirmed(trial, tuple(range(1, len(scores) + 1)), scores, scores, runs)


def record(*rows: Confirmed, rungs_in_all: int = 1) -> SearchRecord:
    """Five trials on one rung, four of them over."""
    placed = best_first([one for one in ROWS if one.fate != "waiting"], sign=1)
    points = tuple({"r": 2**i, "learning_rate": 0.01} for i in range(5))
    return SearchRecord("digits", "accuracy", points, (Rung(10, placed),), rungs_in_all, rows, all_pairs(rows))


@pytest.mark.parametrize(("sign", "order"), [(1, [2, 3, 0, 1, 4]), (-1, [3, 0, 2, 1, 4])])
def test_the_better_score_then_the_lower_loss_is_first_and_what_has_none_last(sign: int, order: list[int]) -> None:
    assert [one.trial for one in best_first(ROWS, sign=sign)] == order
    assert best_first(ROWS[::-1], sign=sign) == best_first(ROWS, sign=sign)


def test_the_best_is_that_of_the_last_rung_unless_further_seeds_say_otherwise() -> None:
    best = record().best
    assert best is not None
    assert best.trial == 2
    best = record(confirmed(0, 0.9, 0.8), confirmed(2, 0.7, 0.6)).best
    assert best is not None
    assert best.trial == 0


def test_a_trial_with_a_seed_that_diverged_is_not_the_best() -> None:
    best = record(confirmed(0, 0.7, 0.6), confirmed(2, 0.9, None)).best
    assert best is not None
    assert best.trial == 0
    assert confirmed(2, 0.9, None).mean is None


def test_there_is_no_best_before_every_rung_is_trained() -> None:
    assert record(rungs_in_all=2).best is None
    waiting = replace(record(), rungs=(Rung(10, tuple(ROWS)),))
    assert waiting.best is None


def test_those_that_came_farther_are_ranked_before_better_scores_of_a_shorter_run() -> None:
    first, second = Rung(10, best_first(ROWS, sign=1)), Rung(30, (Placed(0, "b0", "finished", 0.1, 3.0),))
    assert [one.trial for one in replace(record(), rungs=(first, second)).ranked()] == [0, 2, 3]


def test_two_trials_are_told_apart_as_welch_does() -> None:
    a, b = confirmed(0, 0.81, 0.83, 0.82), confirmed(1, 0.71, 0.69, 0.75)
    (pair,) = all_pairs([a, b])
    assert pair.p == pytest.approx(ttest_ind(a.scores, b.scores, equal_var=False).pvalue)
    assert pair.is_told


def test_many_pairs_are_judged_all_at_once_and_variances_lean_on_each_other() -> None:
    rows = [confirmed(i, 0.80 + i / 100, 0.82 + i / 100, 0.81 + i / 100) for i in range(4)]
    pairs = all_pairs(rows)
    assert len(pairs) == 6
    assert all(pair.holm is not None and pair.p is not None and pair.holm >= pair.p for pair in pairs)
    assert [pair.difference for pair in all_pairs(rows, Prior())] == pytest.approx([pair.difference for pair in pairs])


def test_one_seed_tells_nothing() -> None:
    (pair,) = all_pairs([confirmed(0, 0.9), confirmed(1, 0.1)])
    assert (pair.p, pair.holm, pair.is_told) == (None, None, False)


def test_a_record_is_plain_json_with_the_point_of_every_trial() -> None:
    document = json.loads(json.dumps(record(confirmed(2, 0.8, 0.9), confirmed(0, 0.7, 0.6)).to_json(), allow_nan=False))
    assert [(row["trial"], row["point"]["r"]) for row in document["rungs"][0]["trials"]] == [(2, 4), (3, 8), (0, 1), (1, 2)]
    assert document["best"]["trial"] == 2
    assert document["best"]["over_seeds"]["mean"] == pytest.approx(0.85)
    assert document["best"]["over_seeds"] == document["confirmed"][0]


def test_what_all_trials_have_in_common_is_not_said_of_each() -> None:
    assert record().varied(3) == {"r": 8}
