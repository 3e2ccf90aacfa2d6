"""Grouped training: run by run what plain PEFT gives, whoever else is in the group."""

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

import lora_lab as ll
from lora_lab.adapters import load_adapter
from lora_lab.benches import Bench, Split, Splits, find_bench
from lora_lab.benches.bench import Defaults
from lora_lab.benches.task import Classification, Task, without_labels
from lora_lab.benches.writing import Writing
from lora_lab.errors import SpecError, TrainingError
from lora_lab.events import DoneEvent, EvalEvent, Event, SpectrumEvent, StartEvent, StepEvent
from lora_lab.live_geometry import read_geometry
from lora_lab.methods.tiny import TINY, tiny_model
from lora_lab.specs import MethodSpec, RunSpec
from lora_lab.support.trial import batch_of, fresh
from lora_lab.training import group_events, may_share, plan_run, sharing_key, train_events
from lora_lab.training.grouped import GroupedEngine
from lora_lab.training.grouped_layers import Company, GroupedLora

STEPS = 20


def mixed(bench: Bench, *, targets: Sequence[str] = ("q", "k", "v", "o"), dropout: float = 0.0) -> list[RunSpec]:
    """Runs that differ in all that runs of a group may differ in."""
    common = {"steps": STEPS, "batch_size": 8, "eval_every_steps": 10}
    tunings = [
        (MethodSpec(r=1, lora_alpha=4.0), {}),
        (MethodSpec(r=8, target_modules=tuple(targets)), {"learning_rate": 1e-3, "seed": 1}),
        (MethodSpec(method="rslora", r=3, target_modules=("v",)), {"weight_decay": 0.1, "seed": 2}),
        (MethodSpec(method="lora+", r=4, init_lora_weights="gaussian"), {"loraplus_lr_ratio": 4.0, "max_grad_norm": 0.3}),
        (MethodSpec(r=2, target_modules=("q",), layers_to_transform=(1,)), {"warmup_steps": 7}),
        (MethodSpec(r=4, init_lora_weights="orthogonal"), {"learning_rate": 3e-4}),
    ]
    return [plan_run(bench, replace(tuning, lora_dropout=dropout), **{**common, **more}) for tuning, more in tunings]


def trained(specs: Sequence[RunSpec], root: Path) -> dict[str, list[Event]]:
    """The group's events by run; its adapters lie in folders by run id."""
    folders = {spec.run_id: root / spec.run_id for spec in specs}
    for folder in folders.values():
        folder.mkdir(parents=True)
    events: dict[str, list[Event]] = {spec.run_id: [] for spec in specs}
    for run_id, event in group_events(specs, folders):
        events[run_id].append(event)
    return events


def trained_alone(spec: RunSpec, root: Path) -> list[Event]:
    folder = root / spec.run_id
    folder.mkdir(parents=True)
    return list(train_events(spec, folder))


def distance(one: Path, other: Path) -> float:
    """‖ΔW − ΔW'‖_F over ‖ΔW'‖_F, the largest over the matrices; a head counts as one."""
    a, b = load_adapter(one / "adapter"), load_adapter(other / "adapter")
    assert set(a) == set(b)
    heads = [_heads(folder) for folder in (one, other)]
    pairs = [(a[name].dense(), b[name].dense()) for name in b] + [(heads[0][n], heads[1][n]) for n in heads[1]]
    return max(float((x - y).norm() / y.norm()) for x, y in pairs)


def _heads(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return {n: t for n, t in load_file(folder / "adapter" / "adapter_model.safetensors").items() if ".lora_" not in n}


@pytest.fixture(params=["digits", "minilm", "llama"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    if request.param == "llama":
        tiny: SimpleNamespace = request.getfixturevalue("tiny_llama")
        return find_bench(tiny.base, tiny.data)
    if request.param == "minilm":
        sentences = find_bench("reviews").splits().train.examples[:90]
        file = tmp_path / "reviews.csv"
        with file.open("w", newline="") as out:
            csv.writer(out).writerows([("text", "label"), *((one.text, one.label) for one in sentences)])
        return find_bench(str(find_bench("reviews").base_folder()), ll.DataSpec(path=str(file)))
    return find_bench(request.param)


@pytest.mark.slow
def test_every_run_is_what_plain_peft_makes_of_it(bench: Bench, tmp_path: Path) -> None:
    specs = mixed(bench)
    events = trained(specs, tmp_path / "group")
    for spec in specs:
        plain = trained_alone(spec, tmp_path / "plain")
        assert distance(tmp_path / "group" / spec.run_id, tmp_path / "plain" / spec.run_id) < 1e-4
        assert_alike(events[spec.run_id], plain)


def assert_alike(grouped: list[Event], plain: list[Event]) -> None:
    """The same events in the same order, and the same numbers in them but for times."""
    assert [type(event) for event in grouped] == [type(event) for event in plain]
    for one, other in zip(grouped, plain, strict=True):
        match one, other:
            case StepEvent(), StepEvent():
                for name in ("loss", "learning_rate", "grad_norm", "grad_norm_a", "grad_norm_b"):
                    assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-3, abs=1e-5), name
            case EvalEvent(), EvalEvent():
                assert (one.step, one.split, one.score) == (other.step, other.split, other.score)
                assert one.loss == pytest.approx(other.loss, rel=1e-4)
            case SpectrumEvent(), SpectrumEvent():
                assert one.singular_values.keys() == other.singular_values.keys()
                for name, values in one.singular_values.items():
                    assert values == pytest.approx(other.singular_values[name], rel=1e-3, abs=1e-4)
            case StartEvent(), StartEvent():
                assert (one.trainable_params, one.head_params) == (other.trainable_params, other.head_params)
                assert (one.group_runs, other.group_runs) == (6, 1)
            case DoneEvent(), DoneEvent():
                assert (one.status, one.step, one.longest_tokens) == (other.status, other.step, other.longest_tokens)


@pytest.mark.slow
@pytest.mark.parametrize("bench", ["digits", "llama"], indirect=True)  # rows of one length, and of many
def test_dropout_is_each_runs_own(bench: Bench, tmp_path: Path) -> None:
    specs = mixed(bench, dropout=0.2)
    trained(specs, tmp_path / "group")
    trained(specs, tmp_path / "again")
    trained([specs[3], specs[1]], tmp_path / "others")
    trained_alone(specs[1], tmp_path / "plain")
    ids = [spec.run_id for spec in specs]
    for run_id in ids:
        assert distance(tmp_path / "group" / run_id, tmp_path / "again" / run_id) == 0
    for company in ("others", "plain"):
        assert distance(tmp_path / "group" / ids[1], tmp_path / company / ids[1]) < 1e-4
    without = replace(specs[1], tuning=replace(specs[1].tuning, lora_dropout=0.0))
    trained_alone(without, tmp_path / "plain")
    assert distance(tmp_path / "plain" / without.run_id, tmp_path / "plain" / ids[1]) > 0.01


def test_a_run_that_diverges_leaves_and_the_others_go_on(tmp_path: Path) -> None:
    specs = mixed(find_bench("digits"))
    lost = replace(specs[1], learning_rate=1e30, warmup_steps=0)
    events = trained([specs[0], lost, *specs[2:]], tmp_path / "group")
    trained([specs[0], *specs[2:]], tmp_path / "without")
    done = events[lost.run_id][-1]
    assert isinstance(done, DoneEvent)
    assert (done.status, done.step < STEPS) == ("diverged", True)
    assert "smaller learning rate" in done.message
    assert (tmp_path / "group" / lost.run_id / "adapter").is_dir()
    for spec in [specs[0], *specs[2:]]:
        assert isinstance(events[spec.run_id][-1], DoneEvent)
        assert events[spec.run_id][-1].status == "finished"
        assert distance(tmp_path / "group" / spec.run_id, tmp_path / "without" / spec.run_id) < 1e-5


def test_where_all_diverge_all_end(tmp_path: Path) -> None:
    specs = [replace(spec, learning_rate=1e30, warmup_steps=0) for spec in mixed(find_bench("digits"))[:2]]
    ends = [events[-1] for events in trained(specs, tmp_path).values()]
    assert [isinstance(end, DoneEvent) and end.status for end in ends] == ["diverged", "diverged"]


def test_closing_keeps_what_every_run_has_learned(tmp_path: Path) -> None:
    specs = mixed(find_bench("digits"))[:3]
    folders = {spec.run_id: tmp_path / spec.run_id for spec in specs}
    for folder in folders.values():
        folder.mkdir()
    events = group_events(specs, folders)
    for _, event in events:
        if isinstance(event, StepEvent) and event.step == 5:
            break
    events.close()
    for folder in folders.values():
        assert any(float(delta.frobenius()) > 0 for delta in load_adapter(folder / "adapter").values())


@pytest.mark.parametrize("bench", ["minilm"], indirect=True)
def test_the_saved_adapter_gives_its_logits_in_plain_peft(bench: Bench, tmp_path: Path) -> None:
    specs = [plan_run(bench, ll.LoraSpec(r=r), steps=3, batch_size=4, seed=r) for r in (2, 3)]
    events = trained(specs, tmp_path)
    split = bench.splits().test
    for spec in specs:
        model = PeftModel.from_pretrained(bench.build(), tmp_path / spec.run_id / "adapter").eval()
        with torch.no_grad():
            losses = [split.task.loss(model(**batch).logits, batch) for batch in map(split.batch, split.by_length().split(64))]
        loss = sum(float(total) for total, _ in losses) / sum(count for _, count in losses)
        told = next(e for e in events[spec.run_id] if isinstance(e, EvalEvent) and e.split == "test" and e.step == 3)
        assert told.loss == pytest.approx(loss, rel=1e-5)


def test_a_quantized_base_is_shared_too(tmp_path: Path) -> None:
    bench = find_bench("digits")
    specs = [plan_run(bench, MethodSpec(method="qlora", r=r), steps=8, batch_size=8) for r in (1, 4)]
    trained(specs, tmp_path / "group")
    for spec in specs:
        trained_alone(spec, tmp_path / "plain")
        assert distance(tmp_path / "group" / spec.run_id, tmp_path / "plain" / spec.run_id) < 1e-3


@pytest.mark.parametrize(
    "change",
    [
        {"tuning": MethodSpec(method="dora")},
        {"tuning": MethodSpec(init_lora_weights="pissa")},
        {"tuning": MethodSpec(bias="all")},
        {"optimizer": "SGD"},
    ],
)
def test_what_is_more_than_lora_goes_alone(change: dict[str, object]) -> None:
    spec = RunSpec(bench="digits", base_sha256="")
    other = replace(spec, **change)
    assert may_share(spec)
    assert not may_share(other)
    assert sharing_key(other) != sharing_key(spec)


@pytest.mark.parametrize("field", ["steps", "batch_size", "eval_every_steps"])
def test_runs_that_cannot_share_batches_have_other_keys(field: str) -> None:
    spec = RunSpec(bench="digits", base_sha256="")
    assert sharing_key(replace(spec, **{field: 3})) != sharing_key(spec)
    assert sharing_key(replace(spec, seed=3, learning_rate=1.0, tuning=MethodSpec(r=2))) == sharing_key(spec)


def test_rows_that_are_not_the_batchs_are_refused() -> None:
    layer = GroupedLora("key_proj", nn.Linear(3, 3), Company(runs=2, rows=2))
    a, b = torch.randn(2, 1, 3), torch.randn(2, 1, 3)
    layer.bind(a, b, ranks=(1, 1), scalings=(1.0, 1.0), dropouts=(0.0, 0.0))
    layer(torch.randn(4, 3))
    with pytest.raises(TrainingError, match=r"key_proj .* 2 blocks of 2\. Got 6"):
        layer(torch.randn(6, 3))


class TinyBench(Bench):
    """A tiny random model of a family, and a few rows for it."""

    def base_folder(self, *, notify: object = None) -> Path:
        raise NotImplementedError

    def build(self, *, meta: bool = False) -> PreTrainedModel:
        model = tiny_model(self.name) if meta else fresh(self.name, "none")
        assert isinstance(model, PreTrainedModel)
        return model

    def splits(self) -> Splits:
        batch = batch_of(self.name)
        task: Task = Classification() if batch["labels"].ndim == 1 else Writing("loss")
        train = Split({name: column.repeat(8, *[1] * (column.ndim - 1)) for name, column in batch.items()}, task)
        return Splits(train, train, train)


def engine_of(family: str, *tunings: MethodSpec) -> GroupedEngine:
    """An engine on a tiny random model, B drawn too."""
    is_classifier = batch_of(family)["labels"].ndim == 1
    bench = TinyBench(family, family, family, Defaults(1, 3, 0.1), trains_head=is_classifier and family != "vit")
    specs = [RunSpec(bench="", base_sha256="", tuning=t, seed=i, batch_size=3) for i, t in enumerate(tunings)]
    engine = GroupedEngine(specs, bench, bench.splits(), torch.device("cpu"))
    generator = torch.Generator().manual_seed(3)
    for block in engine.stack.blocks:
        for run, tuning in enumerate(tunings):
            if block.kind == "lora_b":
                engine.stack.row(block.name, run)[: tuning.r].normal_(0, 0.1, generator=generator)
    return engine


SHARE_NO_PASS = {
    "deberta-v2": "blocks of 3",  # its matrices read a table of distances too
}


@pytest.mark.parametrize("family", TINY)
def test_on_every_architecture_each_run_gets_its_own_logits(family: str) -> None:
    engine = engine_of(family, MethodSpec(r=2), MethodSpec(method="rslora", r=3))
    inputs = without_labels(batch_of(family))
    both = {name: torch.cat([column, column]) for name, column in inputs.items()}
    if engine.model.config.is_encoder_decoder:
        inputs, both = ({**part, "decoder_input_ids": part["input_ids"]} for part in (inputs, both))
    engine.company.rows = 3
    if family in SHARE_NO_PASS:
        with pytest.raises(TrainingError, match=SHARE_NO_PASS[family]):
            engine.model(**both)
        return
    with torch.no_grad():
        grouped = engine.model(**both).logits.chunk(2)
        for run, spec in enumerate(engine.specs):
            with engine.model_of(spec) as model:
                torch.testing.assert_close(grouped[run], model(**inputs).logits, rtol=1e-4, atol=1e-5)
    assert (grouped[0] - grouped[1]).abs().max() > 1e-3


def test_adapters_on_experts_are_refused() -> None:
    """They are parameters of three dimensions, and their rows are not the batch's."""
    name = next(m.name for m in read_geometry(tiny_model("mixtral")).matrices if m.kind == "experts")
    with pytest.raises(SpecError, match="linear maps alone"):
        engine_of("mixtral", MethodSpec(r=2, target_modules=(name,)), MethodSpec(r=3, target_modules=(name,)))


def test_one_runs_rows_do_not_see_anothers(digits_base: nn.Module) -> None:
    """The same rows twice, given to two runs of one start value: each gets what it gets alone."""
    company = Company(runs=2, rows=4)
    linear = next(module for name, module in digits_base.named_modules() if name.endswith("q_proj"))
    layer = GroupedLora("q", linear, company)
    d = linear.weight.shape[1]
    a, b = torch.randn(2, 3, d), torch.randn(2, 3, linear.weight.shape[0])
    layer.bind(a, b, ranks=(3, 2), scalings=(0.5, 2.0), dropouts=(0.0, 0.0))
    x = torch.randn(4, 5, d)
    both = layer(torch.cat([x, x]))
    for run, scaling in enumerate((0.5, 2.0)):
        torch.testing.assert_close(both[4 * run : 4 * run + 4], linear(x) + scaling * x @ a[run].mT @ b[run])
