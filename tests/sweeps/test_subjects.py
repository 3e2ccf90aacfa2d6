"""Whatever is looked at comes to the same ΔW, and says which base it changes."""

from pathlib import Path

import jaxtyping
import pytest
import torch

import lora_lab as ll
from lora_lab import LabError, LowRank, Run
from lora_lab.analysis import control_overlap, overlap_of
from lora_lab.errors import AdapterError, DataError
from lora_lab.plots.labels import subject_labels
from lora_lab.sweeps.subjects import AT_RANDOM, AT_START, Subject, control_of, shared_names, subject_of, weights_of

Q = "vit.layers.0.attention.q_proj"


def by_hand(seed: int = 0, d: int = 64) -> dict[str, LowRank]:
    draws = torch.Generator().manual_seed(seed)
    return {Q: LowRank(torch.randn(d, 2, generator=draws), torch.randn(2, d, generator=draws), 0.5)}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    """Two seeds."""
    runs = tmp_path_factory.mktemp("runs")
    one, other = (ll.train("digits", ll.LoraSpec(r=2), steps=3, seed=seed, runs=runs) for seed in (0, 1))
    return one, other


def test_a_run_its_id_its_folder_and_its_adapter_are_one_change(digits_run: Run) -> None:
    runs = digits_run.folder.parent
    sources = (digits_run, digits_run.run_id, str(digits_run.folder), digits_run.adapter_dir, digits_run.adapter())
    for source in sources:
        found = subject_of(source, runs=runs).adapter
        assert list(found) == list(digits_run.adapter())
        for name, delta in digits_run.adapter().items():
            assert torch.equal(found[name].dense(), delta.dense())
    is_run = [subject_of(source, runs=runs).run is not None for source in sources]
    assert is_run == [True, True, True, False, False]


def test_a_subject_is_itself(digits_run: Run) -> None:
    subject = subject_of(digits_run)
    assert subject_of(subject) is subject


def test_matrices_made_by_hand_are_looked_at_as_they_are() -> None:
    made = by_hand()
    subject = subject_of(made)
    assert subject.adapter[Q] is made[Q]
    assert subject.has_own_a


@pytest.mark.parametrize("source", ["nowhere/at all/", {Q: torch.ones(2, 2)}, 7])
def test_what_cannot_be_looked_at_is_refused_in_a_sentence(source: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as users run it: tests alone check types at the call
    with pytest.raises(LabError, match="must be"):
        subject_of(source)  # type: ignore[arg-type]


def test_in_place_training_is_read_beside_the_base_that_is_given(tmp_path: Path) -> None:
    run = ll.train("digits", ll.MethodSpec(method="full"), steps=2, runs=tmp_path)
    opened = subject_of(run.adapter_dir, base="digits").adapter
    assert {name: delta.frobenius() for name, delta in opened.items()} == {
        name: delta.frobenius() for name, delta in run.adapter().items()
    }
    with pytest.raises(AdapterError, match="read with the base"):
        subject_of(run.adapter_dir)


def test_the_base_is_the_one_given_or_the_runs_own(digits_run: Run) -> None:
    own = digits_run.base().named(Q)
    assert torch.equal(subject_of(digits_run).base().named(Q), own)
    assert torch.equal(subject_of(by_hand()).base("digits").named(Q), own)
    given = {Q: torch.ones(64, 64)}
    assert subject_of(digits_run).base(given).named(Q) is given[Q]


def test_a_base_that_nobody_names_is_asked_for() -> None:
    with pytest.raises(DataError, match="must be given"):
        subject_of(by_hand()).base()
    with pytest.raises(DataError, match="Got none called"):
        weights_of({}).named(Q)


def test_only_matrices_of_one_shape_are_shared() -> None:
    small, large = subject_of(by_hand()), subject_of(by_hand(d=32))
    assert shared_names(small, subject_of(by_hand(1))) == [Q]
    assert shared_names(small, large) == []


def overlaps(first: Subject, second: Subject, side: str) -> dict:  # type: ignore[type-arg]
    return {name: overlap_of(name, first.adapter[name], second.adapter[name], side=side) for name in shared_names(first, second)}  # type: ignore[arg-type]


def test_the_control_of_two_runs_is_their_a_before_the_first_step(pair: tuple[Run, Run]) -> None:
    first, second = map(subject_of, pair)
    name, controls = control_of(first, second, overlaps(first, second, "in"), side="in")
    assert name == AT_START
    starts = [run.start() for run in pair]
    assert controls[Q] == overlap_of(Q, starts[0][Q], starts[1][Q], of="a")


@pytest.mark.parametrize("side", ["in", "out"])
def test_where_there_is_no_start_the_control_is_random(pair: tuple[Run, Run], side: str) -> None:
    first = subject_of(pair[0])
    second = subject_of(pair[1] if side == "out" else pair[1].adapter())
    records = overlaps(first, second, side)
    name, controls = control_of(first, second, records, side=side)  # type: ignore[arg-type]
    assert name == AT_RANDOM
    assert controls == {name: control_overlap(record) for name, record in records.items()}


def test_labels_tell_subjects_apart(pair: tuple[Run, Run]) -> None:
    one, other = map(subject_of, pair)
    assert subject_labels([one, other]) == ["r 2 · seed 0", "r 2 · seed 1"]
    assert subject_labels([one, one]) == ["run 1", "run 2"]
    assert subject_labels([subject_of(by_hand()), subject_of(by_hand(1))]) == ["ΔW (1)", "ΔW (2)"]
    opened = subject_of(pair[1].adapter_dir)
    assert subject_labels([one, opened]) == ["r 2 · seed 0", f"{pair[1].run_id}/adapter"]
