"""Models by name or by config: the exact totals of published shapes, and one sentence for what is no model."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_lab import assets
from lora_lab.budget import find_model, model_names
from lora_lab.budget.build_catalogue import as_text, rebuilt
from lora_lab.budget.models import CATALOGUE
from lora_lab.errors import AssetError, DataError, LabError, SpecError
from lora_lab.roles import role_of

# Counted from published configurations by other programs than ours; a tied head counts once.
TOTAL_PARAMS = {
    "Llama-2-7b-hf": 6_738_415_616,
    "Llama-2-13b-hf": 13_015_864_320,
    "Llama-2-70b-hf": 68_976_648_192,
    "Llama-3-8B": 8_030_261_248,
    "Llama-3-70B": 70_553_706_496,
    "Llama-3.1-8B": 8_030_261_248,
    "Llama-3.1-70B": 70_553_706_496,
    "Llama-3.1-405B": 405_853_388_800,
    "Llama-3.2-1B": 1_235_814_400,
    "Llama-3.2-3B": 3_212_749_824,
    "tiny-llama-1.1b": 1_100_048_384,
    "CodeLlama-34b-hf": 33_743_970_304,
    "SmolLM2-135M": 134_515_008,
    "SmolLM2-360M": 361_821_120,
    "SmolLM2-1.7B": 1_711_376_384,
    "Mistral-7B-v0.1": 7_241_732_096,
    "Mistral-7B-v0.3": 7_248_023_552,
    "Mixtral-8x7B-v0.1": 46_702_792_704,
    "Mixtral-8x22B-v0.1": 140_630_071_296,
    "Qwen2.5-0.5B": 494_032_768,
    "Qwen2.5-1.5B": 1_543_714_304,
    "Qwen2.5-3B": 3_085_938_688,
    "Qwen2.5-7B": 7_615_616_512,
    "Qwen2.5-14B": 14_770_033_664,
    "Qwen2.5-32B": 32_763_876_352,
    "Qwen2.5-72B": 72_706_203_648,
    "Qwen3-0.6B": 596_049_920,
    "Qwen3-1.7B": 1_720_574_976,
    "Qwen3-4B": 4_022_468_096,
    "Qwen3-8B": 8_190_735_360,
    "Qwen3-14B": 14_768_307_200,
    "Qwen3-32B": 32_762_123_264,
    "Qwen3-30B-A3B": 30_532_122_624,
    "Gemma-2b": 2_506_172_416,
    "Gemma-7b": 8_537_680_896,
    "Gemma-2-2b": 2_614_341_888,
    "Gemma-2-9b": 9_241_705_984,
    "Gemma-2-27b": 27_227_128_320,
    "Gemma-3-1b-it (text tower)": 999_885_952,
    "Gemma-3-4b-it (text tower)": 3_880_099_328,
    "Gemma-3-12b-it (text tower)": 11_765_788_416,
    "Gemma-3-27b-it (text tower)": 27_009_002_240,
    "Phi-3-mini-4k-instruct": 3_821_079_552,
    "phi-4": 14_659_507_200,
    "phi-2": 2_779_683_840,
    "phi-1_5": 1_418_270_720,
    "falcon-7b": 6_921_720_704,
    "pythia-1b": 1_011_781_632,
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "roberta-base": 124_645_632,
    "roberta-large": 355_359_744,
    "deberta-v2-xxlarge": 1_564_549_632,
    "bert-base-uncased": 109_482_240,
    "opt-1.3b": 1_315_758_080,
}
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 100,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 40,
    "tie_word_embeddings": True,
}
# embedding and tied head; a layer's q and o, k and v, MLP, two norms; the last norm
LLAMA_PARAMS = 100 * 24 + 2 * (2 * 24 * 24 + 2 * 12 * 24 + 3 * 40 * 24 + 2 * 24) + 24


def llama_params(*, vocab: int, h: int, layers: int, kv: int, mlp: int, tied: bool) -> int:
    """An untied head is a second table."""
    return vocab * h * (1 if tied else 2) + layers * (2 * h * h + 2 * kv * h + 3 * mlp * h + 2 * h) + h


def one_sentence(caught: pytest.ExceptionInfo[LabError]) -> str:
    message = str(caught.value)
    assert "\n" not in message
    assert "Traceback" not in message
    return message


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    return tmp_path


@pytest.mark.parametrize(("name", "params"), TOTAL_PARAMS.items(), ids=TOTAL_PARAMS)
def test_a_model_of_the_catalogue_has_its_published_total(name: str, params: int) -> None:
    assert find_model(name).geometry.total_params == params


def test_gpt3_has_the_total_that_its_shapes_give() -> None:
    d, layers, vocab, positions = 12288, 96, 50257, 2048
    each = 4 * d * d + 8 * d * d + (3 + 1 + 4 + 1) * d + 4 * d  # attention, MLP, their biases, two LayerNorms
    by_hand = (vocab + positions) * d + layers * each + 2 * d
    assert find_model("gpt3-175b").geometry.total_params == by_hand == 174_604_259_328
    assert by_hand + vocab * d == 175_221_817_344  # with a head of its own


def test_llama_65b_has_the_total_that_its_shapes_give() -> None:
    by_hand = llama_params(vocab=32000, h=8192, layers=80, kv=8192, mlp=22016, tied=False)
    assert find_model("llama-65b").geometry.total_params == by_hand == 65_285_660_672


def test_every_reference_model_is_there_and_nothing_is_there_without_a_total() -> None:
    assert set(model_names()) - set(TOTAL_PARAMS) == {"Llama-65B", "gpt3-175b"}
    assert set(TOTAL_PARAMS) <= set(model_names())


@pytest.mark.parametrize("said", ["llama-3.2-3b", "LLAMA-3.2-3B", "meta-llama/Llama-3.2-3B", "someone/llama-3.2-3b"])
def test_a_name_is_found_in_any_case_and_as_the_last_part_of_a_hub_id(said: str) -> None:
    assert find_model(said).name == "Llama-3.2-3B"


@pytest.mark.parametrize("said", ["gemma-3-1b-it", "google/gemma-3-1b-it", "Gemma-3-1b-it (text tower)"])
def test_the_text_tower_need_not_be_said(said: str) -> None:
    assert find_model(said).name == "Gemma-3-1b-it (text tower)"


def test_two_models_never_share_a_name() -> None:
    said = [name.lower().removesuffix(" (text tower)") for name in model_names()]
    assert len(set(said)) == len(said)
    assert all(find_model(name).name == name for name in model_names())


def test_the_parts_of_a_model_add_up_and_lie_in_its_layers() -> None:
    for name in model_names():
        model = find_model(name)
        geometry, architecture = model.geometry, model.geometry.architecture
        assert architecture is not None
        assert geometry.total_params == sum(part.params for part in geometry.parts())
        assert geometry.layers == tuple(range(architecture.layers))
        assert architecture.heads % architecture.kv_heads == 0
        assert model.config["model_type"] == architecture.model_type
        assert model.source


def test_shapes_from_memory_are_marked_unverified() -> None:
    doubtful = {name for name in model_names() if not find_model(name).verified}
    assert {"roberta-base", "roberta-large", "deberta-v2-xxlarge", "gpt3-175b", "Qwen2.5-0.5B"} <= doubtful
    assert not {"Llama-3.2-3B", "gpt2", "Mistral-7B-v0.1", "bert-base-uncased"} & doubtful


@pytest.mark.slow
def test_the_catalogue_is_what_its_configs_build_now() -> None:
    """Every matrix, table, norm and loose parameter of the file is what the model library makes of the config."""
    assert as_text(rebuilt()) == CATALOGUE.read_text()


@pytest.mark.parametrize("said", [lambda folder: folder, lambda folder: folder / "config.json"], ids=["folder", "file"])
def test_a_config_of_ones_own_is_read_from_a_folder_or_a_file(folder: Path, said: Callable[[Path], Path]) -> None:
    model = find_model(str(said(folder)))
    assert model.geometry.total_params == LLAMA_PARAMS
    assert model.geometry.architecture is not None
    assert model.geometry.architecture.kv_width == 12
    assert str(folder) in model.source


def test_a_folder_here_goes_before_a_catalogue_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owned = folder / "someone" / "gpt2"
    owned.mkdir(parents=True)
    shutil.copy(folder / "config.json", owned)
    monkeypatch.chdir(folder)
    assert find_model("someone/gpt2").geometry.total_params == LLAMA_PARAMS


def test_an_unknown_name_lists_what_there_is() -> None:
    with pytest.raises(SpecError) as caught:
        find_model("gpt-5")
    message = one_sentence(caught)
    assert message.endswith("Got 'gpt-5'.")
    assert all(name in message for name in model_names())


BROKEN: dict[str, tuple[str, str]] = {
    "no JSON": ("{", "must be a model's config.json"),
    "a list": ("[]", "must be a model's config.json"),
    "no model_type": ("{}", "model_type"),
    "an unknown model_type": ('{"model_type": "abacus"}', "model_type 'abacus'"),
    "sizes that are words": (json.dumps({**LLAMA, "hidden_size": "wide"}), "model_type 'llama'"),
    "no heads": (json.dumps({**LLAMA, "num_attention_heads": 0}), "model_type 'llama'"),
    "a class that is a number": (json.dumps({**LLAMA, "architectures": [3]}), "model_type 'llama'"),
    "another family's class": (json.dumps({**LLAMA, "architectures": ["BertModel"]}), "model_type 'llama'"),
    "a width below nothing": (json.dumps({**LLAMA, "hidden_size": -4}), "model_type 'llama'"),
}


@pytest.mark.parametrize(("text", "sentence"), BROKEN.values(), ids=BROKEN)
def test_a_broken_config_is_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(DataError) as caught:
        find_model(str(tmp_path))
    assert sentence in one_sentence(caught)


def test_a_folder_without_a_config_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"must be a model's config\.json"):
        find_model(str(tmp_path))


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A Hub that does not answer, and an empty cache of it."""
    monkeypatch.setattr(assets, "hub_reachable", lambda: False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))


@pytest.mark.usefixtures("no_hub")
def test_a_hub_id_is_one_sentence_where_the_hub_does_not_answer() -> None:
    with pytest.raises(AssetError, match="the Hugging Face Hub does not answer") as caught:
        find_model("nobody/nothing-of-the-kind")
    assert "'nobody/nothing-of-the-kind'" in one_sentence(caught)


def test_a_hub_that_says_no_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> str:
        raise ValueError("401\nmany\nlines")

    monkeypatch.setattr(assets, "hub_reachable", lambda: True)
    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(AssetError, match="the Hub does not give it"):
        find_model("nobody/gated")


def test_a_hub_id_gives_its_config_and_no_weights_are_asked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def snapshot(hub_id: str, **options: Any) -> str:
        asked.append(options)
        return str(folder)

    monkeypatch.setattr(assets, "hub_reachable", lambda: True)
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    model = find_model("somebody/small-llama")
    assert model.name == "somebody/small-llama"
    assert model.geometry.total_params == LLAMA_PARAMS
    assert [options["allow_patterns"] for options in asked] == [["config.json"]]


def test_a_catalogue_model_is_found_without_torch(repository: Path) -> None:
    code = (
        "import sys; from lora_lab.budget import find_model, model_names; "
        "assert all(find_model(name).geometry.total_params for name in model_names()); "
        "print(*{'torch', 'transformers', 'peft', 'huggingface_hub', 'gradio'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_every_model_has_one_table_of_token_embeddings() -> None:
    for name in model_names():
        geometry = find_model(name).geometry
        (tokens,) = [table for table in geometry.tables if role_of(table.name) == "embedding"]
        assert geometry.architecture is not None
        assert tokens.rows == geometry.architecture.vocab, name
