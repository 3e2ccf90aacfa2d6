"""PEFT's own format: a folder with adapter_config.json and adapter_model.safetensors. Read without loading PEFT."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lora_lab.adapters.adapter import Adapter
from lora_lab.assets import HUB_ID, hub_snapshot
from lora_lab.errors import AdapterError
from lora_lab.lowrank import LowRank

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_UNREAD = {"LoRA on embeddings": ".lora_embedding_", "biases of LoRA layers": ".lora_B.bias"}
_A, _B = ".lora_A.weight", ".lora_B.weight"


def load_adapter(source: str | Path) -> Adapter:
    """The adapter in a folder, beside a file of it, or under a Hub id.

    Raises:
        AdapterError: there is nothing there, it is no PEFT LoRA adapter, or it cannot be read.
    """
    folder = _find(source)
    config = _read_config(folder)
    tensors = _read_weights(folder)
    names = [key.removesuffix(_A) for key in tensors if key.endswith(_A)]
    if not names:
        raise AdapterError(f"{folder} must hold LoRA factors (keys ending {_A}). Got {len(tensors)} tensors and none of them.")
    modules = {name.removeprefix(_PREFIX): _low_rank(name, tensors, config) for name in names}
    return Adapter("peft", modules, f"{_CONFIG}: {_rule(config)}", _warnings(config, tensors), config)


def _find(source: str | Path) -> Path:
    path = Path(source)
    if path.is_file():
        path = path.parent
    if (path / _CONFIG).is_file():
        return path
    if path.exists():
        raise AdapterError(f"The adapter must be a folder with {_CONFIG} and {_WEIGHTS}, or a file in one. Got {str(source)!r}.")
    if HUB_ID.fullmatch(str(source)):
        return hub_snapshot(str(source), (_CONFIG, _WEIGHTS))
    raise AdapterError(f"The adapter must be a folder, a file or a Hub id that exists. Got {str(source)!r}.")


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / _CONFIG).read_text())
    except (ValueError, OSError) as err:
        raise AdapterError(f"{folder / _CONFIG} must be a JSON file. Got {type(err).__name__}.") from None
    kind = config.get("peft_type") if isinstance(config, dict) else None
    r = config.get("r") if isinstance(config, dict) else None
    if kind != "LORA" or not isinstance(r, int) or r < 1:
        raise AdapterError(f"{folder / _CONFIG} must have peft_type 'LORA' and a rank r of at least 1. Got {kind!r} and {r!r}.")
    for name in ("rank_pattern", "alpha_pattern"):
        if not _are_patterns(config.get(name) or {}):
            raise AdapterError(f"The {name} in {_CONFIG} must map patterns to numbers above 0. Got {config[name]!r}.")
    return dict(config)


def _read_weights(folder: Path) -> dict[str, Tensor]:
    path = folder / _WEIGHTS
    if not path.is_file():
        raise AdapterError(f"{folder} must hold {_WEIGHTS} beside {_CONFIG}; pickles (.bin) are not opened. It is not there.")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as err:
        raise AdapterError(f"{path} must be a safetensors file. It cannot be read: {err}.") from None


def _low_rank(name: str, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> LowRank:
    if name + _B not in tensors:
        raise AdapterError(f"{name + _A} must come with {name + _B}. It is missing.")
    module = name.removeprefix(_PREFIX)
    lora_a, lora_b = tensors[name + _A], tensors[name + _B]
    r = _pattern(config.get("rank_pattern"), module, config["r"])
    if lora_a.shape[0] != r:
        raise AdapterError(f"{name + _A} must have r={r} rows, as {_CONFIG} says. Got {tuple(lora_a.shape)}.")
    alpha = _pattern(config.get("alpha_pattern"), module, config.get("lora_alpha", 8))
    if not isinstance(alpha, int | float):
        raise AdapterError(f"The lora_alpha in {_CONFIG} must be a number. Got {alpha!r}.")
    if not (lora_a.isfinite().all() and lora_b.isfinite().all()):
        raise AdapterError(f"The factors of {module} must be finite numbers. Got NaN or infinity.")
    return LowRank(lora_b, lora_a, alpha / (r**0.5 if config.get("use_rslora") else r))


def _pattern(patterns: Mapping[str, Any] | None, module: str, default: Any) -> Any:
    """PEFT's rule: the first pattern that is the module's name or, after a dot, the end of it."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default


def _are_patterns(patterns: Any) -> bool:
    try:
        return all(re.compile(pattern) and value > 0 for pattern, value in patterns.items())
    except (AttributeError, TypeError, re.error):
        return False


def _rule(config: Mapping[str, Any]) -> str:
    return "lora_alpha / sqrt(r)" if config.get("use_rslora") else "lora_alpha / r"


def _warnings(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    found = []
    if config.get("use_dora"):
        found.append("DoRA: a magnitude changes W by more than B A; the factors here are its direction part only.")
    if str(config.get("init_lora_weights")).split("_")[0] in {"pissa", "olora", "corda", "loftq", "lora_ga"}:
        found.append(
            f"The initialisation {config['init_lora_weights']} moves the base: B A is not the change against the original W."
        )
    whole = sorted(
        {key.removeprefix(_PREFIX).rsplit(".", 1)[0] for key in tensors if ".lora_" not in key and "lora_magnitude" not in key}
    )
    unread = [what for what, part in _UNREAD.items() if any(part in key for key in tensors)]
    if unread:
        found.append(f"Not read: {', '.join(unread)}.")
    if whole:
        found.append(f"Saved whole beside the factors and not part of any spectrum: {', '.join(whole)}.")
    return tuple(found)
