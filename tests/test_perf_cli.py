"""`perf`: both ways are timed on the same runs, and end alike."""

import json

import pytest

from lora_lab.benches import find_bench
from lora_lab.cli import main
from lora_lab.errors import SpecError
from lora_lab.perf.sweep_speed import CASES, case_of, planned


@pytest.mark.slow
def test_a_sweep_is_timed_against_a_plain_loop_that_learns_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--cases", "digits", "--rounds", "2", "--count", "3", "--batch", "8", "--steps", "6"]
    assert main(["perf", *flags, "--json"]) == 0
    out = capsys.readouterr()
    (speed,) = json.loads(out.out)["sweeps"]
    assert speed["name"] == "digits, 3 runs of batch 8"
    assert speed["steps"] == 6
    assert len(speed["ratios"]) == 2
    assert min(speed["ratios"]) <= speed["ratio"] <= max(speed["ratios"])
    assert all(loop_s > 0 for loop_s in speed["loop_s"].values())
    assert speed["largest_loss_difference"] < 1e-4
    assert out.err.count("the sweep took") == 2


def test_a_case_has_every_rank_and_no_run_twice() -> None:
    specs = planned(find_bench("digits"), CASES["digits"])
    assert len({spec.run_id for spec in specs}) == len(specs) == 16
    assert {spec.tuning.r for spec in specs} == {1, 2, 4, 8}
    assert all(spec.tuning.lora_alpha == 2 * spec.tuning.r and spec.batch_size == 16 for spec in specs)


def test_an_unknown_case_is_named() -> None:
    with pytest.raises(SpecError, match=r"one of digits, reviews\. Got 'nothing'"):
        case_of("nothing")


@pytest.mark.parametrize("size", ["runs", "batch_size", "steps"])
def test_a_size_below_one_is_refused(size: str) -> None:
    with pytest.raises(SpecError, match=r"at least 1\. Got 0"):
        case_of("digits", **{size: 0})
