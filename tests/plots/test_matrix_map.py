"""The map of matrices has a button a matrix, and a number where there is one."""

import re

from lora_lab.plots.matrix_map import matrix_map
from lora_lab.plots.measures import MATRIX_MEASURES


def test_every_adapted_matrix_has_a_cell_of_its_own() -> None:
    names = [
        f"{stack}.0.{part}" for stack in ("encoder.block", "decoder.block") for part in ("attn.c_attn", "mlp.c_proj", "q_proj")
    ]
    drawn = matrix_map(dict.fromkeys(names, 1.0), MATRIX_MEASURES["frobenius"], picked=names[0])
    assert sorted(re.findall(r'data-pick="([^"]+)"', drawn)) == sorted(names)


def test_a_number_that_is_not_to_be_had_is_an_empty_cell_and_the_chosen_one_is_pressed() -> None:
    drawn = matrix_map({"layers.0.q_proj": 0.25, "layers.1.q_proj": None}, MATRIX_MEASURES["frobenius"], picked="layers.1.q_proj")
    first, second = re.findall(r"<button.*?</button>", drawn)
    assert ">0.25<" in first
    assert 'aria-pressed="false"' in first
    assert "></button>" in second
    assert 'aria-pressed="true"' in second
    assert "not to be had" in second
