"""One block of a model, drawn."""

import re

import pytest

from lora_lab.benches import find_bench
from lora_lab.budget import find_model
from lora_lab.geometry import Geometry
from lora_lab.plots import PALETTE
from lora_lab.plots.block_drawing import block_drawing, block_note


@pytest.fixture(scope="module")
def digits() -> Geometry:
    return find_bench("digits").geometry()


def test_block_is_drawn_to_scale(digits: Geometry) -> None:
    drawing = block_drawing(digits, set(), r=4)
    sizes = [(float(w), float(h)) for w, h in re.findall(r'class="w0" [^>]*width="([\d.]+)" height="([\d.]+)"', drawing)]
    per_unit = sizes[0][0] / 64
    assert [(round(w / per_unit), round(h / per_unit)) for w, h in sizes] == [(m.d_in, m.d_out) for m in digits.block()]


def test_only_targeted_matrices_carry_factors(digits: Geometry) -> None:
    block = digits.block()
    drawing = block_drawing(digits, {block[0].name, block[2].name}, r=4)
    assert drawing.count('aria-checked="true"') == 2
    assert drawing.count(PALETTE["A"]) == drawing.count(PALETTE["B"]) == 2


def test_each_matrix_is_picked_by_a_name_that_the_geometry_knows(digits: Geometry) -> None:
    picks = re.findall(r'data-pick="([^"]+)"', block_drawing(digits, set(), r=1))
    assert [m for pick in picks for m in digits.matching(pick) if m.layer == 0] == list(digits.block())


def test_the_note_counts_the_blocks() -> None:
    assert block_note(find_model("llama-3.2-3b").geometry).startswith("one of 28 blocks")


def test_without_a_base_the_drawing_says_what_it_waits_for() -> None:
    assert "when the base is known" in block_drawing(Geometry(()), set(), r=1)
