"""Every method that the digits base takes, trained on its own data by the command that a user types, and opened again."""

import functools
import json
from pathlib import Path

import pytest
import torch
from transformers import ViTForImageClassification

import lora_lab as ll
from lora_lab.budget import method_params
from lora_lab.cli import main
from lora_lab.inference import merge_report, open_run, unload_merged
from lora_lab.methods import refuse_unfit
from lora_lab.specs import IN_PLACE, METHODS, MethodSpec
from lora_lab.sweeps import RunStore

STEPS = 60


def _is_taken(method: str) -> bool:
    bench = ll.find_bench("digits")
    try:
        refuse_unfit(bench.build(meta=True), bench.geometry(), MethodSpec(method=method))
    except ll.LabError:
        return False
    return True


TAKEN = [method for method in METHODS if _is_taken(method)]
STARTS = ["gaussian", "orthogonal", "pissa", "olora", "eva"]
WAYS = {
    **{method: ("--method", method) for method in TAKEN},
    **{f"lora, {init}": ("--init", init) for init in STARTS},
    "qlora in nf4": ("--method", "qlora", "--quant", "nf4"),
    "qlora in int8": ("--method", "qlora", "--quant", "int8"),
    "dora on nf4": ("--method", "dora", "--quant", "nf4"),
    "lora by AdamW8bit": ("--optimizer", "adamw8bit"),
    "lora by SGD": ("--optimizer", "sgd", "--lr", "0.5"),
    "lora on two layers, biases too": ("--layers", "1-2", "--bias", "lora_only"),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("every-method")


@functools.cache
def _trained(way: str, runs: Path) -> ll.Run:
    """`lora-lab train --bench digits …`, once for all the tests that look at it."""
    arguments = ["train", "--bench", "digits", *WAYS[way], "--r", "4", "--steps", str(STEPS), "--runs", str(runs), "--json"]
    had = RunStore(runs).complete_ids()
    assert main(arguments) == 0
    (run,) = (run for run in RunStore(runs).runs() if run.run_id not in had)
    return run


@pytest.fixture(params=WAYS)
def run(request: pytest.FixtureRequest, runs: Path) -> ll.Run:
    return _trained(request.param, runs)


def test_the_digits_take_what_reads_no_tokens() -> None:
    assert set(METHODS) - set(TAKEN) == {"prefix", "preembed", "prelayer", "lora+prefix", "lora+preembed"}


def test_the_loss_falls(run: ll.Run) -> None:
    losses = [step.loss for step in run.progress().steps]
    assert len(losses) == STEPS
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
    assert run.metrics["loss"] < run.metrics["base_loss"]


def test_the_count_is_the_budgets(run: ll.Run) -> None:
    geometry = ll.find_bench("digits").geometry()
    assert run.metrics["trainable_params"] - run.metrics["head_params"] == method_params(geometry, run.spec.tuning)


def test_opened_again_it_scores_what_it_scored(run: ll.Run) -> None:
    model = open_run(run.spec, run.adapter_dir)
    validation = ll.find_bench("digits").splits().validation
    score = ll.evaluate(model, validation)
    one_digit = 1.5 / len(validation)  # PiSSA's file is for the base that was not moved
    assert score.value == pytest.approx(run.metrics["accuracy"], abs=one_digit)
    assert score.loss == pytest.approx(run.metrics["loss"], rel=1e-3)


def test_what_is_read_from_its_files_is_what_it_changed(run: ll.Run) -> None:
    """ΔW against the original base, whatever the run was trained on: the weights that it ends with, less the base's."""
    adapter, tuning = run.adapter(), run.spec.tuning
    if tuning.method in ("ln_tuning", "bitfit", "adapter", "adapter_pfeiffer"):
        assert not adapter
        assert len(adapter.warnings) == 1
        return
    base, live = ll.find_bench("digits").build(), open_run(run.spec, run.adapter_dir, quant="none")
    plain = live if tuning.method in IN_PLACE else unload_merged(live)
    matrices = [m for m in ll.find_bench("digits").geometry().matrices if m.role != "head"]
    changes = {m.name: plain.get_submodule(m.name).weight - base.get_submodule(m.name).weight for m in matrices}
    assert {name for name, delta in adapter.items() if delta.frobenius()} == {
        name for name, change in changes.items() if change.any()
    }
    for name, delta in adapter.items():
        torch.testing.assert_close(delta.dense().float(), changes[name].detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("way", ["vera", "adalora", "adapter", "full", "qlora", "lora, pissa", "lora, eva"])
def test_the_same_command_gives_the_same_run(way: str, runs: Path, tmp_path: Path) -> None:
    first, again = _trained(way, runs), _trained(way, tmp_path)
    assert first.run_id == again.run_id
    assert [s.loss for s in first.progress().steps] == [s.loss for s in again.progress().steps]
    files = [(r.adapter_dir / "adapter_model.safetensors").read_bytes() for r in (first, again)]
    assert files[0] == files[1]


def test_at_the_first_step_nothing_reaches_a(runs: Path) -> None:
    first, *rest = _trained("lora", runs).progress().steps
    assert first.grad_norm_a == 0.0
    assert first.grad_norm_b is not None
    assert first.grad_norm_b > 0
    assert all(step.grad_norm_a for step in rest)
    assert all(step.grad_norm_a is None for step in _trained("bitfit", runs).progress().steps)


def test_loraplus_gives_b_its_own_learning_rate(runs: Path) -> None:
    spec = _trained("lora+", runs).spec
    bench = ll.find_bench("digits")
    assert spec.learning_rate == pytest.approx(bench.defaults.learning_rate * METHODS["lora+"].lr_factor)
    other = ll.train("digits", MethodSpec(method="lora+", r=4), steps=STEPS, loraplus_lr_ratio=1.0, runs=runs)
    plain = ll.train("digits", MethodSpec(r=4), steps=STEPS, learning_rate=spec.learning_rate, runs=runs)
    losses = [[step.loss for step in r.progress().steps] for r in (_trained("lora+", runs), other, plain)]
    assert losses[1] == losses[2]
    assert losses[0][1:] != losses[2][1:]


def test_a_qlora_adapter_loads_on_the_base_that_was_not_quantized_and_the_difference_is_told(runs: Path) -> None:
    from peft import PeftModel

    run = _trained("qlora", runs)
    report = merge_report(run.spec, run.adapter_dir)
    assert report.unquantized is not None
    bench = ll.find_bench("digits")
    plain = PeftModel.from_pretrained(bench.build(), str(run.adapter_dir)).eval()
    quantized = open_run(run.spec, run.adapter_dir)
    images = bench.splits().test.columns["pixel_values"][: report.rows]
    with torch.no_grad():
        wanted, found = plain(images).logits, quantized(images).logits
    assert report.unquantized.difference == pytest.approx(float((found - wanted).norm() / wanted.norm()), rel=1e-4)
    assert 0.01 < report.unquantized.difference < 0.5


def test_merging_dequantizes_first_and_the_loss_of_merging_into_four_bits_is_measured(runs: Path) -> None:
    run = _trained("qlora", runs)
    report = merge_report(run.spec, run.adapter_dir)
    fp32, bf16, few_bits = report.ways
    assert (fp32.name, bf16.name, few_bits.name) == ("fp32", "bf16", "nf4-dq")
    assert None not in (fp32.difference, bf16.difference, few_bits.difference)
    assert fp32.difference < 1e-5 < bf16.difference < few_bits.difference < 0.5
    assert fp32.score == report.score


@pytest.mark.parametrize("way", ["full", "bitfit", "adapter"])
def test_what_cannot_merge_says_why(way: str, runs: Path) -> None:
    run = _trained(way, runs)
    with pytest.raises(ll.LabError, match=r"nothing to merge|no weight can hold it"):
        merge_report(run.spec, run.adapter_dir)


@pytest.mark.parametrize("way", ["dora", "qlora", "full", "lora, pissa"])
def test_a_merged_model_is_a_plain_one_of_transformers(way: str, runs: Path, tmp_path: Path) -> None:
    run = _trained(way, runs)
    ll.export_merged(run.spec, run.adapter_dir, tmp_path / "merged")
    merged = ViTForImageClassification.from_pretrained(tmp_path / "merged")
    images = ll.find_bench("digits").splits()[1].columns["pixel_values"][:64]
    with torch.no_grad():
        torch.testing.assert_close(merged(images).logits, open_run(run.spec, run.adapter_dir)(images).logits, rtol=1e-4, atol=1e-4)


def test_the_command_merges_tells_what_it_cost_and_writes_the_model(
    runs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = _trained("qlora", runs)
    capfd.readouterr()
    assert main(["merge", run.run_id[:8], "--runs", str(runs), "--out", str(tmp_path / "merged"), "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert [way["name"] for way in document["ways"]] == ["fp32", "bf16", "nf4-dq"]
    assert document["unquantized"]["difference"] > 0.01
    assert (tmp_path / "merged" / "model.safetensors").is_file()


def test_what_the_digits_cannot_take_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = {
        ("--method", "prefix"): "ViTModel takes none",
        ("--method", "lora+preembed"): "this base reads none",
        ("--init", "loftq"): "on a GPU, and there is none" if not torch.cuda.is_available() else "",
        ("--init", "orthogonal", "--r", "3"): "even for orthogonal start values",
        ("--method", "full", "--quant", "nf4"): "none for Full fine-tuning",
        ("--method", "qlora", "--quant", "none"): "int8, nf4 or nf4-dq for QLoRA",
        ("--optimizer", "lbfgs"): "it wants a closure",
        ("--optimizer", "adamm"): "a class of torch.optim or bitsandbytes.optim",
    }
    for arguments, sentence in refused.items():
        assert main(["train", "--bench", "digits", *arguments, "--runs", str(tmp_path / "runs"), "--json"]) == 2
        error = capsys.readouterr().err
        assert sentence in error
        assert len(error.strip().splitlines()) == 1
    assert not list(tmp_path.glob("runs/*/"))


def test_the_json_of_train_says_it_all(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _trained("dora", runs)
    capsys.readouterr()
    main(["train", "--bench", "digits", "--method", "dora", "--r", "4", "--steps", str(STEPS), "--runs", str(runs), "--json"])
    document = json.loads(capsys.readouterr().out)
    assert set(document) >= {"run_id", "metrics", "adapter_dir", "spec"}
    assert document["spec"]["tuning"]["method"] == "dora"
