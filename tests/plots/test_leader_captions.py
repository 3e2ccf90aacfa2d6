"""The sentence about the best configuration of a sweep."""

from lora_lab.analysis.comparison import all_pairs
from lora_lab.analysis.configuration_records import Configuration, Ranked, Ranking
from lora_lab.plots.leader_captions import labels_by_name, ranking_caption
from lora_lab.specs import MethodSpec, RunSpec


def a_row(number: int, r: int, *scores: float | None) -> Configuration:
    spec = RunSpec(bench="digits", base_sha256="", tuning=MethodSpec(r=r), seed=3)
    seeds = tuple(range(len(scores)))
    return Configuration(number, spec, seeds, scores, tuple(s and s - 0.1 for s in scores), ("x",) * len(scores))


def caption(*rows: Configuration) -> str:
    ranked = tuple(Ranked(row, None, None) for row in rows)
    return ranking_caption(Ranking("accuracy", ranked, all_pairs([row for row in rows if row.mean is not None])))


def test_the_best_one_is_named_by_what_tells_it_from_the_others_and_never_by_a_seed() -> None:
    assert list(labels_by_name([a_row(0, 2, 0.5), a_row(1, 8, 0.5)]).values()) == ["r 2", "r 8"]
    said = caption(a_row(1, 8, 0.85, 0.86, 0.84), a_row(0, 2, 0.65, 0.66, 0.64))
    assert said.startswith(
        "r 8 has the best mean on the validation split, 85.0 % ± 1.0 % over 3 seeds; the spread over seeds tells"
    )
    assert said.endswith("(20.0 ± 2.3 points ahead of the second). On the test split it scores 75.0 % ± 1.0 %.")


def test_those_that_the_spread_does_not_tell_it_from_are_named() -> None:
    said = caption(a_row(1, 8, 0.85, 0.80, 0.90), a_row(0, 2, 0.84, 0.80, 0.88), a_row(2, 4, 0.2, 0.21, 0.19))
    assert "does not tell it from r 2 (1.0 ± " in said


def test_without_a_spread_nothing_is_told() -> None:
    assert "; without a spread over seeds nothing tells it from the other." in caption(a_row(1, 8, 0.85), a_row(0, 2, 0.84))
    assert caption(a_row(1, 8, 0.85)).startswith("r 8 has the best mean")
    assert caption(a_row(0, 2, None)) == ""
