"""Every cell of the matrix: tried whole, every claim of it, or refused in the committed sentence; nothing is skipped."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lora_lab.adapters import Adapter
from lora_lab.budget import head_params, method_params
from lora_lab.errors import ClaimError, SpecError
from lora_lab.inference import Merge
from lora_lab.live_geometry import read_geometry
from lora_lab.lowrank import LowRank
from lora_lab.methods import attach_method, trainable_params
from lora_lab.methods.tiny import TINY, tiny_model
from lora_lab.specs import METHODS, MethodSpec
from lora_lab.support import CLOSE, INT8_ROUNDING, ROWS, SUPPORT_JSON, SUPPORT_MD, as_json, as_markdown, check_cell, claims, trial

COMMITTED: dict[str, dict[str, str]] = json.loads(SUPPORT_JSON.read_text())
MERGING = [title for title, row in ROWS.items() if METHODS[row.spec.method].has_targets or row.spec.method == "ln_tuning"]
CELLS = [(family, method) for family in TINY for method in METHODS]
TAKEN = [(family, row.spec.method) for family in TINY for title, row in ROWS.items() if not COMMITTED[title][family]]
TAKEN = [cell for cell in CELLS if cell in TAKEN]
HEADS = {
    "bert": ("classifier",),
    "roberta": ("classifier",),
    "deberta-v2": ("classifier",),
    "distilbert": ("pre_classifier", "classifier"),
    "vit": ("classifier",),
}


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The matrix is that of a machine without CUDA, wherever it is tried."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize("title", ROWS)
@pytest.mark.parametrize("family", TINY)
def test_a_cell_passes_whole_or_is_refused_in_the_committed_sentence(family: str, title: str) -> None:
    cell = check_cell(family, ROWS[title])
    assert cell.refusal == COMMITTED[title][family]
    assert (cell.merge_error is not None) == (not cell.refusal and title in MERGING)
    assert (cell.merge_error or 0.0) <= (INT8_ROUNDING if title == "qlora (int8)" else 1e-5)


def test_the_rows_are_every_method_every_start_and_every_format() -> None:
    assert {row.spec.method for row in ROWS.values()} == set(METHODS)
    starts = {row.spec.init_lora_weights for row in ROWS.values()}
    assert starts == {"default", "gaussian", "orthogonal", "pissa", "olora", "eva", "loftq"}
    assert [row.quant for row in ROWS.values() if row.spec.method == "qlora"] == ["nf4", "nf4-dq", "int8"]


# What breaks a claim is found.


def changed_deltas(adapter: Adapter, change: Callable[[LowRank], LowRank]) -> Adapter:
    return Adapter(adapter.format, {name: change(delta) for name, delta in adapter.items()}, adapter.scaling_source)


def breaks(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, wrong: Callable[[Any], Any]) -> None:
    """Have a function of the matrix give something wrong, made from what it gives rightly."""
    right = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *args, **kwargs: wrong(right(*args, **kwargs)))


def twice(delta: LowRank) -> LowRank:
    return LowRank(delta.lora_b, delta.lora_a, 2 * delta.scaling)


def turned(delta: LowRank) -> LowRank:
    return LowRank(delta.lora_a.mT, delta.lora_b.mT, delta.scaling)


def moved(model: nn.Module, part: str) -> nn.Module:
    with torch.no_grad():
        next(p for name, p in model.named_parameters() if part in name).add_(0.01)
    return model


WRONG = {
    "a ΔW of twice the scaling": (trial, "from_model", lambda a: changed_deltas(a, twice), "from the change of its weight"),
    "a ΔW turned round": (trial, "from_model", lambda a: changed_deltas(a, turned), "from the change of its weight"),
    "a ΔW left out": (trial, "from_model", lambda a: Adapter("peft", {}, ""), "has changed, and has no ΔW"),
    "a file of twice the scaling": (claims, "load_adapter", lambda a: changed_deltas(a, twice), "in the file is"),
    "a formula that counts one more": (claims, "method_params", lambda n: n + 1, "the formula counts"),
    "a start that is not 0": (trial, "attach_method", lambda m: moved(m, "lora_B"), "is not 0 at step 0"),
    "a base moved by attaching": (trial, "attach_method", lambda m: moved(m, "base_layer.weight"), "outputs at step 0"),
    "an unloaded model that is not merged": (claims, "unload_merged", lambda m: moved(m, "bias"), "Unloaded, its outputs"),
}


@pytest.mark.parametrize("family", ["bert", "gpt2"])
@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_fails_the_cell(name: str, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, function, wrong, sentence = WRONG[name]
    breaks(monkeypatch, owner, function, wrong)
    with pytest.raises(ClaimError, match=sentence):
        check_cell(family, ROWS["lora"])


@pytest.mark.parametrize("title", ["lora", "dora", "qlora (nf4)"])
def test_a_merge_that_is_not_undone_fails_the_cell(title: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Merge, "undo", lambda _: None)
    with pytest.raises(ClaimError, match="Undoing the merge does not bring back"):
        check_cell("llama", ROWS[title])


@pytest.mark.parametrize("title", ["lora", "dora", "ia3", "ln_tuning"])
def test_a_merge_that_is_off_by_a_thousandth_fails_the_cell(title: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def off(merged: Merge) -> Merge:
        for parameter in merged._merged:
            merged.later(lambda p=parameter, data=parameter.data: setattr(p, "data", data))
            parameter.data = 1.001 * parameter.data
        return merged

    breaks(monkeypatch, claims, "merge", off)
    with pytest.raises(ClaimError, match="Merged outputs are"):
        check_cell("llama", ROWS[title])


@pytest.mark.parametrize("title", ["lora", "vera", "adapter", "bitfit", "qlora (int8)"])
def test_training_that_touches_the_base_fails_the_cell(title: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = claims._two_steps

    def touching(tried: Any) -> set[str]:
        reached = right(tried)
        moved(tried.live, "LayerNorm.weight")
        return reached

    monkeypatch.setattr(claims, "_two_steps", touching)
    with pytest.raises(ClaimError, match=r"Training has changed .*LayerNorm\.weight"):
        check_cell("bert", ROWS[title])


def test_a_parameter_that_no_gradient_reaches_fails_the_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    breaks(monkeypatch, claims, "_two_steps", lambda reached: reached - {max(reached)})
    with pytest.raises(ClaimError, match="No gradient reaches"):
        check_cell("bert", ROWS["lora"])


def test_a_refusal_that_does_not_refuse_fails_the_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise SpecError("It cannot.")

    monkeypatch.setattr(claims, "refuse_unfit", refuse)
    with pytest.raises(ClaimError, match="attaches nevertheless"):
        check_cell("bert", ROWS["lora"])


# What the matrix does not try: other ranks, heads trained beside the method, another precision.


@pytest.mark.parametrize(("family", "method"), TAKEN)
def test_a_cell_that_attaches_is_counted_to_the_parameter_at_another_rank(family: str, method: str) -> None:
    model, spec = tiny_model(family), MethodSpec(method=method, r=3)
    expected = method_params(read_geometry(model), spec)
    assert trainable_params(attach_method(model, spec)) == (expected, 0)


@pytest.mark.parametrize(("family", "method"), [cell for cell in TAKEN if cell[0] in HEADS])
def test_a_head_trained_in_full_adds_its_own_parameters(family: str, method: str) -> None:
    model, spec = tiny_model(family), MethodSpec(method=method, r=3)
    geometry = read_geometry(model)
    total, _ = trainable_params(attach_method(model, spec, head_modules=HEADS[family]))
    assert total == method_params(geometry, spec) + head_params(geometry, HEADS[family])


@pytest.mark.parametrize(("family", "method"), [cell for cell in TAKEN if cell[0] in ("bert", "gpt2", "llama", "qwen3_moe", "t5")])
def test_the_meta_device_attaches_to_a_bf16_base_what_the_cpu_does(family: str, method: str) -> None:
    def attached(device: str) -> dict[str, tuple[torch.Size, torch.dtype, bool]]:
        model = attach_method(tiny_model(family, device=device, dtype=torch.bfloat16), MethodSpec(method=method, r=2))
        return {name: (p.shape, p.dtype, p.requires_grad) for name, p in model.named_parameters()}

    assert attached("meta") == attached("cpu")


@pytest.mark.parametrize("quant", ["nf4", "int8"])
def test_a_base_is_quantized_where_transformers_quantizes_it(quant: str, tmp_path: Path) -> None:
    """T5 keeps its wo in float32, and casts to the dtype of its weight what goes in: packed bytes would not do."""
    from transformers import BitsAndBytesConfig, T5ForConditionalGeneration

    from lora_lab.methods import quantize
    from lora_lab.methods.quantized import bits_of

    plain = tiny_model("t5", device="cpu")
    plain.save_pretrained(tmp_path)
    config = BitsAndBytesConfig(load_in_8bit=quant == "int8", load_in_4bit=quant == "nf4")
    loaded = T5ForConditionalGeneration.from_pretrained(tmp_path, quantization_config=config, device_map="cpu")
    ours, theirs = ({name for name, m in model.named_modules() if bits_of(m)} for model in (quantize(plain, quant), loaded))
    assert ours == theirs
    assert ours


# The committed files.


def test_the_committed_page_is_what_the_committed_table_says() -> None:
    assert SUPPORT_JSON.read_text() == as_json(COMMITTED)
    assert SUPPORT_MD.read_text() == as_markdown(COMMITTED)
    assert {title: list(cells) for title, cells in COMMITTED.items()} == {title: list(TINY) for title in ROWS}


def test_the_bounds_on_the_page_are_those_that_are_held() -> None:
    page = SUPPORT_MD.read_text()
    assert (CLOSE, INT8_ROUNDING) == (1e-5, 0.03)
    assert "to 1e-5 relative in every cell that merges, DoRA's among them" in page
    assert "differ by up to 3 %" in page


def test_every_reason_is_one_sentence_and_stands_on_the_page() -> None:
    page = SUPPORT_MD.read_text()
    for why in {why for cells in COMMITTED.values() for why in cells.values() if why}:
        assert why.endswith(".")
        assert ". " not in why
        assert f". {why}\n" in page


def test_the_page_has_a_row_a_family_and_a_column_a_row_of_the_matrix() -> None:
    table = [line for line in SUPPORT_MD.read_text().splitlines() if line.startswith("|")]
    assert [row.split(" | ")[0].removeprefix("| ") for row in table[2:]] == list(TINY)
    assert {row.count("|") for row in table} == {len(ROWS) + 2}
