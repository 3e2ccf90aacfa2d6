"""Rows are cut where it saves padding, and the passes of a step give what one pass gives."""

import itertools
import random

import pytest
import torch

import lora_lab as ll
from lora_lab.benches import find_bench
from lora_lab.training import length_cuts as cuts_module
from lora_lab.training import plan_run
from lora_lab.training.grouped import GroupedEngine
from lora_lab.training.length_cuts import length_cuts


def cost(cuts: list[tuple[int, int]], lengths: list[int], runs: int) -> int:
    return sum(runs * (end - begin) * lengths[end - 1] + cuts_module._PASS_TOKENS for begin, end in cuts)


@pytest.mark.parametrize("seed", range(20))
def test_no_other_cut_costs_less(seed: int) -> None:
    rng = random.Random(seed)
    lengths, runs = sorted(rng.randint(4, 80) for _ in range(rng.randint(1, 8))), rng.randint(1, 6)
    inner = range(1, len(lengths))
    ways = itertools.chain.from_iterable(itertools.combinations(inner, n) for n in range(len(lengths)))
    every = ([*itertools.pairwise((0, *way, len(lengths)))] for way in ways)
    assert cost(length_cuts(lengths, runs=runs), lengths, runs) == min(cost(way, lengths, runs) for way in every)


def test_rows_of_one_length_are_one_pass() -> None:
    assert length_cuts([17] * 16, runs=8) == [(0, 16)]


def test_passes_of_a_step_give_the_gradients_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = find_bench("reviews")
    specs = [plan_run(bench, ll.LoraSpec(r=r), batch_size=6, seed=r) for r in (2, 4)]
    found = {}
    for name, price in (("cut", 1), ("whole", 10**6)):
        monkeypatch.setattr(cuts_module, "_PASS_TOKENS", price)
        engine = GroupedEngine(specs, bench, bench.splits(), torch.device("cpu"))
        passes = []
        forward = engine.model.forward
        monkeypatch.setattr(
            engine.model, "forward", lambda *a, forward=forward, passes=passes, **k: (passes.append(0), forward(*a, **k))[1]
        )
        found[name] = (engine.backward(1), engine.stack.gradients.clone(), len(passes))
    (outcomes, gradients, many), (others, whole, one) = found["cut"], found["whole"]
    assert many > 2 > one
    assert float((gradients - whole).norm() / whole.norm()) < 1e-5
    assert [o.loss for o in outcomes] == pytest.approx([o.loss for o in others], rel=1e-5)
    assert [o.tokens for o in outcomes] == [o.tokens for o in others]
