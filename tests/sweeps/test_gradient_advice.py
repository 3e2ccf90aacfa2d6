"""What the first gradient advises, against dense numpy; and what runs found, from runs whose scores the test makes up."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import lora_lab as ll
from lora_lab.analysis import WeightGradient, overlap_of, rank_advice
from lora_lab.benches import Bench, find_bench
from lora_lab.errors import SpecError
from lora_lab.geometry import Geometry
from lora_lab.lowrank import LowRank
from lora_lab.specs import MethodSpec
from lora_lab.sweeps import Run
from lora_lab.sweeps.gradient_advice import gradient_advice, learned_beside, tried_advice
from lora_lab.training import base_gradients
from lora_lab.training.begin import batches


@pytest.fixture(scope="module")
def bench() -> Bench:
    return find_bench("digits")


@pytest.fixture(scope="module")
def geometry(bench: Bench) -> Geometry:
    return bench.geometry()


@pytest.fixture(scope="module")
def drawn(geometry: Geometry) -> dict[str, torch.Tensor]:
    """A gradient of every matrix, v's the largest and o's the smallest."""
    generator = torch.Generator().manual_seed(0)
    sizes = {"v": 3.0, "q": 2.0, "k": 1.0, "o": 0.1}
    found = {m.name: torch.randn(m.d_out, m.d_in, generator=generator) for m in geometry.matrices if m.role in sizes}
    return {name: sizes[name.rsplit(".", 1)[-1][0]] * g for name, g in found.items()}


@pytest.fixture(scope="module")
def gradients(drawn: dict[str, torch.Tensor]) -> tuple[WeightGradient, ...]:
    return rank_advice(drawn)


def a_run(bench: Bench, targets: str, r: int, score: float, *, seed: int = 0, **settings: Any) -> Run:
    """A run that was never trained."""
    tuning = MethodSpec(r=r, target_modules=tuple(f"{role}_proj" for role in targets), **settings.pop("tuning", {}))
    named = {"bench": bench.name, "base_sha256": bench.base_sha256(), "tuning": tuning, "seed": seed, **settings}
    spec = ll.RunSpec(**named)
    layers = len(tuning.layers_to_transform or range(4))
    params = 2 * 64 * r * len(targets) * layers
    metrics = {"status": "finished", "metric": "accuracy", "accuracy": score, "trainable_params": params, "head_params": 0}
    return Run(spec.run_id, spec, metrics, Path("runs") / spec.run_id)


def seeds_of(bench: Bench, targets: str, r: int, scores: tuple[float, ...], **settings: Any) -> list[Run]:
    return [a_run(bench, targets, r, score, seed=seed, **settings) for seed, score in enumerate(scores)]


# From a bench


def test_it_is_of_the_first_batches_of_a_run_of_that_seed(bench: Bench) -> None:
    advice = gradient_advice("digits", batches=3, batch_size=8, seed=5, r=2, share=0.5)
    given = batches(bench.splits().train, 8, steps=3, seed=5)
    dense = {name: g.double().numpy() for name, g in base_gradients(bench.build(), given).items()}
    assert (advice.batches, advice.batch_size, advice.seed, advice.untrained_head) == (3, 8, 5, False)
    assert {one.name for one in advice.matrices} == set(dense)
    sizes = [one.per_parameter for one in advice.matrices]
    assert sizes == sorted(sizes, reverse=True)
    for one in advice.matrices:
        s = np.linalg.svd(dense[one.name], compute_uv=False)
        assert one.per_parameter == pytest.approx(np.sqrt((dense[one.name] ** 2).mean()), rel=1e-5)
        assert one.share_in_r == pytest.approx((s[:2] ** 2).sum() / (s**2).sum(), rel=1e-5)
        assert one.rank_for_share == int(np.argmax(np.cumsum(s**2) >= 0.5 * (s**2).sum())) + 1


def test_a_base_that_writes_is_looked_at_too(tiny_llama: SimpleNamespace) -> None:
    advice = gradient_advice(tiny_llama.base, data=tiny_llama.data, batches=2, batch_size=4)
    assert len(advice.matrices) == 2 * 7
    assert advice.matrices[-1].per_parameter > 0


@pytest.mark.slow
def test_a_head_that_is_drawn_with_the_seed_is_told() -> None:
    one, other = (gradient_advice("reviews", batches=1, batch_size=4, seed=seed) for seed in (0, 1))
    assert one.untrained_head
    assert one.matrices[0].per_parameter != other.matrices[0].per_parameter


@pytest.mark.parametrize("asked", [{"batches": 0}, {"batch_size": 0}, {"seed": -1}, {"k": 0}, {"r": 0}, {"share": 1.5}])
def test_what_is_out_of_range_is_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=f"The {next(iter(asked))} parameter of "):
        gradient_advice("digits", **{"batches": 1, "batch_size": 2, **asked})


# Against the ΔW of a run


def test_overlaps_are_phi_of_both_sides_with_every_matrix_that_the_run_changed(digits_run: Run) -> None:
    advice = gradient_advice("digits", batches=2, k=3, against=[digits_run])
    given = batches(find_bench("digits").splits().train, advice.batch_size, steps=2, seed=0)
    dense = base_gradients(find_bench("digits").build(), given)
    ((learned,), adapter) = advice.against, digits_run.adapter()
    assert (learned.run_id, [one.name for one in learned.overlaps]) == (digits_run.run_id, list(adapter))
    for one in learned.overlaps:
        g = LowRank.of_dense(dense[one.name].double())
        for side, leading in (("in", one.input_side), ("out", one.output_side)):
            assert leading.phi == pytest.approx(overlap_of(one.name, g, adapter[one.name], side=side).phi[2][2], rel=1e-4)
    assert learned.told("in") == tuple(one.input_side for one in learned.overlaps)


def test_training_went_down_the_gradient_rather_than_up(digits_run: Run) -> None:
    """In the mean over the matrices, and further than the sd of the cosine of ΔW with a random direction of its size, 1 / 64."""
    (learned,) = gradient_advice("digits", against=[digits_run]).against
    assert np.mean([one.descent_cosine for one in learned.overlaps]) > 3 / 64 / math.sqrt(len(learned.overlaps))


def test_a_run_that_changes_no_matrix_has_nothing_to_compare(tmp_path: Path) -> None:
    run = ll.train("digits", "bitfit", steps=1, runs=tmp_path)
    assert learned_beside(run, {}, k=4).overlaps == ()


def test_a_run_of_another_bench_is_refused(digits_run: Run) -> None:
    with pytest.raises(SpecError, match=rf"against parameter .* a run on digits:inverted as it is now\. Got '{digits_run.run_id}'"):
        gradient_advice("digits:inverted", batches=1, against=[digits_run])


# Against the targets that scored best


def test_choices_have_what_dense_gradients_say(
    bench: Bench, geometry: Geometry, drawn: dict[str, torch.Tensor], gradients: tuple[WeightGradient, ...]
) -> None:
    runs = [*seeds_of(bench, "v", 8, (0.5, 0.6)), *seeds_of(bench, "qv", 4, (0.7, 0.9))]
    tried = tried_advice(gradients, geometry, runs)
    assert tried is not None
    assert (tried.adapter_params, tried.metric_name) == (4096, "accuracy")
    assert [(one.targets, one.r, one.seeds) for one in tried.choices] == [("q,v", 4, 2), ("v", 8, 2)]
    assert [one.mean for one in tried.choices] == pytest.approx([0.8, 0.55])
    for one in tried.choices:
        own = [g.double().numpy() for name, g in drawn.items() if name.rsplit(".", 1)[-1][0] in one.targets.split(",")]
        assert one.per_parameter == pytest.approx(np.sqrt(np.mean([(g**2).mean() for g in own])), rel=1e-9)
        cut = [(np.linalg.svd(g, compute_uv=False)[: one.r] ** 2).sum() for g in own]
        assert one.in_reach == pytest.approx(np.sqrt(sum(cut)), rel=1e-9)


def test_in_reach_is_the_most_that_an_update_of_length_1_lowers_the_loss_by(
    bench: Bench, geometry: Geometry, drawn: dict[str, torch.Tensor], gradients: tuple[WeightGradient, ...]
) -> None:
    """Built from G's own leading directions over all matrices at once; drawn updates of that rank and length do not reach it."""
    runs = [*seeds_of(bench, "v", 4, (0.5,)), *seeds_of(bench, "k", 4, (0.7,))]
    tried = tried_advice(gradients, geometry, runs)
    assert tried is not None
    generator = torch.Generator().manual_seed(0)
    for one in tried.choices:
        own = [g.double() for name, g in drawn.items() if name.rsplit(".", 1)[-1][0] == one.targets]
        triplets = [torch.linalg.svd(g) for g in own]
        best = [(u[:, :4] * s[:4]) @ vh[:4] for u, s, vh in triplets]
        others = [torch.randn(64, 4, generator=generator).double() @ torch.randn(4, 64, generator=generator).double() for _ in own]
        falls = [
            sum(float((g * step).sum()) for g, step in zip(own, steps, strict=True))
            / math.sqrt(sum(float(step.square().sum()) for step in steps))
            for steps in (best, others)
        ]
        assert falls[0] == pytest.approx(one.in_reach, rel=1e-9)
        assert falls[1] < 0.5 * one.in_reach


@pytest.mark.parametrize(
    ("scores", "verdict"),
    [
        ({"v": (0.90, 0.91, 0.92), "q": (0.50, 0.51, 0.52)}, "agrees"),
        ({"v": (0.50, 0.51, 0.52), "q": (0.90, 0.91, 0.92)}, "differs"),
        ({"v": (0.50, 0.70, 0.90), "q": (0.55, 0.75, 0.93)}, "open"),
        ({"v": (0.50,), "q": (0.90,)}, "open"),
    ],
    ids=["agrees", "differs", "within the spread", "one seed"],
)
def test_the_verdict_is_what_the_seeds_allow(
    bench: Bench, geometry: Geometry, gradients: tuple[WeightGradient, ...], scores: dict[str, tuple[float, ...]], verdict: str
) -> None:
    runs = [run for targets, of_one in scores.items() for run in seeds_of(bench, targets, 8, of_one)]
    tried = tried_advice(gradients, geometry, runs)
    assert tried is not None
    assert tried.advised("per_parameter").targets == "v"
    assert tried.verdict("per_parameter") == verdict
    assert tried.pairs_alike("per_parameter") == (int(verdict == "agrees"), 1)


def test_pairs_are_counted_in_the_order_of_the_scores(
    bench: Bench, geometry: Geometry, gradients: tuple[WeightGradient, ...]
) -> None:
    """The gradient has v, q, k, o; the scores v, k, q, o: five of six."""
    scores = {"v": 0.9, "k": 0.8, "q": 0.7, "o": 0.6}
    tried = tried_advice(gradients, geometry, [a_run(bench, targets, 8, score) for targets, score in scores.items()])
    assert tried is not None
    assert tried.pairs_alike("per_parameter") == (5, 6)


def test_each_choice_stands_with_its_best_configuration(
    bench: Bench, geometry: Geometry, gradients: tuple[WeightGradient, ...]
) -> None:
    """Two rates of v are one choice; another budget, an unfinished run and q in some layers at their own cost are none of these."""
    runs = [
        *seeds_of(bench, "v", 8, (0.5, 0.5)),
        *seeds_of(bench, "v", 8, (0.6, 0.7), learning_rate=0.1),
        *seeds_of(bench, "q", 8, (0.4, 0.4)),
        *seeds_of(bench, "k", 8, (0.2, 0.2)),
        *seeds_of(bench, "q", 16, (0.9, 0.9)),
        *seeds_of(bench, "k", 16, (0.9, 0.9), tuning={"layers_to_transform": (0, 1)}),
    ]
    stopped = a_run(bench, "o", 8, 0.99)
    stopped.metrics["status"] = "stopped"
    tried = tried_advice(gradients, geometry, [*runs, stopped])
    assert tried is not None
    assert [(one.targets, one.mean) for one in tried.choices] == [
        ("k in layers 0,1", pytest.approx(0.9)),
        ("v", pytest.approx(0.65)),
        ("q", pytest.approx(0.4)),
        ("k", pytest.approx(0.2)),
    ]


@pytest.mark.parametrize("runs", [(), ("v",), ("v", "v")], ids=["none", "one", "one choice"])
def test_without_two_choices_there_is_nothing_to_hold_it_against(
    bench: Bench, geometry: Geometry, gradients: tuple[WeightGradient, ...], runs: tuple[str, ...]
) -> None:
    assert tried_advice(gradients, geometry, [a_run(bench, t, 8, 0.5, seed=seed) for seed, t in enumerate(runs)]) is None


def test_of_a_store_only_runs_of_the_bench_as_it_is_count(bench: Bench) -> None:
    here = [a_run(bench, targets, 8, 0.5) for targets in "qv"]
    elsewhere = [a_run(find_bench("digits:noised"), "k", 8, 0.9), a_run(bench, "o", 8, 0.9, base_sha256="0" * 64)]
    tried = gradient_advice("digits", batches=1, runs=[*here, *elsewhere]).tried
    assert tried is not None
    assert {one.targets for one in tried.choices} == {"q", "v"}
