"""The formula told line by line: every line's arithmetic is its bytes, and the lines are the whole peak."""

import pytest

import lora_lab as ll
from lora_lab.budget.explain import memory_lines

CASES = [
    ("llama-3.2-3b", ll.MethodSpec(r=32), {"batch": 4, "seq": 750}),
    ("llama-3.2-3b", ll.MethodSpec(method="full"), {}),
    ("gpt2", ll.MethodSpec(method="dora", target_modules=("all-linear",)), {"checkpointing": True}),
    ("mixtral-8x7b-v0.1", ll.MethodSpec(method="qlora"), {}),
    ("bert-base-uncased", ll.MethodSpec(method="ia3"), {}),
    ("gemma-2-2b", ll.MethodSpec(method="prefix"), {"attention": "eager"}),
    ("qwen3-0.6b", ll.MethodSpec(method="lora", layers_to_transform=(20, 21)), {"quant": "int8"}),
]


@pytest.mark.parametrize(("model", "spec", "step"), CASES)
def test_lines_sum_to_the_peak(model: str, spec: ll.MethodSpec, step: dict[str, object]) -> None:
    made = ll.budget(model, spec, **step)
    assert sum(line.size_bytes for line in memory_lines(made)) == made.ledger.peak


@pytest.mark.parametrize(("model", "spec", "step"), CASES)
def test_arithmetic_of_each_line_gives_its_bytes(model: str, spec: ll.MethodSpec, step: dict[str, object]) -> None:
    told = [line for line in memory_lines(ll.budget(model, spec, **step)) if line.text]
    assert told
    for line in told:
        value = eval(line.text.replace("·", "*").replace(",", ""))
        assert value == pytest.approx(line.size_bytes, rel=1e-3), line  # shares are told in four decimals


def test_activations_are_told_layer_by_layer_where_the_loss_is_the_peak() -> None:
    names = [line.name for line in memory_lines(ll.budget("llama-3.2-3b", ll.MethodSpec(r=32), batch=4, seq=750))]
    assert {"q, k, v", "MLP: gate, its activation, up", "a copy of its input for each target"} <= set(names)
