"""The loop: its events, what it leaves alone, what it leaves behind, and that it does the same again."""

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, TypeVar

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import nn

import lora_lab as ll
from lora_lab.adapters import load_adapter
from lora_lab.benches import Split
from lora_lab.benches.bench import halved
from lora_lab.benches.digits import DigitsBench
from lora_lab.benches.digits import split as upright_split
from lora_lab.errors import DataError
from lora_lab.events import DoneEvent, EvalEvent, Event, ForgettingEvent, SpectrumEvent, StartEvent, StepEvent
from lora_lab.specs import RunSpec
from lora_lab.training import evaluate, plan_run, train_events
from lora_lab.training.begin import batches

STEPS, EVERY, WARM_UP = 25, 10, 5
E = TypeVar("E")


def a_spec(*, tuning: ll.MethodSpec | None = None, **settings: object) -> RunSpec:
    """A short run on the turned digits."""
    settings = {"steps": 6, "batch_size": 8, "eval_every_steps": 3, **settings}
    return plan_run(ll.find_bench("digits"), tuning or ll.LoraSpec(r=2), **settings)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """The adapter's file."""
    return load_file(folder / "adapter" / "adapter_model.safetensors")


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Same names, same bits."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def of_kind(events: list[Event], kind: type[E]) -> list[E]:
    return [event for event in events if isinstance(event, kind)]


class Trained(NamedTuple):
    """One run: what it said, what it left."""

    spec: RunSpec
    events: list[Event]
    folder: Path
    base_model: nn.Module  # the object that PEFT was put on


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A run whose evaluations do not divide its steps, with the model that it trained on."""
    spec = a_spec(tuning=ll.LoraSpec(r=4), steps=STEPS, batch_size=16, eval_every_steps=EVERY, warmup_steps=WARM_UP)
    folder = tmp_path_factory.mktemp("run")
    loaded: list[nn.Module] = []
    with pytest.MonkeyPatch.context() as patch:
        build = DigitsBench.build
        patch.setattr(DigitsBench, "build", lambda bench: loaded.append(build(bench)) or loaded[-1])
        events = list(train_events(spec, folder))
    (model,) = loaded
    return Trained(spec, events, folder, model)


# What is said


def test_start_evaluation_and_spectrum_come_before_the_steps_and_done_after(run: Trained) -> None:
    kinds = [type(event) for event in run.events]
    assert kinds[:5] == [StartEvent, EvalEvent, EvalEvent, SpectrumEvent, StepEvent]
    assert kinds[-3:] == [EvalEvent, ForgettingEvent, DoneEvent]
    assert kinds.count(StartEvent) == kinds.count(DoneEvent) == 1
    assert [event.step for event in of_kind(run.events, StepEvent)] == list(range(1, STEPS + 1))
    steps = [event.step for event in run.events[1:]]
    assert steps == sorted(steps)


def test_evaluations_come_every_k_steps_and_at_the_end(run: Trained) -> None:
    said = [(event.step, event.split) for event in of_kind(run.events, EvalEvent)]
    assert [step for step, split in said if split == "validation"] == [0, EVERY, 2 * EVERY, STEPS]
    assert [step for step, split in said if split == "test"] == [0, STEPS]


def test_start_says_what_is_trained(run: Trained) -> None:
    start = run.events[0]
    assert isinstance(start, StartEvent)
    assert (start.run_id, start.total_steps) == (run.spec.run_id, STEPS)
    assert (start.trainable_params, start.head_params) == (4 * 2 * 4 * (64 + 64), 0)  # 4 layers, q and v, r = 4
    assert start.total_params == 152_650


def test_done_says_that_it_finished(run: Trained) -> None:
    done = run.events[-1]
    assert isinstance(done, DoneEvent)
    assert (done.status, done.step, done.message) == ("finished", STEPS, "")


def test_the_first_evaluation_is_the_frozen_base(run: Trained) -> None:
    bench = ll.find_bench("digits")
    for first, split in zip(of_kind(run.events, EvalEvent)[:2], bench.splits()[1:], strict=True):
        score = evaluate(bench.build(), split)
        assert (first.score, first.loss) == (score.value, score.loss)


def test_what_was_forgotten_is_the_accuracy_on_upright_digits_before_and_after(run: Trained, digits_base: nn.Module) -> None:
    upright = halved(upright_split()[1])[1]
    (forgot,) = of_kind(run.events, ForgettingEvent)
    assert (forgot.kept, forgot.before) == ("accuracy", evaluate(digits_base, upright).value)
    model = PeftModel.from_pretrained(digits_base, str(run.folder / "adapter")).eval()
    assert forgot.after == pytest.approx(evaluate(model, upright).value, abs=0.5 / len(upright))
    assert forgot.after < forgot.before


def test_a_step_takes_less_than_the_time_between_two(run: Trained) -> None:
    steps = of_kind(run.events, StepEvent)
    for before, event in pairwise(steps):
        assert event.step_s is not None
        assert 0 < event.step_s < event.elapsed_s - before.elapsed_s


def test_nothing_is_learned_at_step_0_and_something_at_the_end(run: Trained) -> None:
    spectra = of_kind(run.events, SpectrumEvent)
    assert {s for values in spectra[0].singular_values.values() for s in values} == {0.0}
    assert all(values[0] > 0 for values in spectra[-1].singular_values.values())


def test_the_last_spectrum_is_of_the_adapter_on_disk(run: Trained) -> None:
    said = of_kind(run.events, SpectrumEvent)[-1].singular_values
    adapter = load_adapter(run.folder / "adapter")
    assert said.keys() == adapter.keys()
    for name, values in said.items():
        dense = torch.linalg.svdvals(adapter[name].dense())
        torch.testing.assert_close(torch.tensor(values, dtype=torch.float64), dense[:4], rtol=1e-5, atol=1e-6)


def test_training_lowers_the_loss(run: Trained) -> None:
    evaluations = of_kind(run.events, EvalEvent)
    assert evaluations[-1].loss < 0.8 * evaluations[0].loss
    assert evaluations[-1].score > evaluations[0].score


def test_the_learning_rate_warms_up_and_falls_as_a_cosine(run: Trained) -> None:
    peak = run.spec.learning_rate
    up = [peak * (i + 1) / (WARM_UP + 1) for i in range(WARM_UP)]
    down = [peak * (1 + math.cos(math.pi * i / (STEPS - WARM_UP))) / 2 for i in range(STEPS - WARM_UP)]
    said = [event.learning_rate for event in of_kind(run.events, StepEvent)]
    assert said == pytest.approx([*up, *down])
    assert 0 < said[-1] < peak / 100
    assert said[0] > 0  # a first step at rate 0 would be a step for nothing


# What is left alone


def test_the_base_is_bit_equal_after_training(run: Trained, digits_base: nn.Module) -> None:
    after = {name.replace(".base_layer", ""): p for name, p in run.base_model.state_dict().items() if "lora_" not in name}
    assert equal(after, digits_base.state_dict())


def test_a_baseline_after_an_adapter_really_trains(run: Trained) -> None:
    bench = ll.find_bench("digits")
    model = bench.build()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(**bench.splits()[0].batch(torch.arange(16))).loss.backward()
    optimizer.step()
    biases_of_k = {name for name in before if name.endswith("k_proj.bias")}  # softmax: their gradient is 0 but for rounding
    assert len(biases_of_k) == 4
    assert all(not torch.equal(p, before[name]) for name, p in model.named_parameters() if name not in biases_of_k)


def test_the_global_random_stream_is_untouched_between_events(tmp_path: Path) -> None:
    events = train_events(a_spec(tuning=ll.LoraSpec(r=2, lora_dropout=0.3)), tmp_path)
    state = torch.get_rng_state()
    for _ in events:
        assert torch.equal(torch.get_rng_state(), state)


# The same again


@pytest.mark.parametrize("lora_dropout", [0.0, 0.3])
def test_the_same_spec_gives_the_same_run_bit_for_bit(tmp_path: Path, lora_dropout: float) -> None:
    spec = a_spec(tuning=ll.LoraSpec(r=2, lora_dropout=lora_dropout))
    said = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        events = list(train_events(spec, tmp_path / name))
        said.append([(e.loss, getattr(e, "grad_norm", None)) for e in events if isinstance(e, StepEvent | EvalEvent)])
        torch.rand(3)  # whatever else is drawn in between
    assert said[0] == said[1]
    assert equal(weights(tmp_path / "one"), weights(tmp_path / "other"))


@pytest.mark.parametrize("other", [{"seed": 1}, {"tuning": ll.LoraSpec(r=2, lora_dropout=0.3)}], ids=["seed", "dropout"])
def test_another_seed_or_dropout_gives_another_run(tmp_path: Path, other: dict[str, object]) -> None:
    losses = []
    for name, settings in (("one", {}), ("other", other)):
        (tmp_path / name).mkdir()
        events = list(train_events(a_spec(**settings), tmp_path / name))
        losses.append([event.loss for event in of_kind(events, StepEvent)])
    assert losses[0] != losses[1]
    assert not equal(weights(tmp_path / "one"), weights(tmp_path / "other"))


# What is left behind


@pytest.mark.parametrize("merged", [False, True], ids=["unmerged", "merged"])
def test_plain_peft_gives_the_accuracy_that_was_said(run: Trained, digits_base: nn.Module, merged: bool) -> None:
    loaded = PeftModel.from_pretrained(digits_base, str(run.folder / "adapter")).eval()
    model = loaded.merge_and_unload() if merged else loaded
    last = {event.split: event for event in of_kind(run.events, EvalEvent)}
    for name, split in zip(("validation", "test"), ll.find_bench("digits").splits()[1:], strict=True):
        score = evaluate(model, split)
        assert score.value == pytest.approx(last[name].score, abs=0.5 / len(split))
        assert score.loss == pytest.approx(last[name].loss, rel=1e-5)


@pytest.mark.parametrize("kind", [StepEvent, SpectrumEvent, EvalEvent])
@pytest.mark.parametrize("step", [1, 4, 6])
def test_closing_at_any_step_keeps_what_was_learned(tmp_path: Path, kind: type[Event], step: int) -> None:
    events = train_events(a_spec(warmup_steps=0, eval_every_steps=1), tmp_path)
    spectrum: dict[str, tuple[float, ...]] = {}
    for event in events:
        if isinstance(event, SpectrumEvent):
            spectrum = event.singular_values
        if isinstance(event, kind) and getattr(event, "step", None) == step:
            break
    events.close()
    adapter = load_adapter(tmp_path / "adapter")
    assert all(delta.numerical_rank > 0 for delta in adapter.values())
    if kind is not StepEvent:  # the spectrum of a step follows it
        for name, values in spectrum.items():
            torch.testing.assert_close(adapter[name].singular_values.tolist(), list(values), rtol=1e-5, atol=1e-6)


def test_the_adapter_on_disk_at_an_evaluation_is_the_one_that_was_scored(tmp_path: Path) -> None:
    """A killed process leaves its log and its adapter as last saved: they must tell of the same weights."""
    spectrum: dict[str, tuple[float, ...]] = {}
    for event in train_events(a_spec(), tmp_path):
        if isinstance(event, SpectrumEvent):
            spectrum = event.singular_values
        if isinstance(event, EvalEvent) and event.step > 0:
            adapter = load_adapter(tmp_path / "adapter")
            for name, values in spectrum.items():
                torch.testing.assert_close(adapter[name].singular_values.tolist(), list(values), rtol=1e-5, atol=1e-6)


def test_a_run_of_no_steps_gives_an_adapter_that_changes_nothing(tmp_path: Path, digits_base: nn.Module) -> None:
    events = list(train_events(a_spec(steps=0), tmp_path))
    assert [type(e) for e in events] == [StartEvent, EvalEvent, EvalEvent, SpectrumEvent, ForgettingEvent, DoneEvent]
    forgot = of_kind(events, ForgettingEvent)[0]
    assert forgot.before == forgot.after
    assert (events[-1].status, events[-1].step) == ("finished", 0)
    adapter = load_adapter(tmp_path / "adapter")
    assert {delta.frobenius() for delta in adapter.values()} == {0.0}
    held_out = ll.find_bench("digits").splits()[1]
    base_score = evaluate(digits_base, held_out)
    assert evaluate(PeftModel.from_pretrained(digits_base, str(tmp_path / "adapter")).eval(), held_out) == base_score


@pytest.mark.parametrize("learning_rate", [1e8, 1e20])
def test_a_huge_learning_rate_ends_as_diverged_with_finite_numbers(tmp_path: Path, learning_rate: float) -> None:
    events = list(train_events(a_spec(steps=20, learning_rate=learning_rate, eval_every_steps=1), tmp_path))
    done = events[-1]
    assert isinstance(done, DoneEvent)
    assert done.status == "diverged"
    assert f"at step {done.step + 1}: try a smaller learning rate." in done.message
    assert all(math.isfinite(e.loss) for e in events if isinstance(e, StepEvent | EvalEvent))
    assert all(math.isfinite(e.grad_norm) for e in of_kind(events, StepEvent))
    assert all(math.isfinite(s) for e in of_kind(events, SpectrumEvent) for values in e.singular_values.values() for s in values)
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path).values())


# What is done to the gradient


def test_gradients_are_clipped_and_their_norm_before_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit, clipped = 0.01, []
    update = torch.optim.AdamW.step

    def measured(optimizer: torch.optim.Optimizer, *args: object) -> object:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        clipped.append(float(torch.cat([gradient.flatten() for gradient in gradients]).norm()))
        return update(optimizer, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", measured)
    events = of_kind(list(train_events(a_spec(max_grad_norm=limit), tmp_path)), StepEvent)
    assert len(clipped) == len(events)
    assert all(event.grad_norm > limit for event in events)
    assert clipped == pytest.approx([limit] * len(events), rel=1e-3)


# What is refused


def test_a_base_of_other_weights_is_refused_at_the_call(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="must have SHA-256 000000000000"):
        train_events(replace(a_spec(), base_sha256="0" * 64), tmp_path)
    assert list(tmp_path.iterdir()) == []


# Batches


def a_split(n: int) -> Split:
    """n rows, each labelled with its own number."""
    return Split({"labels": torch.arange(n)})


@pytest.mark.parametrize(("n", "batch_size"), [(10, 3), (8, 4), (7, 7), (5, 4)])
def test_every_epoch_shows_every_row_once(n: int, batch_size: int) -> None:
    seen = torch.cat([batch["labels"] for batch in batches(a_split(n), batch_size, steps=6 * n, seed=0)])
    epochs = seen[: len(seen) // n * n].view(-1, n)
    assert len(epochs) >= 6
    assert torch.equal(epochs.sort(1).values, torch.arange(n).expand(len(epochs), n))
    assert any(not torch.equal(one, other) for one, other in pairwise(epochs))  # shuffled anew


@pytest.mark.parametrize(("n", "batch_size"), [(10, 3), (8, 4), (7, 7), (5, 4)])
def test_no_batch_repeats_a_row(n: int, batch_size: int) -> None:
    for batch in batches(a_split(n), batch_size, steps=10 * n, seed=0):
        assert len(batch["labels"].unique()) == batch_size


def test_a_split_smaller_than_a_batch_fills_it_by_repeating() -> None:
    for batch in batches(a_split(3), 8, steps=4, seed=0):
        counts = batch["labels"].bincount(minlength=3)
        assert counts.sum() == 8
        assert counts.min() >= 2


def test_batches_are_seeded() -> None:
    def drawn(seed: int) -> list[list[int]]:
        return [batch["labels"].tolist() for batch in batches(a_split(20), 4, steps=8, seed=seed)]

    assert drawn(0) == drawn(0) != drawn(1)
