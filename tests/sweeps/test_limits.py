"""What a visitor of a public page may spend."""

import pytest

import lora_lab as ll
from lora_lab.errors import SpecError
from lora_lab.sweeps.limits import check_public


def specs(runs: int, steps: int) -> list[ll.RunSpec]:
    return [ll.RunSpec(bench="digits", base_sha256="", seed=seed, steps=steps) for seed in range(runs)]


@pytest.mark.parametrize(("runs", "steps"), [(1, 4000), (16, 250), (0, 1)])
def test_a_sweep_within_the_limits_passes(runs: int, steps: int) -> None:
    check_public(specs(runs, steps))


@pytest.mark.parametrize(
    ("runs", "steps", "sentence"),
    [(17, 1, "at most 16 runs. Got 17."), (1, 4001, "4000 steps in all. Got 4001."), (16, 251, "4000 steps in all. Got 4016.")],
)
def test_a_larger_one_is_refused_in_one_sentence(runs: int, steps: int, sentence: str) -> None:
    with pytest.raises(SpecError) as caught:
        check_public(specs(runs, steps))
    assert str(caught.value).endswith(sentence)
