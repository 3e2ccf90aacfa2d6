"""`lora-lab budget`: the contract of its JSON, every method and flag, mistakes in one sentence, and how fast it answers."""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lora_lab as ll
from lora_lab.budget import PARTS, cards, find_card
from lora_lab.cli import main
from lora_lab.specs import METHODS

KEYS = {
    "model",
    "method",
    "trainable_params",
    "head_params",
    "total_params",
    "adapter_file_bytes",
    "source",
    "vram_bytes",
    "fits",
    "targets",
    "notes",
}
LLAMA = ["--model", "llama-3.2-3b"]
Document = dict[str, Any]
Say = Callable[..., Document]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """`lora-lab budget … --json`, run here: its document."""

    def run(*arguments: str) -> Document:
        assert main(["budget", *arguments, "--json"]) == 0
        said = capsys.readouterr()
        document: Document = json.loads(said.out)
        return document

    return run


def test_the_document_has_the_keys_of_the_contract(say: Say) -> None:
    document = say(*LLAMA, "--r", "32", "--targets", "q_proj,v_proj", "--batch", "4", "--seq", "750")
    assert set(document) == KEYS
    assert set(document["vram_bytes"]) == {*PARTS, "overhead", "peak"}
    assert all(type(n_bytes) is int and n_bytes >= 0 for n_bytes in document["vram_bytes"].values())
    assert sum(document["vram_bytes"][part] for part in PARTS) == document["vram_bytes"]["peak"]
    assert document["fits"].keys() == {card.name for card in cards()}
    assert all(type(fits) is bool for fits in document["fits"].values())
    counts = ("trainable_params", "head_params", "total_params", "adapter_file_bytes")
    assert all(type(document[key]) is int for key in counts)
    assert document["trainable_params"] == 9_175_040
    assert document["total_params"] == 3_212_749_824
    assert document["adapter_file_bytes"] == 36_715_216
    assert (document["model"], document["method"], document["source"]) == ("Llama-3.2-3B", "lora", "formula")
    assert document["targets"] == ["q_proj", "v_proj"]


def test_the_command_says_what_the_function_says(say: Say) -> None:
    document = say(*LLAMA, "--r", "32", "--targets", "q_proj,v_proj", "--batch", "4", "--seq", "750")
    made = ll.budget("llama-3.2-3b", ll.LoraSpec(r=32, target_modules=("q_proj", "v_proj")), batch=4, seq=750)
    assert document == made.to_json()


def test_the_largest_rank_is_said_only_where_a_card_is_named(say: Say) -> None:
    assert "max_r" not in say(*LLAMA)
    document = say(*LLAMA, "--fits-in", "24GB")
    assert set(document) == KEYS | {"max_r", "max_batch", "max_seq", "fits_in"}
    assert document["max_r"] == 1024  # the full rank of v
    assert document["fits_in"] is True
    assert say("--model", "llama-2-70b-hf", "--fits-in", "24GB")["max_r"] is None
    assert say(*LLAMA, "--method", "full", "--fits-in", "4090")["max_r"] is None


def test_a_rank_said_to_be_the_largest_fits_and_the_next_does_not(say: Say) -> None:
    arguments = ["--model", "llama-3.2-1b", "--targets", "all-linear", "--optimizer", "adamw", "--fits-in", "8GB"]
    most = say(*arguments)["max_r"]
    assert 1 < most < 512
    assert say(*arguments, "--r", str(most))["fits_in"] is True
    assert say(*arguments, "--r", str(most + 1))["fits_in"] is False


def test_cards_fit_from_some_size_on(say: Say) -> None:
    for arguments in ([], ["--method", "full"], ["--method", "qlora", "--checkpointing"]):
        fits = list(say(*LLAMA, *arguments)["fits"].values())
        assert fits == sorted(fits)
        assert fits[-1]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_answered(method: str, say: Say) -> None:
    document = say("--model", "gpt2", "--method", method, "--r", "4")
    assert document["method"] == method
    assert document["trainable_params"] > 0
    assert document["adapter_file_bytes"] > 0
    assert document["vram_bytes"]["weights"] > 0
    assert bool(document["targets"]) == METHODS[method].has_targets


@pytest.mark.parametrize("method", [method for method in METHODS if method not in ("prelayer", "preembed")])
@pytest.mark.slow
def test_every_method_that_a_library_attaches_is_traced(method: str, say: Say) -> None:
    arguments = ["--model", "gpt2", "--method", method, "--r", "4", "--seq", "64"]
    by_formula, by_trace = say(*arguments), say(*arguments, "--trace")
    assert by_trace["source"] == "trace"
    assert by_trace["trainable_params"] == by_formula["trainable_params"]
    assert by_trace["vram_bytes"]["peak"] == pytest.approx(by_formula["vram_bytes"]["peak"], rel=0.05)


# a flag, and the part of the bill that it must change: -1 lowers it, +1 raises it
FLAGS = [
    (["--batch", "4"], "activations", +1),
    (["--seq", "1024"], "activations", +1),
    (["--dtype", "fp32"], "weights", +1),
    (["--quant", "int8"], "weights", -1),
    (["--quant", "nf4"], "weights", -1),
    (["--quant", "nf4-dq"], "weights", -1),
    (["--quant", "nf4", "--kbit-prepare"], "loss", +1),
    (["--adapter-dtype", "bf16"], "adapters", -1),
    (["--optimizer", "sgd"], "optimizer", -1),
    (["--optimizer", "adamw8bit"], "optimizer", -1),
    (["--optimizer", "paged-adamw8bit"], "optimizer", -1),
    (["--optimizer", "adafactor"], "optimizer", -1),
    (["--dropout", "0.1"], "activations", +1),
    (["--checkpointing"], "activations", -1),
    (["--attention", "flash"], "activations", -1),
    (["--attention", "eager"], "activations", +1),
    (["--fused-loss"], "loss", -1),
    (["--r", "64"], "adapters", +1),
    (["--targets", "all-linear"], "adapters", +1),
    (["--targets", "q"], "adapters", -1),
    (["--layers", "0-3"], "adapters", -1),
]


@pytest.mark.parametrize(("flags", "part", "sign"), FLAGS, ids=[" ".join(flags) for flags, *_ in FLAGS])
def test_every_flag_moves_the_part_that_it_is_about(flags: list[str], part: str, sign: int, say: Say) -> None:
    before, after = say(*LLAMA, "--r", "16"), say(*LLAMA, "--r", "16", *flags)
    assert sign * (after["vram_bytes"][part] - before["vram_bytes"][part]) > 0


def test_alpha_is_no_matter_of_memory(say: Say) -> None:
    assert say(*LLAMA, "--alpha", "2r") == say(*LLAMA, "--alpha", "64") == say(*LLAMA)


def test_layers_are_spans_and_single_ones(say: Say) -> None:
    all_of_them = say(*LLAMA)["trainable_params"]
    assert all_of_them == 28 * say(*LLAMA, "--layers", "8")["trainable_params"]
    assert say(*LLAMA, "--layers", "0-5,8")["trainable_params"] == all_of_them // 28 * 7
    assert say(*LLAMA, "--layers", "0,1,2-5,8")["trainable_params"] == all_of_them // 28 * 7


def test_biases_are_counted_beside(say: Say) -> None:
    arguments = ["--model", "gpt2", "--targets", "c_attn"]
    plain = say(*arguments)["trainable_params"]
    assert say(*arguments, "--bias", "lora_only")["trainable_params"] - plain == 12 * 2304
    biases = 12 * (2304 + 768 + 3072 + 768 + 2 * 768) + 768
    assert say(*arguments, "--bias", "all")["trainable_params"] - plain == biases


def test_qlora_is_lora_on_a_base_in_nf4(say: Say) -> None:
    qlora, lora = say(*LLAMA, "--method", "qlora"), say(*LLAMA, "--quant", "nf4-dq")
    assert qlora["vram_bytes"] == lora["vram_bytes"]
    assert qlora["trainable_params"] == lora["trainable_params"]
    assert say(*LLAMA, "--method", "qlora", "--quant", "none")["vram_bytes"] == say(*LLAMA)["vram_bytes"]


def test_a_fused_matrix_is_named_where_a_role_stands_for_it(say: Say) -> None:
    assert any("c_attn" in note and "q, k and v" in note for note in say("--model", "gpt2", "--targets", "q,v")["notes"])
    assert not say(*LLAMA)["notes"]


@pytest.mark.slow
def test_a_trace_of_lora_says_what_peft_attached(say: Say) -> None:
    arguments = ["--model", "smollm2-135m", "--r", "4", "--seq", "64", "--checkpointing"]
    traced, reckoned = say(*arguments, "--trace"), say(*arguments)
    assert traced["source"] == "trace"
    assert {key: traced[key] for key in KEYS - {"source", "vram_bytes", "fits"}} == {
        key: reckoned[key] for key in KEYS - {"source", "vram_bytes", "fits"}
    }


# On SmolLM2: 30 layers, q maps 576 to 576 and v 576 to 192.
PEFT_CONFIGS: dict[str, tuple[dict[str, Any], int]] = {
    "lora": ({"r": 4, "target_modules": ["q_proj", "v_proj"]}, 30 * 4 * (2 * 576 + 576 + 192)),
    "loha": ({"r": 4, "target_modules": ["v_proj"]}, 30 * 2 * 4 * (576 + 192)),
    "ia3": ({"target_modules": ["q_proj", "v_proj"], "feedforward_modules": []}, 30 * (576 + 192)),
    "vera": ({"r": 16, "target_modules": ["v_proj"]}, 30 * (16 + 192)),
    "prompt_tuning": ({"num_virtual_tokens": 5, "task_type": "CAUSAL_LM"}, 5 * 576),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", PEFT_CONFIGS)
def test_any_config_of_peft_is_attached_counted_and_traced(kind: str, tmp_path: Path, say: Say) -> None:
    config, params = PEFT_CONFIGS[kind]
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({"peft_type": kind.upper(), **config}))
    document = say("--model", "smollm2-135m", "--seq", "64", "--peft-config", str(path))
    assert set(document) == KEYS
    assert document["source"] == "trace"
    assert document["method"] == kind
    assert document["trainable_params"] == params
    assert document["vram_bytes"]["adapters"] >= 4 * params


def test_without_json_a_person_reads_sentences(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["budget", *LLAMA, "--r", "32", "--targets", "q_proj,v_proj", "--batch", "4", "--seq", "750"]) == 0
    said = capsys.readouterr().out
    assert "LoRA on Llama-3.2-3B would train 9.18 M parameters" in said
    assert "RTX 4090" in said
    assert "weights" in said
    assert main(["budget", "--model", "llama-3.1-405b", "--fits-in", "T4"]) == 0
    assert "Nothing here makes it fit T4" in capsys.readouterr().out


MISTAKES = [
    (["--model", "gpt-5"], "Got 'gpt-5'."),
    (["--model", "no/such/folder/here"], "Got 'no/such/folder/here'."),
    ([*LLAMA, "--method", "lo-ra"], "Got 'lo-ra'."),
    ([*LLAMA, "--r", "0"], "r parameter of MethodSpec must be an int of at least 1. Got 0."),
    ([*LLAMA, "--r", "four"], "--r must be an int. Got 'four'."),
    ([*LLAMA, "--targets", "q_proj,typo"], "Got 'typo'."),
    (["--model", "gpt2", "--targets", "gate"], "Got 'gate'."),
    ([*LLAMA, "--layers", "28-40"], "0..27"),
    ([*LLAMA, "--layers", "a-b"], "numbers and spans such as 0-5,8. Got 'a-b'."),
    ([*LLAMA, "--layers", "5-2"], "layers_to_transform"),
    ([*LLAMA, "--batch", "0"], "batch parameter of StepSpec must be an int of at least 1. Got 0."),
    ([*LLAMA, "--seq", "many"], "--seq must be an int. Got 'many'."),
    ([*LLAMA, "--dropout", "1"], "lora_dropout"),
    ([*LLAMA, "--alpha", "2x"], "lora_alpha"),
    ([*LLAMA, "--method", "bitfit"], "this base has no biases"),
    ([*LLAMA, "--method", "full", "--quant", "nf4"], "must be none. Got 'nf4'."),
    ([*LLAMA, "--fits-in", "A100"], "Got 'A100'."),
    ([*LLAMA, "--fits-in", "a lot"], "Got 'a lot'."),
    ([*LLAMA, "--peft-config", "nowhere.json"], "nowhere.json"),
]


@pytest.mark.parametrize(("arguments", "sentence"), MISTAKES, ids=[" ".join(arguments) for arguments, _ in MISTAKES])
def test_a_mistake_is_one_sentence_and_exit_2(
    arguments: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["budget", *arguments, "--json"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert sentence in said.err
    assert len(said.err.strip().splitlines()) == 1
    assert said.err.startswith("lora-lab: ")


# Where the tests check annotations, the annotation refuses these first: they go to a process of their own.
CHOICES = {
    "--quant": ("q4_0", "one of none, int8, nf4, nf4-dq"),
    "--dtype": ("fp8", "one of bf16, fp16, fp32"),
    "--adapter-dtype": ("int8", "one of fp32, bf16"),
    "--optimizer": ("lion", "one of adamw, adamw8bit, paged-adamw8bit, adafactor, sgd"),
    "--attention": ("sparse", "one of sdpa, flash, eager"),
    "--bias": ("some", "one of none, all, lora_only"),
}


@pytest.mark.parametrize("flag", CHOICES)
def test_what_is_none_of_the_choices_is_one_sentence_and_exit_2(flag: str, repository: Path) -> None:
    said, allowed = CHOICES[flag]
    command = [sys.executable, "-m", "lora_lab", "budget", *LLAMA, flag, said, "--json"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.strip().endswith(f"must be {allowed}. Got {said!r}.")
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("text", ["{", "[]", '{"peft_type": "ABACUS"}', '{"peft_type": "LORA", "target_modules": ["typo"]}'])
def test_a_config_that_peft_refuses_is_one_sentence(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "adapter_config.json"
    path.write_text(text)
    assert main(["budget", "--model", "gpt2", "--peft-config", str(path), "--json"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.strip().splitlines()) == 1


def python(code: str, cwd: Path) -> str:
    """What a fresh process prints."""
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=True)
    return done.stdout


def test_the_formula_loads_no_heavy_library(repository: Path) -> None:
    code = (
        "import sys; from lora_lab.cli import main; "
        "main(['budget', '--model', 'llama-3.2-3b', '--method', 'qlora', '--fits-in', '24GB', '--json']); "
        "print(*sorted({m.split('.')[0] for m in sys.modules} "
        "& {'torch', 'transformers', 'gradio', 'plotly', 'peft', 'numpy', 'huggingface_hub'}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=True)
    assert done.stderr.strip() == ""
    assert json.loads(done.stdout)["method"] == "qlora"


@pytest.mark.slow
@pytest.mark.timed
def test_the_command_takes_half_a_second_more_than_python_alone(repository: Path) -> None:
    """Medians of five of each, taken in turn, so that a busy moment counts for both."""
    bare, command = [sys.executable, "-c", "pass"], [sys.executable, "-m", "lora_lab", "budget", *LLAMA, "--json"]
    taken: dict[str, list[float]] = {"bare": [], "command": []}
    for _ in range(5):
        for name, arguments in (("bare", bare), ("command", command)):
            begun = time.perf_counter()
            subprocess.run(arguments, cwd=repository, capture_output=True, check=True)
            taken[name].append(time.perf_counter() - begun)
    assert statistics.median(taken["command"]) - statistics.median(taken["bare"]) <= 0.5


_A_THOUSAND = """
import itertools, time
from lora_lab.budget import budget, find_model
from lora_lab.specs import MethodSpec
model = find_model("llama-3.2-3b")
targets = [("q", "v"), ("q", "k", "v", "o"), ("all-linear",), ("gate", "up", "down"), ("q",)]
cells = list(itertools.product(targets, (1, 2, 4, 8, 16, 32, 64, 128, 256, 512), (1, 2, 4, 8), (128, 512, 750, 1024, 4096)))
assert len(cells) == 1000
best = float("inf")
for _ in range(5):
    begun = time.perf_counter()
    peaks = [budget(model, MethodSpec(r=r, target_modules=t), batch=b, seq=s).ledger.peak for t, r, b, s in cells]
    best = min(best, time.perf_counter() - begun)
assert len(set(peaks)) > 900
print(best)
"""


@pytest.mark.timed
@pytest.mark.slow
def test_a_thousand_configurations_take_a_fifth_of_a_second(repository: Path) -> None:
    assert float(python(_A_THOUSAND, repository)) <= 0.2


def test_a_card_in_the_document_is_one_that_can_be_named(say: Say) -> None:
    for name, fits in say(*LLAMA)["fits"].items():
        assert say(*LLAMA, "--fits-in", name)["fits_in"] == fits
        assert find_card(name).name == name
