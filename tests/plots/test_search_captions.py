"""The sentences under a search."""

from lora_lab.analysis.comparison import all_pairs
from lora_lab.analysis.search_records import Confirmed, Placed, Rung, SearchRecord
from lora_lab.plots.search_captions import rungs_caption, search_caption

RUNG = Rung(90, (Placed(1, "a1", "finished", 0.85, 0.5), Placed(0, "a0", "finished", 0.80, 0.6)))


def confirmed(trial: int, *scores: float | None) -> Confirmed:
    return Confirmed(trial, tuple(range(1, len(scores) + 1)), scores, tuple(s and s - 0.1 for s in scores), ("x",) * len(scores))


def caption(*rows: Confirmed, rungs: tuple[Rung, ...] = (RUNG,)) -> str:
    points = tuple({"r": r, "learning_rate": 0.01} for r in (2, 8))
    return search_caption(SearchRecord("digits", "accuracy", points, rungs, 1, rows, all_pairs(rows)))


def test_one_seed_does_not_tell_skill_from_luck() -> None:
    said = "Trial 1 (r 8) scored best on the validation split, 85.0 %, with one seed: that does not tell skill from luck."
    assert caption() == said
    assert caption(confirmed(1, None, 0.9)) == said  # a seed that diverged tells nothing of the others


def test_trials_that_the_spread_tells_apart() -> None:
    said = caption(confirmed(1, 0.85, 0.86, 0.84), confirmed(0, 0.65, 0.66, 0.64))
    assert said.startswith("Trial 1 (r 8) has the best mean on the validation split, 85.0 % ± 1.0 % over 3 seeds that the search")
    assert "; the spread over seeds tells it from every other trial that was trained again (20.0 ± 2.3 points ahead" in said
    assert said.endswith("On the test split it scores 75.0 % ± 1.0 %.")


def test_trials_that_it_does_not() -> None:
    said = caption(confirmed(1, 0.85, 0.80, 0.90), confirmed(0, 0.84, 0.80, 0.88))
    assert "; the spread over seeds does not tell it from trial 0 (1.0 ± " in said


def test_without_a_spread_nothing_is_told() -> None:
    assert "over 1 seed that the search did not use; without a spread" in caption(confirmed(1, 0.85), confirmed(0, 0.84))
    assert "; there is no other trial that was trained again to tell it from." in caption(confirmed(1, 0.85, 0.86))


def test_a_search_that_came_to_nothing_says_so() -> None:
    diverged = Rung(90, (Placed(0, "a0", "diverged", None, None), Placed(1, "a1", "lost", None, None)))
    assert caption(rungs=(diverged,)) == "No trial has come to the end of the search."


def test_what_is_about_to_be_trained() -> None:
    assert rungs_caption(((4, 200),), 0) == "4 trials of 200 steps."
    assert rungs_caption(((3, 30), (1, 90)), 6).startswith("3 trials of 30 steps, 1 trial of 90 steps, and up to 6 runs of 90")
