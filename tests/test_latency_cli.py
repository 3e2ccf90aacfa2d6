"""`python -m lora_lab latency`: one document, or tables and sentences."""

import json
from pathlib import Path
from typing import Any

import pytest

from lora_lab.budget.paper import table_1
from lora_lab.cli import main

DIGITS = ("latency", "--bench", "digits", "--shapes", "1,8", "--repeats", "8", "--r", "2")


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(arguments) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_the_document_has_every_variant_at_every_shape(capsys: pytest.CaptureFixture[str]) -> None:
    found = printed(capsys, *DIGITS, "--json")
    assert (found["source"], found["device"], found["threads"], found["dtype"], found["r"]) == ("digits", "cpu", 1, "float32", 2)
    assert [(at["batch"], at["tokens"]) for at in found["shapes"]] == [(1, None), (8, None)]
    for at in found["shapes"]:
        assert [v["name"] for v in at["variants"]] == ["base", "merged", "lora", "adapter", "adapter_pfeiffer"]
        base, *others = at["variants"]
        assert (base["ratio"], base["ratio_low"], base["told"]) == (None, None, None)
        for one in (base, *others):
            assert 0 < one["min_s"] <= one["q1_s"] <= one["median_s"] <= one["q3_s"]
        for one in others:
            assert one["rounds"] == 8
            assert one["ratio_low"] <= one["ratio"] <= one["ratio_high"]
            assert one["told"] is not (one["ratio_low"] <= 1 <= one["ratio_high"])
    (refusal,) = found["refused"]
    assert refusal["name"] == "prefix"


def test_the_document_has_logits_switching_and_the_paper(capsys: pytest.CaptureFixture[str]) -> None:
    found = printed(capsys, *DIGITS, "--json")
    assert [way["dtype"] for way in found["logit_difference"]["ways"]] == ["fp32", "bf16", "fp16"]
    assert found["switching"]["model_bytes"] > 10 * found["switching"]["adapter_bytes"]
    assert [way["name"] for way in found["switching"]["ways"]] == ["resident", "adapter file", "model file"]
    assert [(one["batch"], one["tokens"]) for one in found["paper"]] == [(32, 512), (16, 256), (1, 128)]
    assert found["paper"][2]["ratios"]["adapter"] == table_1()[2].ratio("adapter")


def test_what_is_printed_has_the_paper_beside_it_and_says_what_it_tells_of_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(DIGITS) == 0
    text = capsys.readouterr().out
    for said in ("LoRA, beside the base", "1449.4 ± 0.8 ms", "no GPU was measured", "100 tasks take 61.8 MB as models", "bf16"):
        assert said in text


def test_a_run_brings_its_bench_and_its_adapter(capsys: pytest.CaptureFixture[str], digits_run: Any) -> None:
    arguments = ("latency", "--run", digits_run.run_id, "--runs", str(digits_run.folder.parent), "--shapes", "1", "--repeats", "1")
    found = printed(capsys, *arguments, "--json")
    assert found["source"] == "digits"
    assert found["logit_difference"]["adapter"] == f"the LoRA of run {digits_run.run_id}"


def test_any_model_in_a_folder_is_measured(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "vocab_size": 40}
    LlamaForCausalLM(LlamaConfig(**size)).save_pretrained(tmp_path)
    found = printed(capsys, "latency", "--bench", str(tmp_path), "--shapes", "1x4", "--repeats", "1", "--json")
    assert found["refused"] == []
    assert [v["name"] for v in found["shapes"][0]["variants"]][-1] == "prefix"
    assert found["logit_difference"]["examples"] == "4 sequences of 64 random tokens"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--shapes", "8x"], "The shape parameter of latency must be"),
        (["--repeats", "0"], "The repeats parameter of latency must be at least 1"),
        (["--r", "0"], "The r parameter of MethodSpec must be an int of at least 1"),
        (["--device", "abacus"], "The device parameter of training must be one of"),
    ],
)
def test_a_mistake_is_one_sentence(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["latency", "--bench", "digits", *arguments]) == 2
    assert sentence in capsys.readouterr().err


def test_a_bench_is_needed_where_no_run_is_given_and_is_the_runs(capsys: pytest.CaptureFixture[str], digits_run: Any) -> None:
    assert main(["latency"]) == 2
    assert "--bench must be given where --run is not" in capsys.readouterr().err
    runs = str(digits_run.folder.parent)
    assert main(["latency", "--bench", "reviews", "--run", digits_run.run_id, "--runs", runs]) == 2
    assert "--bench must be the run's, digits. Got 'reviews'" in capsys.readouterr().err
