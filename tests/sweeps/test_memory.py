"""A run's memory: formula and trace beside what was measured, and nothing where nothing was."""

from dataclasses import replace
from pathlib import Path

import pytest

import lora_lab as ll
from lora_lab.events import DoneEvent, EvalEvent, StartEvent
from lora_lab.geometry import Geometry
from lora_lab.live_geometry import read_geometry
from lora_lab.methods.tiny import tiny_model
from lora_lab.sweeps import Run, memory_of
from lora_lab.sweeps.memory import batch_tokens
from lora_lab.sweeps.outcome import metrics_of

PATCHES = (8 // 2) ** 2  # of 2 × 2 pixels in a digit of 8 × 8
WORDS = 5


def a_run(*, head_params: int = 0, precision: str = "fp32", done: DoneEvent | None = None, **settings: object) -> Run:
    """A finished run as the store hands it out."""
    spec = ll.RunSpec(
        bench="digits", base_sha256="0" * 64, tuning=ll.LoraSpec(r=4, target_modules=("q_proj", "v_proj")), **settings
    )
    start = StartEvent(spec.run_id, spec.steps, 8 + head_params, head_params, 100, "cuda", precision)
    events = [start, EvalEvent(0, 0.1, 2.0, 0.0), done or DoneEvent("finished", 200, "", 1.0, None)]
    return Run(spec.run_id, spec, metrics_of(events), Path("nowhere"))


def done(allocated: int | None, reserved: int | None = None, longest: int | None = None) -> DoneEvent:
    return DoneEvent("finished", 200, "", 1.0, allocated, reserved, longest)


@pytest.fixture(scope="module")
def digits() -> Geometry:
    return ll.find_bench("digits").geometry()


@pytest.fixture(scope="module")
def text_run(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A real run on sentences of five words, with a head that is trained."""
    folder = tmp_path_factory.mktemp("text")
    rows = [f"word{i % 7} word{i % 5} is {'good' if i % 2 else 'bad'} word{i % 3},{i % 2}" for i in range(20)]
    (folder / "mine.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    data = ll.DataSpec(path=str(folder / "mine.csv"))
    return ll.train(str(tiny_base), ll.LoraSpec(r=2), data=data, steps=2, batch_size=4, runs=folder / "runs", device="cpu")


def test_without_a_counter_nothing_is_measured_and_nothing_stands_in(digits_run: Run, digits: Geometry) -> None:
    memory = memory_of(digits_run, digits)
    if digits_run.metrics["device"] == "cpu":
        assert (memory.measured_allocated_bytes, memory.measured_reserved_bytes) == (None, None)
    assert memory.formula_bytes is not None


def test_both_counters_are_those_that_training_said(digits: Geometry) -> None:
    memory = memory_of(a_run(done=done(7_000_001, 9_000_002)), digits)
    assert (memory.measured_allocated_bytes, memory.measured_reserved_bytes) == (7_000_001, 9_000_002)


def test_a_run_kept_before_a_counter_was_recorded_lacks_it(digits: Geometry) -> None:
    run = a_run(done=done(7_000_001, 9_000_002))
    old = {name: value for name, value in run.metrics.items() if name not in ("peak_reserved_bytes", "longest_tokens")}
    memory = memory_of(replace(run, metrics=old), digits)
    assert (memory.measured_allocated_bytes, memory.measured_reserved_bytes) == (7_000_001, None)


def test_measurements_do_not_move_the_formula(digits: Geometry) -> None:
    assert memory_of(a_run(done=done(10**12, 10**13)), digits).formula_bytes == memory_of(a_run(), digits).formula_bytes


def test_a_picture_is_its_patches_and_the_class_token(digits: Geometry) -> None:
    assert batch_tokens(a_run(), digits) == PATCHES + 1


def test_the_formula_holds_the_base_in_fp32_and_grows_evenly_with_the_batch(digits: Geometry) -> None:
    one, two, three = (memory_of(a_run(batch_size=n), digits).formula_bytes for n in (32, 64, 96))
    assert one is not None
    assert two is not None
    assert three is not None
    assert three - two == two - one > 0
    assert 2 * one - two > 4 * digits.total_params


def test_a_trained_head_adds_its_copy_its_gradient_and_two_moments_in_fp32(digits: Geometry) -> None:
    without, within = (memory_of(a_run(head_params=n), digits).formula_bytes for n in (0, 650))
    assert without is not None
    assert within is not None
    assert within - without == 650 * (4 + 4 + 8)


def test_under_autocast_the_formula_is_a_bound(digits: Geometry) -> None:
    assert memory_of(a_run(precision="bf16"), digits).is_bound
    assert not memory_of(a_run(precision="fp32"), digits).is_bound


def test_a_text_is_as_long_as_recorded_and_else_as_its_tokenizer_allows() -> None:
    bert = read_geometry(tiny_model("bert"))
    assert batch_tokens(a_run(done=done(None, None, 37)), bert) == 37
    assert batch_tokens(a_run(), bert) == 128


def test_the_longest_batch_of_a_text_run_is_recorded(text_run: Run, digits_run: Run) -> None:
    assert text_run.metrics["longest_tokens"] == WORDS
    assert digits_run.metrics["longest_tokens"] is None


def test_a_base_that_the_formula_does_not_know_has_no_figure(digits: Geometry) -> None:
    for unknown in (replace(digits, architecture=None), replace(digits, loose=())):
        assert memory_of(a_run(), unknown, trace=True).formula_bytes is None


def test_a_trace_is_made_only_when_asked_for(digits: Geometry) -> None:
    assert memory_of(a_run(), digits).trace_bytes is None


def test_formula_and_trace_of_a_real_run_agree_within_a_tenth(digits_run: Run, digits: Geometry) -> None:
    memory = memory_of(digits_run, digits, trace=True)
    assert memory.trace_bytes is not None
    assert memory.formula_bytes == pytest.approx(memory.trace_bytes, rel=0.10)


def test_formula_and_trace_of_a_run_with_a_head_agree_as_far_as_rounding_to_512_bytes_lets_a_tiny_base(text_run: Run) -> None:
    geometry = ll.find_bench(text_run.spec.bench, text_run.spec.data).geometry()
    memory = memory_of(text_run, geometry, trace=True)
    assert memory.trace_bytes is not None
    assert text_run.metrics["head_params"] == 2 * 32 + 2
    assert memory.formula_bytes == pytest.approx(memory.trace_bytes, rel=0.15)


def test_quantization_and_optimizer_of_the_run_are_counted(digits: Geometry) -> None:
    whole = memory_of(a_run(), digits).formula_bytes
    few_bits, sgd = (memory_of(a_run(**changed), digits).formula_bytes for changed in ({"quant": "nf4"}, {"optimizer": "SGD"}))
    assert whole is not None
    assert few_bits is not None
    assert sgd is not None
    assert few_bits < whole
    assert sgd < whole  # no moments


def test_an_optimizer_that_budgets_do_not_know_has_no_formula(digits: Geometry) -> None:
    assert memory_of(a_run(optimizer="NAdam"), digits).formula_bytes is None
