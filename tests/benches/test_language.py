"""The benches that write: what they train on, and what the frozen base makes of it. SmolLM2 itself, from the Hub or the package."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import lora_lab as ll
from lora_lab.adapters import load_adapter
from lora_lab.assets import cache_dir
from lora_lab.benches import find_bench, language, smollm
from lora_lab.benches.language import RECIPES
from lora_lab.benches.retention import FIXED_TEXT, fixed_text
from lora_lab.benches.smollm import GGUF, HUB_ID, is_dequantized, smollm_folder
from lora_lab.benches.writing import tokenizer_of
from lora_lab.training import evaluate

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder() -> Path:
    return smollm_folder()


def test_the_weights_say_where_they_are_from(folder: Path) -> None:
    note = find_bench("e2e").note()
    if is_dequantized(folder):
        facts = json.loads((folder / "dequantized.json").read_text())
        assert facts["sha256"] == GGUF.files[0].sha256
        assert "dequantized from Q4_1" in note
        assert folder.parent == cache_dir()
    else:
        assert note == ""


def test_the_geometry_without_weights_is_the_live_model_s() -> None:
    bench = find_bench("e2e")
    live = ll.read_geometry(bench.build())
    assert bench.geometry() == live
    assert live.total_params == 134_515_008
    assert (live.architecture.layers, live.architecture.hidden, live.architecture.kv_heads) == (30, 576, 3)


@pytest.mark.parametrize("name", RECIPES)
def test_rows_are_the_generator_s_with_an_end_after_each(name: str, folder: Path) -> None:
    data, splits = RECIPES[name].data(), find_bench(name).splits()
    tokenizer = tokenizer_of(folder)
    for rows, split in zip((data.train, data.validation, data.test), splits, strict=True):
        assert split.examples == rows[: len(split)]
        for row in (0, len(split) - 1):
            ids = split.columns["input_ids"][row][split.columns["attention_mask"][row] == 1].tolist()
            assert ids[-1] == tokenizer.eos_token_id
            assert tokenizer.decode(ids[:-1]) == rows[row].prompt + rows[row].completion
    longest = max(int((split.columns["labels"] != -100).sum(1).max()) for split in splits)
    assert longest <= RECIPES[name].max_new_tokens  # an answer that is right is never cut


def test_the_frozen_base_writes_english_and_no_sql_that_answers(folder: Path) -> None:
    bench = find_bench("sql")
    test = bench.splits().test
    some = test.take(torch.arange(8))
    model = bench.build()
    assert evaluate(model, some).value <= 0.25
    assert evaluate(model, fixed_text(folder)).loss < 4  # guessing among 49,152 tokens would be 10.8


def test_the_fixed_text_is_read_whole(folder: Path) -> None:
    split = fixed_text(folder)
    ids = [row[mask == 1] for row, mask in zip(split.columns["input_ids"], split.columns["attention_mask"], strict=True)]
    read = tokenizer_of(folder).decode(torch.cat(ids), skip_special_tokens=True)
    assert read == FIXED_TEXT.read_text().strip().replace("\n\n", "")


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The benches with few rows that are held out: writing takes a while."""
    few = {n: replace(recipe, validation_rows=8, test_rows=8, scored_rows=8, max_new_tokens=24) for n, recipe in RECIPES.items()}
    monkeypatch.setattr(language, "RECIPES", few)
    for cached in (language._text_data, language._splits):
        cached.cache_clear()
    yield
    for cached in (language._text_data, language._splits):
        cached.cache_clear()


@pytest.mark.usefixtures("short")
def test_a_few_steps_of_lora_lower_the_loss_and_open_again(tmp_path: Path) -> None:
    run = ll.train("e2e", ll.LoraSpec(r=8), steps=8, runs=tmp_path)
    metrics = run.metrics
    assert (metrics["metric"], metrics["trainable_params"]) == ("bleu", 30 * 8 * (576 + 576 + 576 + 192))
    assert metrics["loss"] < 0.85 * metrics["base_loss"]
    assert metrics["forgetting"]["kept"] == "loss"
    assert metrics["step_s"] > 0
    assert 0 <= metrics["echo_test_bleu"] <= 100
    assert len(load_adapter(run.adapter_dir)) == 60
    opened = ll.open_run(run.spec, run.adapter_dir)
    score = evaluate(opened, find_bench("e2e").splits().test)
    assert score.value == pytest.approx(metrics["test_bleu"])
    assert score.loss == pytest.approx(metrics["test_loss"], rel=1e-4)


def test_own_data_on_the_lab_s_base_needs_no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data = tmp_path / "mine.jsonl"
    data.write_text("".join(json.dumps({"prompt": f"count {i}:", "completion": f" {i + 1}"}) + "\n" for i in range(12)))
    bench = find_bench(HUB_ID, ll.DataSpec(path=str(data)))
    assert bench.base_folder() == smollm.smollm_folder()
    assert bench.task_type == "CAUSAL_LM"
    assert [len(split) for split in bench.splits()] == [10, 1, 1]
