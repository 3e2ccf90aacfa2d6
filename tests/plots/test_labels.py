"""Short names that tell runs apart and say no more than that."""

from dataclasses import replace

import pytest

import lora_lab as ll
from lora_lab.plots.labels import labels_of, method_label, r_meaning, row_label

SPEC = ll.RunSpec(bench="digits", base_sha256="", tuning=ll.LoraSpec(r=8, target_modules=("q_proj", "v_proj")))


def test_rank_and_seed_are_enough_where_nothing_else_differs() -> None:
    specs = [replace(SPEC, tuning=replace(SPEC.tuning, r=r), seed=seed) for r in (1, 8) for seed in (0, 1)]
    assert labels_of(specs) == ["r 1 · seed 0", "r 1 · seed 1", "r 8 · seed 0", "r 8 · seed 1"]


OTHERS = {
    "bench": replace(SPEC, bench="digits:inverted"),
    "alpha": replace(SPEC, tuning=replace(SPEC.tuning, lora_alpha=32)),
    "rsLoRA": replace(SPEC, tuning=replace(SPEC.tuning, method="rslora")),
    "targets": replace(SPEC, tuning=replace(SPEC.tuning, target_modules=("q_proj",))),
    "dropout": replace(SPEC, tuning=replace(SPEC.tuning, lora_dropout=0.1)),
    "rate": replace(SPEC, learning_rate=1e-3),
    "steps": replace(SPEC, steps=100),
    "batch": replace(SPEC, batch_size=16),
}


@pytest.mark.parametrize("what", OTHERS)
def test_runs_that_differ_have_different_labels(what: str) -> None:
    one, other = labels_of([SPEC, OTHERS[what]])
    assert one != other
    assert one.startswith("LoRA · r 8 · " if what == "rsLoRA" else "r 8 · ")
    assert one.endswith(" · seed 0")


def test_only_what_differs_is_said() -> None:
    specs = [replace(SPEC, learning_rate=rate) for rate in (1e-3, 5e-3)]
    assert labels_of(specs) == ["r 8 · lr 0.001 · seed 0", "r 8 · lr 0.005 · seed 0"]


BITFIT = replace(SPEC, tuning=ll.MethodSpec(method="bitfit"))
IA3 = replace(SPEC, learning_rate=0.02, tuning=ll.MethodSpec(method="ia3", target_modules=("k_proj", "v_proj", "fc2")))


def test_what_comes_with_the_method_goes_without_saying() -> None:
    assert labels_of([SPEC, BITFIT, IA3]) == ["LoRA · r 8 · seed 0", "BitFit · seed 0", "IA³ · seed 0"]


def test_what_differs_within_a_method_is_said_of_its_runs_alone() -> None:
    faster = replace(SPEC, learning_rate=0.01)
    assert labels_of([SPEC, faster, BITFIT]) == [
        "LoRA · r 8 · lr 0.005 · seed 0",
        "LoRA · r 8 · lr 0.01 · seed 0",
        "BitFit · seed 0",
    ]


def test_start_values_of_choice_are_said_beside_another_method() -> None:
    pissa = replace(SPEC, tuning=replace(SPEC.tuning, init_lora_weights="pissa"))
    qlora = replace(SPEC, tuning=replace(SPEC.tuning, method="qlora"), quant="nf4-dq")
    assert labels_of([pissa, qlora]) == ["LoRA · r 8 · pissa start · seed 0", "QLoRA · r 8 · seed 0"]
    assert [method_label(spec) for spec in (SPEC, pissa, qlora)] == ["LoRA", "LoRA · pissa start", "QLoRA · base in nf4-dq"]


def test_a_row_names_its_method_and_nothing_that_the_method_lacks() -> None:
    assert row_label(SPEC) == "LoRA · q_proj, v_proj · α 16 · lr 0.005 · 200 steps · batch 32"
    assert row_label(BITFIT) == "BitFit · lr 0.005 · 200 steps · batch 32"


def test_what_r_is_stands_where_it_is_no_rank() -> None:
    adapter = replace(SPEC, tuning=ll.MethodSpec(method="adapter", r=4))
    assert [r_meaning(spec) for spec in (SPEC, BITFIT, adapter)] == ["", "", "r is its bottleneck width"]


def test_a_label_does_not_depend_on_the_order_of_the_others() -> None:
    specs = [SPEC, *OTHERS.values(), BITFIT, IA3]
    assert labels_of(specs[::-1]) == labels_of(specs)[::-1]


def test_no_runs_need_no_labels() -> None:
    assert labels_of([]) == []
