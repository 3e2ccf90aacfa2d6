"""The questions turned round: the largest that fits fits, one more does not, and no change is asked for that is not needed."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from lora_lab.budget import (
    Budget,
    budget,
    cards,
    cheapest_change,
    find_card,
    grid,
    max_batch,
    max_r,
    max_seq,
    versus,
)
from lora_lab.budget.sentences import remedy_sentence
from lora_lab.errors import SpecError
from lora_lab.specs import MethodSpec, StepSpec

ALL_LINEAR = ("all-linear",)
QUESTIONS: dict[str, tuple[str, MethodSpec, dict[str, Any], str]] = {
    "LoRA on q and v": ("llama-3.2-1b", MethodSpec(), {}, "8GB"),
    "LoRA everywhere": ("llama-3.2-3b", MethodSpec(target_modules=ALL_LINEAR), {"batch": 2}, "24GB"),
    "checkpointed": ("mistral-7b-v0.1", MethodSpec(target_modules=ALL_LINEAR), {"checkpointing": True, "batch": 2}, "24GiB"),
    "QLoRA on a small card": ("qwen2.5-7b", MethodSpec(method="qlora"), {"quant": "nf4-dq", "checkpointing": True}, "T4"),
    "DoRA": ("gpt2-xl", MethodSpec(method="dora"), {"batch": 4}, "RTX 4090"),
    "VeRA": ("opt-1.3b", MethodSpec(method="vera"), {}, "12GB"),
    "AdaLoRA": ("bert-base-uncased", MethodSpec(method="adalora"), {"batch": 32}, "10GB"),
    "adapters": ("phi-2", MethodSpec(method="adapter"), {}, "24GB"),
    "a prefix": ("pythia-1b", MethodSpec(method="prefix"), {}, "8GB"),
    "top layers": ("gpt2-large", MethodSpec(method="partial"), {"seq": 1024}, "8GB"),
    "a tight fit": ("llama-3.2-3b", MethodSpec(target_modules=ALL_LINEAR), {"fused_loss": True}, "13GB"),
}
each_question = pytest.mark.parametrize(("model", "spec", "step", "card"), QUESTIONS.values(), ids=QUESTIONS)
# What each change does, said again: what a remedy names can then be undone, one at a time.
CHANGES: dict[str, Callable[[MethodSpec, StepSpec], tuple[MethodSpec, StepSpec]]] = {
    "flash attention": lambda spec, step: (spec, replace(step, attention="flash")),
    "a fused loss": lambda spec, step: (spec, replace(step, fused_loss=True)),
    "checkpointing": lambda spec, step: (spec, replace(step, checkpointing=True)),
    "an 8-bit optimizer": lambda spec, step: (spec, replace(step, optimizer="adamw8bit")),
    "adapters in bf16": lambda spec, step: (spec, replace(step, adapter_dtype="bf16")),
    "the base in int8": lambda spec, step: (spec, replace(step, quant="int8")),
    "the base in NF4, quantized twice": lambda spec, step: (spec, replace(step, quant="nf4-dq")),
    "half the batch": lambda spec, step: (spec, replace(step, batch=max(step.batch // 2, 1))),
    "a batch of 1": lambda spec, step: (spec, replace(step, batch=1)),
    "half the sequence": lambda spec, step: (spec, replace(step, seq=max(step.seq // 2, 1))),
    "LoRA on q and v instead": lambda spec, step: (MethodSpec(r=8, target_modules=("q", "v")), step),
}
TOO_LARGE: dict[str, tuple[str, MethodSpec, dict[str, Any], str]] = {
    "by a little": ("llama-3.2-1b", MethodSpec(), {"batch": 4}, "8GB"),
    "by activations": ("llama-3.2-3b", MethodSpec(target_modules=ALL_LINEAR), {"batch": 16, "seq": 1024}, "24GB"),
    "by weights": ("llama-2-13b-hf", MethodSpec(), {}, "RTX 4090"),
    "by both": ("qwen2.5-14b", MethodSpec(r=64, target_modules=ALL_LINEAR), {"batch": 8, "seq": 2048}, "24GB"),
    "by the optimizer": ("llama-3.2-1b", MethodSpec(r=2048, target_modules=ALL_LINEAR), {}, "24GB"),
    "by all its weights": ("gpt2-xl", MethodSpec(method="full"), {"seq": 1024}, "16GB"),
    "by scores": ("opt-1.3b", MethodSpec(), {"attention": "eager", "seq": 2048, "batch": 2}, "12GB"),
}
each_too_large = pytest.mark.parametrize(("model", "spec", "step", "card"), TOO_LARGE.values(), ids=TOO_LARGE)


def with_spec(made: Budget, spec: MethodSpec, **step: Any) -> Budget:
    """The same step of another method, or with some of it changed."""
    return budget(made.model, spec, **{name: getattr(made.step, name) for name in made.step.__dataclass_fields__} | step)


def changed(made: Budget, texts: tuple[str, ...]) -> Budget:
    spec, step = made.spec, made.step
    for text in texts:
        spec, step = CHANGES[text](spec, step)
    return budget(made.model, spec, **{name: getattr(step, name) for name in step.__dataclass_fields__})


@each_question
def test_the_largest_r_fits_and_one_more_does_not(model: str, spec: MethodSpec, step: Mapping[str, Any], card: str) -> None:
    made, on = budget(model, spec, **step), find_card(card)
    most = max_r(made, on)
    assert most is not None
    assert with_spec(made, replace(spec, r=most)).fits(on)
    geometry = made.model.geometry
    assert geometry.architecture is not None
    caps = {"adapter": geometry.architecture.hidden, "prefix": made.step.seq, "partial": len(geometry.stacks)}
    cap = caps[spec.method] if spec.method in caps else min(m.max_r for m in geometry.targeted(spec.targets))
    assert most == cap or not with_spec(made, replace(spec, r=most + 1)).fits(on)
    assert most <= cap


@each_question
def test_the_largest_batch_fits_and_one_more_does_not(model: str, spec: MethodSpec, step: Mapping[str, Any], card: str) -> None:
    made, on = budget(model, spec, **step), find_card(card)
    most = max_batch(made, on)
    assert most is not None
    assert with_spec(made, spec, batch=most).fits(on)
    assert not with_spec(made, spec, batch=most + 1).fits(on)


@each_question
def test_the_longest_sequence_fits_and_one_more_does_not(model: str, spec: MethodSpec, step: Mapping[str, Any], card: str) -> None:
    made, on = budget(model, spec, **step), find_card(card)
    most = max_seq(made, on)
    assert most is not None
    assert with_spec(made, spec, seq=most).fits(on)
    assert not with_spec(made, spec, seq=most + 1).fits(on)


@each_question
@pytest.mark.parametrize("largest", [max_r, max_batch, max_seq])
def test_a_larger_card_never_takes_less(
    model: str, spec: MethodSpec, step: Mapping[str, Any], card: str, largest: Callable[..., int | None]
) -> None:
    made = budget(model, spec, **step)
    answers = [largest(made, find_card(size)) or 0 for size in ("1GB", "4GB", "12GB", "24GB", "80GB", "400GB")]
    assert answers == sorted(answers)
    assert answers[-1] > answers[0]


def test_on_a_card_without_end_the_largest_r_is_the_full_rank() -> None:
    made = budget("llama-3.2-3b", MethodSpec(target_modules=("q", "v")))
    assert max_r(made, find_card("100TB")) == 1024  # v maps 3072 to 1024
    assert max_r(budget("llama-3.2-3b", MethodSpec(target_modules=("q",))), find_card("100TB")) == 3072


@pytest.mark.parametrize("largest", [max_r, max_batch, max_seq])
def test_where_not_even_one_fits_there_is_none(largest: Callable[..., int | None]) -> None:
    assert largest(budget("llama-2-70b-hf"), find_card("24GB")) is None


@pytest.mark.parametrize("method", ["full", "bitfit", "ia3", "ln_tuning"])
def test_a_method_without_a_rank_has_no_largest(method: str) -> None:
    assert max_r(budget("gpt2", method), find_card("80GB")) is None


def test_what_fits_needs_no_change() -> None:
    made = budget("gpt2")
    remedy = cheapest_change(made, find_card("24GB"))
    assert remedy.fits
    assert remedy.changes == ()
    assert remedy.made == made


@each_too_large
def test_a_remedy_fits_and_without_any_part_of_it_does_not(
    model: str, spec: MethodSpec, step: Mapping[str, Any], card: str
) -> None:
    made, on = budget(model, spec, **step), find_card(card)
    assert not made.fits(on)
    remedy = cheapest_change(made, on)
    assert remedy.fits
    assert remedy.changes
    assert remedy.made.fits(on)
    assert remedy.made.ledger == changed(made, remedy.changes).ledger
    for text in remedy.changes:
        assert not changed(made, tuple(other for other in remedy.changes if other != text)).fits(on), text


@each_too_large
def test_where_one_change_is_enough_it_is_the_least_costly_one(
    model: str, spec: MethodSpec, step: Mapping[str, Any], card: str
) -> None:
    made, on = budget(model, spec, **step), find_card(card)
    remedy = cheapest_change(made, on)
    trains_own = spec.method in ("full", "partial", "bitfit")
    possible = [text for text in CHANGES if not (trains_own and text.startswith("the base in"))]
    enough = [text for text in possible if changed(made, (text,)).fits(on)]
    assert remedy.changes == (enough[0],) if enough else len(remedy.changes) > 1


@each_too_large
def test_a_remedy_is_said_with_its_changes_and_its_card(model: str, spec: MethodSpec, step: Mapping[str, Any], card: str) -> None:
    on = find_card(card)
    remedy = cheapest_change(budget(model, spec, **step), on)
    said = remedy_sentence(remedy, on)
    assert said.startswith(f"It does not fit {on.name}; with ")
    assert all(change in said for change in remedy.changes)


def test_three_ways_differ_in_what_they_say_and_in_nothing_else() -> None:
    made = budget("llama-3.2-3b", MethodSpec(r=16, target_modules=("q", "v")), batch=2, seq=256)
    rows = versus(made)
    assert list(rows) == ["Full fine-tuning", "LoRA", "QLoRA"]
    full, lora, qlora = rows.values()
    assert lora is made
    assert full.trainable_params == full.total_params
    assert qlora.trainable_params == lora.trainable_params
    assert full.ledger.weights == lora.ledger.weights > 2.5 * qlora.ledger.weights
    assert full.ledger.peak > lora.ledger.peak > qlora.ledger.peak
    assert {(row.step.batch, row.step.seq, row.step.checkpointing) for row in rows.values()} == {(2, 256, False)}


def test_qlora_is_set_against_the_same_adapters_on_a_whole_base() -> None:
    rows = versus(budget("llama-3.2-3b", MethodSpec(method="qlora", r=16)))
    assert list(rows) == ["Full fine-tuning", "QLoRA", "LoRA"]
    assert rows["QLoRA"].step.quant == "nf4-dq"
    assert {row.step.quant for name, row in rows.items() if name != "QLoRA"} == {"none"}
    assert rows["LoRA"].trainable_params == rows["QLoRA"].trainable_params


@pytest.mark.parametrize("method", ["lora", "dora", "vera", "adapter", "prefix", "bitfit", "partial"])
def test_every_method_can_be_set_against_others(method: str) -> None:
    rows = versus(budget("gpt2", method))
    assert len(rows) == len(set(rows)) == 3
    assert rows["Full fine-tuning"].spec.method == "full"


def test_a_grid_is_a_row_a_choice_and_a_column_a_rank() -> None:
    made = budget("llama-3.2-1b", MethodSpec(), batch=2)
    choices, ranks = [("q",), ("q", "v"), ALL_LINEAR], [1, 8, 64]
    cells = grid(made, choices, iter(ranks))
    assert [[(cell.spec.targets, cell.spec.r) for cell in row] for row in cells] == [[(t, r) for r in ranks] for t in choices]
    for row in cells:
        assert [cell.ledger.peak for cell in row] == sorted(cell.ledger.peak for cell in row)
        for cell in row:
            assert cell.ledger == budget("llama-3.2-1b", cell.spec, batch=2).ledger


SIZES = [
    ("24GB", 24 * 10**9),
    ("24GiB", 24 * 2**30),
    ("24 gb", 24 * 10**9),
    ("0.5TB", 5 * 10**11),
    ("16000MB", 16 * 10**9),
    ("15360 MiB", 15360 * 2**20),
    ("  8GB ", 8 * 10**9),
]


@pytest.mark.parametrize(("said", "size"), SIZES)
def test_a_size_is_the_bytes_that_its_unit_says(said: str, size: int) -> None:
    assert find_card(said).memory_bytes == size


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("4090", "RTX 4090"),
        ("rtx 4090", "RTX 4090"),
        ("RTX4090", "RTX 4090"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA A100 80GB", "A100 80GB"),
        ("a100-80gb", "A100 80GB"),
        ("T4", "T4"),
        ("nvidia l4", "L4"),
        ("h100", "H100 80GB"),
        ("a6000", "RTX A6000"),
    ],
)
def test_a_card_is_found_as_people_say_it(said: str, name: str) -> None:
    assert find_card(said).name == name


def test_every_card_is_found_by_its_own_name() -> None:
    assert [find_card(card.name) for card in cards()] == list(cards())


def test_cards_come_smallest_first_and_hold_a_little_less_than_their_box_says() -> None:
    sizes = [card.memory_bytes for card in cards()]
    assert sizes == sorted(sizes)
    assert find_card("RTX 4090").memory_bytes <= 24 * 2**30


NO_CARDS = ["A100", "V100", "", " ", "0GB", "-24GB", "GB", "24", "24 bananas", "nan GB", "RTX", "1e3GB", "24GBs"]


@pytest.mark.parametrize("said", NO_CARDS)
def test_what_is_no_card_or_more_than_one_is_refused_in_a_sentence(said: str) -> None:
    with pytest.raises(SpecError) as caught:
        find_card(said)
    message = str(caught.value)
    assert message.endswith(f"Got {said!r}.")
    assert "\n" not in message
    assert "A100 40GB" in message
    assert "A100 80GB" in message
