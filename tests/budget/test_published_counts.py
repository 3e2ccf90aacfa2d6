"""Counts that papers and libraries printed, and where a printed count does not follow from its own formula.

Sources: Hu et al. 2021 (arXiv 2106.09685), tables 2 to 5 and the tables of its appendix D; PEFT's method comparison.
"""

import math

import pytest

from lora_lab.budget import budget, find_model, method_params, ranks_for_params
from lora_lab.specs import MethodSpec

QV, QKVO = ("q", "v"), ("q", "k", "v", "o")
LLAMA_3B = [
    ("lora", 32, 28 * 32 * ((3072 + 3072) + (3072 + 1024)), 9_175_040),
    ("lora", 64, 2 * 28 * 32 * ((3072 + 3072) + (3072 + 1024)), 18_350_080),
    ("dora", 32, 28 * 32 * ((3072 + 3072) + (3072 + 1024)) + 28 * (3072 + 1024), 9_289_728),
    ("vera", 256, 28 * (2 * 256 + 3072 + 1024), 129_024),
    ("full", 1, 3_212_749_824, 3_212_749_824),
]
# method, what r is to it, targets, our count, the paper's figure in millions
GPT3 = [
    ("preembed", 32 + 8, (), 491_520, "0.4"),
    ("preembed", 64 + 8, (), 884_736, "0.9"),
    ("preembed", 128 + 8, (), 1_671_168, "1.7"),
    ("preembed", 256 + 8, (), 3_244_032, "3.2"),
    ("preembed", 512 + 8, (), 6_389_760, "6.4"),
    ("prelayer", 2 + 2, (), 4_718_592, "5.1"),
    ("prelayer", 8 + 0, (), 9_437_184, "10.1"),
    ("prelayer", 8 + 8, (), 18_874_368, "20.2"),
    ("prelayer", 32 + 4, (), 42_467_328, "44.1"),
    ("prelayer", 64 + 0, (), 75_497_472, "76.1"),
    ("adapter", 1, (), 7_078_080, "7.1"),
    ("adapter", 4, (), 21_234_432, "21.2"),
    ("adapter", 8, (), 40_109_568, "40.1"),
    ("adapter", 16, (), 77_859_840, "77.9"),
    ("adapter", 64, (), 304_361_472, "304.4"),
    ("lora", 2, ("v",), 4_718_592, "4.7"),
    ("lora", 1, QV, 4_718_592, "4.7"),
    ("lora", 2, QV, 9_437_184, "9.4"),
    ("lora", 1, QKVO, 9_437_184, "9.4"),
    ("lora", 4, QV, 18_874_368, "18.8"),
    ("lora", 2, QKVO, 18_874_368, "18.8"),
    ("lora", 8, QV, 37_748_736, "37.7"),
    ("lora", 4, QKVO, 37_748_736, "37.7"),
    ("lora", 64, QV, 301_989_888, "301.9"),
    ("lora", 64, QKVO, 603_979_776, "603.8"),
]
DOES_NOT_FOLLOW = {("prelayer", r) for r in (4, 8, 16, 36, 64)} | {("lora", 64, QKVO)}
SMALLER = [
    ("roberta-base", 8, 2 * 24 * 768 * 8, 294_912),
    ("roberta-large", 8, 2 * 48 * 1024 * 8, 786_432),
    ("deberta-v2-xxlarge", 16, 2 * 96 * 1536 * 16, 4_718_592),
    ("deberta-v2-xxlarge", 8, 2 * 96 * 1536 * 8, 2_359_296),
    ("gpt2-medium", 4, 2 * 48 * 1024 * 4, 393_216),
    ("gpt2-large", 4, 2 * 72 * 1280 * 4, 737_280),
]
# Table 5: the choices that share a budget of 18 M, and the r that each affords.
TABLE_5 = {("q",): 8, ("k",): 8, ("v",): 8, ("o",): 8, ("q", "k"): 4, ("q", "v"): 4, ("q", "k", "v", "o"): 2}


def count(model: str, method: str, r: int = 8, targets: tuple[str, ...] = ()) -> int:
    return method_params(find_model(model).geometry, MethodSpec(method=method, r=r, target_modules=targets))


def as_printed(params: int, decimals: int) -> set[str]:
    """Millions, rounded and cut off: the paper does both."""
    scaled = params / 10 ** (6 - decimals)
    return {f"{whole / 10**decimals:.{decimals}f}" for whole in (round(scaled), math.floor(scaled))}


@pytest.mark.parametrize(("method", "r", "by_hand", "published"), LLAMA_3B, ids=[f"{m}-{r}" for m, r, *_ in LLAMA_3B])
def test_a_count_of_pefts_comparison_on_llama(method: str, r: int, by_hand: int, published: int) -> None:
    targets = ("q_proj", "v_proj") if method != "full" else ()
    assert count("llama-3.2-3b", method, r, targets) == by_hand == published


@pytest.mark.parametrize(
    ("method", "r", "targets", "params", "printed"), GPT3, ids=[f"{m}-{r}-{''.join(t)}" for m, r, t, *_ in GPT3]
)
def test_a_count_on_gpt3(method: str, r: int, targets: tuple[str, ...], params: int, printed: str) -> None:
    d, layers = 12288, 96
    by_the_papers_formula = {
        "preembed": d * r,
        "prelayer": layers * d * r,
        "adapter": 2 * layers * (2 * d * r + r + d),
        "lora": 2 * layers * len(targets) * d * r,
    }
    assert count("gpt3-175b", method, r, targets) == params == by_the_papers_formula[method]
    follows = not {(method, r), (method, r, targets)} & DOES_NOT_FOLLOW
    assert (printed in as_printed(params, 1)) == follows


def test_fine_tuning_gpt3_trains_what_its_shapes_give_and_not_what_is_printed() -> None:
    params = count("gpt3-175b", "full")
    assert params == 174_604_259_328
    assert "175255.8" not in as_printed(params, 1)


def test_the_papers_sizes_of_gpt3_are_these() -> None:
    """1.2 TB is printed where 8 bytes a parameter make 1.40; 35 MB is r = 4 in 16 bit, 4.7 M is r = 1."""
    assert round(8 * count("gpt3-175b", "full") / 10**12, 2) == 1.40
    assert round(2 * count("gpt3-175b", "lora", 4, QV) / 10**6, 1) == 37.7
    assert count("gpt3-175b", "lora", 1, QV) == 4_718_592


@pytest.mark.parametrize(("model", "r", "by_hand", "params"), SMALLER, ids=[f"{m}-{r}" for m, r, *_ in SMALLER])
def test_a_count_on_the_papers_smaller_models(model: str, r: int, by_hand: int, params: int) -> None:
    assert count(model, "lora", r, QV) == by_hand == params


@pytest.mark.parametrize(
    ("model", "r", "printed", "follows"),
    [
        ("roberta-base", 8, "0.3", True),
        ("roberta-large", 8, "0.8", True),
        ("deberta-v2-xxlarge", 16, "4.7", True),
        ("deberta-v2-xxlarge", 8, "4.7", False),
        ("gpt2-medium", 4, "0.35", False),
        ("gpt2-large", 4, "0.77", False),
    ],
)
def test_a_printed_figure_follows_from_its_formula_or_is_known_not_to(model: str, r: int, printed: str, follows: bool) -> None:
    decimals = len(printed.partition(".")[2])
    assert (printed in as_printed(count(model, "lora", r, QV), decimals)) == follows


def test_the_top_two_layers_of_gpt2_medium_are_the_printed_25_19_million() -> None:
    d = 1024
    layer = (3 * d * d + 3 * d) + (d * d + d) + (4 * d * d + 4 * d) + (4 * d * d + d) + 4 * d
    assert count("gpt2-medium", "partial", 2) == 2 * layer == 25_192_448
    assert "25.19" in as_printed(2 * layer, 2)


@pytest.mark.parametrize(("model", "printed"), [("gpt2-medium", "354.92"), ("gpt2-large", "774.03")])
def test_fine_tuning_gpt2_trains_the_printed_count_to_a_thousandth(model: str, printed: str) -> None:
    """GPT-2 L to the digit; the paper's GPT-2 M has 0.1 M more than the model on the Hub."""
    assert count(model, "full") == pytest.approx(float(printed) * 10**6, rel=1e-3)


@pytest.mark.parametrize(("targets", "r"), TABLE_5.items(), ids=["".join(targets) for targets in TABLE_5])
def test_every_choice_of_table_5_costs_18_874_368(targets: tuple[str, ...], r: int) -> None:
    assert count("gpt3-175b", "lora", r, targets) == 18_874_368


def test_the_ranks_of_table_5_are_what_its_budget_affords() -> None:
    geometry = find_model("gpt3-175b").geometry
    assert ranks_for_params(geometry, 18_874_368, TABLE_5) == TABLE_5
    assert ranks_for_params(geometry, 18_874_367, TABLE_5) == {targets: r - 1 for targets, r in TABLE_5.items()}


def test_a_count_is_the_same_whether_said_in_roles_or_in_module_names() -> None:
    assert budget("llama-3.2-3b", MethodSpec(r=32, target_modules=("q_proj", "v_proj"))).trainable_params == count(
        "llama-3.2-3b", "lora", 32, QV
    )
