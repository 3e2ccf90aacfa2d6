"""Any adapter_config.json on a model: what PEFT itself makes of it."""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import PeftConfig, PeftModel, PeftType
from torch import nn

from lora_lab.errors import SpecError, out_of_range
from lora_lab.methods.attach_method import PEFT_ERRORS, attach_peft

_FILE = "adapter_config.json"
# Where a saved adapter came from, which says nothing of what it attaches.
_PROVENANCE = ("base_model_name_or_path", "revision", "auto_mapping", "runtime_config", "inference_mode")


def attach_config(model: nn.Module, config: str | Path | Mapping[str, Any]) -> PeftModel:
    """The model with the adapter that a PEFT config file describes, of any type that PEFT knows, ready to train.

    On the meta device start values that would be read from weights or a tokenizer are left out: they change no shape.

    Args:
        model: a base on any device, `meta` included; it is changed in place.
        config: an adapter_config.json, the folder it lies in, or what it says.

    Raises:
        SpecError: the config cannot be read, is of no type that PEFT knows, or does not suit the base.
    """
    record = dict(config) if isinstance(config, Mapping) else _read(Path(config))
    on_meta = any(parameter.is_meta for parameter in model.parameters())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the file is someone else's: PEFT warns of its age and of the base's name
        return attach_peft(model, _parse({**record, **_plain_start(record)} if on_meta else record))


def _read(path: Path) -> dict[str, Any]:
    path = path / _FILE if path.is_dir() else path
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError) as err:
        raise SpecError(f"{str(path)!r} must be an {_FILE}. Got {type(err).__name__}.") from None
    if not isinstance(record, dict):
        raise SpecError(f"{str(path)!r} must be an {_FILE}. Got a {type(record).__name__}.")
    return record


def _parse(record: Mapping[str, Any]) -> PeftConfig:
    kind = record.get("peft_type")
    known = ", ".join(sorted(member.value for member in PeftType))
    if kind not in known.split(", "):
        raise SpecError(out_of_range("peft_type", _FILE, f"one of {known}", kind))
    try:
        return PeftConfig.from_peft_type(**{key: value for key, value in record.items() if key not in _PROVENANCE})
    except PEFT_ERRORS as err:
        reason = str(err).strip().split("\n", 1)[0].rstrip(".")
        raise SpecError(f"PEFT reads no {kind} config from this {_FILE}: {reason}.") from err


def _plain_start(record: Mapping[str, Any]) -> dict[str, Any]:
    """Start values that need no weights (PiSSA, OLoRA and LoftQ take them apart) and no tokenizer."""
    plain: dict[str, Any] = {}
    if isinstance(record.get("init_lora_weights"), str):
        plain["init_lora_weights"] = True
    if record.get("prompt_tuning_init"):
        plain |= {"prompt_tuning_init": "RANDOM", "prompt_tuning_init_text": None, "tokenizer_name_or_path": None}
    return plain
