"""The map and the spectra of a first gradient draw what was measured; the sentences claim no more."""

import math
from dataclasses import replace

import pytest

from lora_lab import plots
from lora_lab.analysis.base_records import GradientOverlap, WeightGradient
from lora_lab.analysis.gradient_records import GradientAdvice, LearnedBeside, TriedAdvice, TriedTargets
from lora_lab.analysis.records import LeadingOverlap


def gradient(name: str, *values: float, shape: tuple[int, int] = (4, 4), rank: int | None = 1) -> WeightGradient:
    total = sum(value * value for value in values)
    first, is_zero = max(values, default=0.0), total == 0
    return WeightGradient(
        name=name,
        shape=shape,
        frobenius=math.sqrt(total),
        per_parameter=math.sqrt(total / (shape[0] * shape[1])),
        singular_values=values,
        is_complete=True,
        stable_rank=None if is_zero else total / first**2,
        r=1,
        share_in_r=None if is_zero else first**2 / total,
        share=0.9,
        rank_for_share=None if is_zero else rank,
    )


def advice(*matrices: WeightGradient, untrained_head: bool = False) -> GradientAdvice:
    return GradientAdvice("digits", "0" * 64, 0, 8, 32, untrained_head, 1, 0.9, matrices, (), None)


V = gradient("vit.layers.0.attention.v_proj", 4.0, 0.0, 0.0, 0.0)
Q = gradient("vit.layers.1.attention.q_proj", 1.2, 1.6, 1e-12, 0.0, rank=2)
POOLER = gradient("pooler.dense", 0.4, 0.0)
NONE = gradient("vit.layers.1.attention.v_proj", 0.0, 0.0)


def test_the_map_has_a_cell_a_layer_and_matrix_and_a_gap_where_there_is_no_gradient() -> None:
    (map_,) = plots.base_gradient_map(advice(V, Q, POOLER, NONE)).data
    assert (map_.x, map_.y) == (("q", "v", "pooler"), ("layer 0", "layer 1", ""))
    assert [list(row) for row in map_.customdata] == [[None, 1.0, None], [0.5, None, None], [None, None, 0.1]]
    assert [list(row) for row in map_.z] == [
        [None, 0.0, None],
        [pytest.approx(math.log10(0.5)), None, None],
        [None, None, pytest.approx(-1)],
    ]


def test_matrices_of_one_cell_are_taken_together_and_a_decoder_stands_below_the_encoder() -> None:
    experts = [gradient(f"model.layers.0.mlp.experts.down_proj[{i}]", value) for i, value in enumerate((3.0, 4.0))]
    stacks = [gradient(f"{stack}.block.{i}.layer.0.SelfAttention.q", 1.0) for stack in ("encoder", "decoder") for i in (10, 2)]
    (map_,) = plots.base_gradient_map(advice(*experts)).data
    assert (map_.x, [list(row) for row in map_.customdata]) == (("down",), [[pytest.approx(math.sqrt(25 / 32))]])
    (map_,) = plots.base_gradient_map(advice(*stacks)).data
    assert map_.y == ("encoder 2", "encoder 10", "decoder 2", "decoder 10")


def test_spectra_are_shares_of_the_first_without_what_rounding_made() -> None:
    many = [gradient(f"vit.layers.{i}.attention.k_proj", 2.0, 1.0) for i in range(9)]
    (first, second) = plots.base_gradient_spectra([gradient("a.q_proj", 4.0, 1.0, 1e-9, 0.0), NONE, V]).data
    assert (tuple(first.x), tuple(first.y)) == ((1, 2, 3, 4), (1.0, 0.25, None, None))
    assert (first.name, second.name) == ("q", "layer 0 · v")
    assert len(plots.base_gradient_spectra(many).data) == 6


@pytest.mark.parametrize("matrices", [(), (NONE,)], ids=["none", "zero"])
def test_without_a_gradient_plots_and_sentence_say_so(matrices: tuple[WeightGradient, ...]) -> None:
    for fig in (plots.base_gradient_map(advice(*matrices)), plots.base_gradient_spectra(matrices)):
        assert (len(fig.data), len(fig.layout.annotations)) == (0, 1)
    assert plots.base_gradient_caption(advice(*matrices)) == "The loss depends on no matrix here."


def test_the_sentence_says_where_it_is_largest_and_which_ranks_it_asks_for() -> None:
    said = "Per parameter the gradient is largest in layer 0 · v (1), 2 times that of layer 1 · q; "
    followed = "an update of rank 1 can follow 64 % to 100 % of it, matrix by matrix"
    assert plots.base_gradient_caption(advice(V, Q, NONE)) == f"{said}{followed}; 90 % takes ranks 1 to 2."
    unknown = replace(Q, rank_for_share=None)
    head = " It comes through a head that has learned nothing yet: another seed draws another."
    assert plots.base_gradient_caption(advice(V, unknown, untrained_head=True)) == f"{said}{followed}.{head}"
    alone = "an update of rank 1 can follow 100 % of it, matrix by matrix; 90 % takes rank 1."
    assert plots.base_gradient_caption(advice(V)) == f"Per parameter the gradient is largest in layer 0 · v (1); {alone}"


def overlap(phi: float, *, chance: float = 0.0625) -> LeadingOverlap:
    return LeadingOverlap(4, phi, chance, 0.02)


def test_a_run_is_held_against_it_on_both_sides_beside_chance() -> None:
    both = GradientOverlap("q", overlap(0.5), overlap(0.1), 0.3), GradientOverlap("v", overlap(0.05), overlap(0.9), 0.1)
    had = (
        "the gradient had leading input directions of ΔW in 1 (φ 0.28 in the mean, chance 0.062) and leading output directions of "
    )
    rest = "ΔW in 1 (φ 0.50 in the mean, chance 0.062); the cosine of ΔW with a step straight down is 0.20 in the mean."
    said = f"Of the 2 matrices that the run abc changed, {had}{rest}"
    assert plots.learned_beside_caption(LearnedBeside("abc", both), run="the run abc") == said


def test_where_an_overlap_tells_nothing_none_is_told() -> None:
    near = LearnedBeside("abc", (GradientOverlap("q", overlap(0.9, chance=0.6), overlap(0.9, chance=0.6), None),))
    assert plots.learned_beside_caption(near, run="abc") == "Of the one matrix that abc changed, no overlap can tell anything."
    assert plots.learned_beside_caption(LearnedBeside("abc", ()), run="the run") == (
        "The run changed no matrix that the base has a gradient of."
    )


def choice(targets: str, per_parameter: float, in_reach: float, mean: float, told: bool | None) -> TriedTargets:
    return TriedTargets(targets, 4, per_parameter, in_reach, mean, 0.01, 3, told)


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        (True, "the spread over seeds tells it from the best"),
        (False, "the spread over seeds does not tell it from the best"),
        (None, "without a spread over seeds nothing tells it from the best"),
    ],
)
def test_the_verdict_names_what_the_gradient_puts_first_and_what_scored(told: bool | None, sentence: str) -> None:
    best, other = choice("q,v", 1.0, 9.0, 0.8, None), choice("v", 2.0, 3.0, 0.7, told)
    scored = "At 4,096 parameters q,v scores best of 2 choices of targets, 80.0 % ± 1.0 % over 3 seeds."
    first = f"By the gradient per parameter v comes first, which scores 70.0 %: {sentence}; that orders 0 of 1 pair of choices"
    second = "By the gradient within the rank that each can afford it comes first too; that orders 1 of 1 pair of choices"
    said = f"{scored} {first} as the scores do. {second} as the scores do."
    assert plots.tried_advice_caption(TriedAdvice(4096, "accuracy", (best, other))) == said


def test_without_runs_there_is_no_verdict() -> None:
    assert plots.tried_advice_caption(None) == ("There are no runs with two choices of targets at one budget to hold that against.")
