"""A base is opened by whatever it is called, and its W is the live model's."""

from pathlib import Path

import pytest
import torch

from lora_lab import find_bench
from lora_lab.benches.base_weights import base_of, open_base
from lora_lab.errors import DataError


def test_a_bench_and_its_base_s_folder_give_the_weights_of_the_live_model() -> None:
    bench = find_bench("digits")
    live = dict(bench.build().named_modules())
    for base in (base_of(bench), open_base("digits"), open_base(str(bench.base_folder()))):
        for matrix in bench.geometry().block():
            assert torch.equal(base.named(matrix.name), live[matrix.name].weight)


def test_a_folder_of_ones_own_is_a_base(tiny_base: Path) -> None:
    assert open_base(str(tiny_base)).named("encoder.layer.1.attention.self.query").shape == (32, 32)


@pytest.mark.parametrize("source", ["", "  ", "nothing"])
def test_what_is_no_base_is_refused_in_a_sentence(source: str) -> None:
    with pytest.raises(DataError, match=r"must be a .*\. Got "):
        open_base(source)


def test_a_folder_without_a_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="must be a folder with a config"):
        open_base(str(tmp_path))
