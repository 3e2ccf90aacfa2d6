"""Verdicts follow the numbers: what is put there is found, and where there is nothing, nothing is."""

from collections.abc import Callable

import pytest

from lora_lab.report.evidence import two_ranks, two_seeds
from lora_lab.report.records import Evidence
from lora_lab.report.verdicts import Finding, findings
from tests.report.conftest import LARGE, SMALL, amplified, random_adapters, score_table, zero_maps


def found(evidence: Evidence) -> dict[str, Finding]:
    return {finding.key: finding for finding in findings(evidence)}


def test_random_adapters_and_scores_without_a_difference_give_no_finding(evidence: Callable[..., Evidence]) -> None:
    assert {key: one.is_found for key, one in found(evidence()).items()} == dict.fromkeys(
        ("targets", "ranks", "two_ranks", "two_seeds", "amplification"), False
    )


def test_a_direction_that_all_share_is_found_in_both_figures(evidence: Callable[..., Evidence]) -> None:
    small, large = random_adapters(SMALL, "small", shared=1), random_adapters(LARGE, "large", shared=1)
    given = found(evidence(two_ranks=two_ranks(small, large, SMALL, LARGE), two_seeds=two_seeds(large, LARGE)))
    assert given["two_ranks"].verdict == "agrees"
    assert "above a half in 8" in given["two_ranks"].paragraph
    assert given["two_seeds"].is_found
    assert "8 lie above it by more than random" in given["two_seeds"].paragraph


@pytest.mark.parametrize(
    ("first", "best", "verdict"),
    [
        ((0.90, 0.91, 0.92), (0.80, 0.81, 0.82), "agrees"),  # the least rank leads
        ((0.900, 0.901, 0.902), (0.901, 0.902, 0.903), "agrees"),  # a tenth of what the best gains is 7 points
        ((0.60, 0.61, 0.62), (0.90, 0.91, 0.92), "does not agree"),
        ((0.60, 0.80, 0.70), (0.70, 0.95, 0.80), "cannot be told"),
    ],
)
def test_a_rank_of_one_is_enough_or_not_as_its_distance_from_the_best_says(
    evidence: Callable[..., Evidence], first: tuple[float, ...], best: tuple[float, ...], verdict: str
) -> None:
    middle = (0.5, 0.5, 0.5)
    table = score_table({("q,v", 1): first, ("q,v", 4): best, ("q,v", 16): middle, ("q", 1): (0.99, 0.99, 0.99)})
    assert found(evidence(ranks=table))["ranks"].verdict == verdict


@pytest.mark.parametrize(
    ("q", "k", "both", "verdict"),
    [
        ((0.60, 0.61, 0.62), (0.60, 0.61, 0.62), (0.90, 0.91, 0.92), "agrees"),
        ((0.60, 0.61, 0.62), (0.90, 0.91, 0.92), (0.90, 0.91, 0.92), "agrees in part"),
        ((0.95, 0.96, 0.97), (0.60, 0.61, 0.62), (0.80, 0.81, 0.82), "does not agree"),
        ((0.89, 0.91, 0.92), (0.90, 0.91, 0.92), (0.90, 0.91, 0.92), "cannot be told"),
    ],
)
def test_targets_agree_as_the_seeds_tell_q_and_v_from_q_and_from_k(
    evidence: Callable[..., Evidence], q: tuple[float, ...], k: tuple[float, ...], both: tuple[float, ...], verdict: str
) -> None:
    assert found(evidence(targets=score_table({("q", 8): q, ("k", 8): k, ("q,v", 4): both})))["targets"].verdict == verdict


@pytest.mark.parametrize(
    ("small", "large", "verdict"),
    [
        ((0.50, 9.0), (0.80, 2.0), "agrees"),
        ((0.50, 2.0), (0.80, 9.0), "agrees in part"),
        ((0.11, 9.0), (0.80, 2.0), "does not agree"),  # within what random directions give
    ],
)
def test_amplification_needs_directions_that_w_has_and_a_smaller_factor_at_the_larger_rank(
    evidence: Callable[..., Evidence], small: tuple[float, float], large: tuple[float, float], verdict: str
) -> None:
    by_rank = {r: amplified(on_delta=on, factor=factor) for r, (on, factor) in ((SMALL, small), (LARGE, large))}
    assert found(evidence(amplifications=by_rank))["amplification"].verdict == verdict


def test_a_rank_that_is_told_behind_but_by_little_says_how_little(evidence: Callable[..., Evidence]) -> None:
    table = score_table({("q,v", 1): (0.900, 0.901, 0.902), ("q,v", 4): (0.92, 0.921, 0.922)}, base=0.1)
    given = found(evidence(ranks=table))["ranks"]
    half_width = table.between(*table.cells).half_width
    assert half_width is not None
    share = (0.02 + half_width) / (0.921 - 0.1)
    assert given.verdict == "agrees"
    assert "which the seeds tell" in given.paragraph
    assert f"at most {100 * share:.0f} % of what r = 4 gains over the frozen base, which scores 10.0 %" in given.paragraph


def test_where_the_least_rank_diverged_nothing_is_told_of_it(evidence: Callable[..., Evidence]) -> None:
    table = score_table({("q,v", 1): (None, 0.6), ("q,v", 8): (0.9, 0.91), ("q,v", 64): (0.9, 0.905)})
    assert found(evidence(ranks=table))["ranks"].verdict == "cannot be told"


def test_where_nothing_was_learned_no_rank_is_enough(evidence: Callable[..., Evidence]) -> None:
    table = score_table({("q,v", r): (0.2, 0.2, 0.2) for r in (1, 4)}, base=0.2)
    given = found(evidence(ranks=table))["ranks"]
    assert (given.verdict, "No rank gains anything" in given.paragraph) == ("cannot be told", True)


def test_zero_has_no_direction_and_missing_runs_are_no_finding(evidence: Callable[..., Evidence]) -> None:
    given = found(
        evidence(
            two_ranks=zero_maps(SMALL), two_seeds=zero_maps(LARGE), amplifications={SMALL: {}, LARGE: {}}, ranks=score_table({})
        )
    )
    assert {one.verdict for key, one in given.items() if key != "targets"} == {"cannot be told"}
    assert "no direction" in given["amplification"].paragraph


def test_a_table_that_was_not_run_has_no_finding(evidence: Callable[..., Evidence]) -> None:
    assert "targets" not in found(evidence(targets=None))
