"""Every choice of all else has a curve over its learning rates; which rate is best is told by the mean over seeds."""

from pathlib import Path

import pytest

import lora_lab as ll
from lora_lab.analysis.rate_curves import RateCurve, rate_curves
from lora_lab.specs import RunSpec
from lora_lab.sweeps import Run
from lora_lab.sweeps.configurations import rank_configurations


def a_run(method: str, r: int, rate: float, seed: int, score: float | None, *, metric: str = "accuracy") -> Run:
    tuning = ll.MethodSpec(method=method, r=r)
    spec = RunSpec(bench="digits", base_sha256="0" * 64, tuning=tuning, learning_rate=rate, seed=seed)
    status = "diverged" if score is None else "finished"
    return Run(spec.run_id, spec, {"status": status, "step": 7, "metric": metric, metric: score}, Path("runs"))


def curves_of(scores: dict[tuple[str, int, float], tuple[float | None, ...]], *, metric: str = "accuracy") -> tuple[RateCurve, ...]:
    runs = [a_run(*choice, seed, score, metric=metric) for choice, of in scores.items() for seed, score in enumerate(of)]
    return rate_curves(rank_configurations(runs))


SCORES: dict[tuple[str, int, float], tuple[float | None, ...]] = {
    ("rslora", 8, 0.1): (0.2, 0.3),
    ("lora", 8, 0.1): (0.8, 0.9),
    ("lora", 8, 0.001): (0.1, 0.3),
    ("lora", 2, 0.01): (0.7, 0.7),
    ("rslora", 8, 0.01): (0.7, 0.9),
    ("lora", 8, 0.01): (0.6, 0.7),
}


def test_a_choice_is_a_curve_from_its_lowest_rate_to_its_highest() -> None:
    curves = curves_of(SCORES)
    assert [(c.spec.tuning.method, c.spec.tuning.r, c.rates) for c in curves] == [
        ("lora", 2, (0.01,)),
        ("lora", 8, (0.001, 0.01, 0.1)),
        ("rslora", 8, (0.01, 0.1)),
    ]
    assert list(curves[1].means) == pytest.approx([0.2, 0.65, 0.85])
    assert curves[2].sds[0] == pytest.approx(0.2 / 2**0.5)


def test_the_best_rate_is_that_of_the_best_mean() -> None:
    assert [curve.best_rate for curve in curves_of(SCORES)] == [0.01, 0.1, 0.01]
    assert [curve.best_rate for curve in curves_of(SCORES, metric="loss")] == [0.01, 0.001, 0.1]


def test_a_rate_at_which_a_seed_diverged_has_no_mean_and_is_never_best() -> None:
    (curve,) = curves_of({("lora", 8, 0.01): (0.5, 0.6), ("lora", 8, 0.1): (0.9, None)})
    assert (curve.at(0.1), curve.best_rate, curve.best_mean) == (None, 0.01, pytest.approx(0.55))
    (lost,) = curves_of({("lora", 8, 0.1): (None, None)})
    assert (lost.best_rate, lost.best_mean) == (None, None)
    assert curve.at(0.5) is None


def test_one_best_rate_makes_everything_but_it_and_the_seed_one_choice() -> None:
    more = {("lora", 8, 0.01): (0.5,), ("lora", 4, 0.01): (0.5,), ("dora", 8, 0.01): (0.5,)}
    assert len(curves_of(more)) == 3
