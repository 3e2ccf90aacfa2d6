"""PEFT's own format: a folder with adapter_config.json and adapter_model.safetensors. Read without loading PEFT."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from lora_lab.adapters import factors
from lora_lab.adapters.adapter import Adapter
from lora_lab.adapters.tensors import WEIGHTS, read_tensors
from lora_lab.errors import AdapterError
from lora_lab.lowrank import LowRank
from lora_lab.roles import role_of
from lora_lab.weights import BaseWeights

CONFIG = "adapter_config.json"
_PREFIX = "base_model.model."
_UNREAD = {"LoRA on embeddings": ".lora_embedding_", "biases of LoRA layers": ".lora_B.bias"}
_OWN_KEYS = (".lora_", ".vera_lambda_", ".ia3_l", "base_model.vera_", "prompt_embeddings")
_MOVES_BASE = {"pissa", "olora", "corda", "loftq", "lora_ga"}
_READ_THE_STREAM = {"q", "k", "v", "qkv", "gate", "up", "gate_up"}  # the maps whose input is the hidden state


@dataclass(frozen=True)
class _File:
    """What lies in the folder, and the base where it was given."""

    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    base: BaseWeights | None

    def modules(self, ending: str) -> list[str]:
        """The modules, without PEFT's prefix, that have a tensor of this ending."""
        found = [key.removesuffix(ending).removeprefix(_PREFIX) for key in self.tensors if key.endswith(ending)]
        if not found:
            kind = f"{self.config['peft_type']} factors (keys ending {ending})"
            raise AdapterError(f"{WEIGHTS} must hold {kind}. Got {len(self.tensors)} tensors and none of them.")
        return found

    def tensor(self, module: str, ending: str) -> Tensor:
        """One tensor of a module, finite."""
        key = f"{_PREFIX}{module}{ending}"
        if key not in self.tensors:
            raise AdapterError(f"The factors of {module} must come with {key}. It is missing.")
        if not self.tensors[key].isfinite().all():
            raise AdapterError(f"The factors of {module} must be finite numbers. Got NaN or infinity.")
        return self.tensors[key]

    def shared(self, name: str) -> Tensor:
        """One of VeRA's two projections."""
        if name not in self.tensors:
            raise AdapterError(f"A VeRA adapter must hold its projections (save_projection=True). Got {WEIGHTS} without {name}.")
        return self.tensors[name]

    def number(self, name: str, default: int | None = None) -> float:
        """A number of the config."""
        value = self.config.get(name, default)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise AdapterError(f"The {name} in {CONFIG} must be a number. Got {value!r}.")
        return float(value)


def read_peft(folder: Path, base: BaseWeights | None) -> Adapter:
    """The adapter that PEFT, or this project through it, saved in a folder.

    Raises:
        AdapterError: it is of no method that is known here, it cannot be read, or it cannot be read without the base.
        DataError: the base has no such matrix.
    """
    config = _read_config(folder)
    file = _File(config, read_tensors(folder), base)
    if config["peft_type"] in factors.NO_CHANGE:
        return Adapter("peft", {}, "no matrix is changed", (factors.NO_CHANGE[config["peft_type"]],), config)
    read, rule = _READERS[config["peft_type"]]
    try:
        modules = read(file)
    except (RuntimeError, IndexError) as err:  # torch of shapes that do not go together
        reason = str(err).split("\n", 1)[0].rstrip(".")
        raise AdapterError(f"The tensors in {folder} must fit each other and the base. They do not: {reason}.") from err
    return Adapter("peft", modules, f"{CONFIG}: {rule(config)}", _warnings(file), config)


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG).read_text())
    except (ValueError, OSError) as err:
        raise AdapterError(f"{folder / CONFIG} must be a JSON file. Got {type(err).__name__}.") from None
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind not in (*_READERS, *factors.NO_CHANGE):
        known = ", ".join((*_READERS, *factors.NO_CHANGE))
        raise AdapterError(f"{folder / CONFIG} must have one of the peft_type {known}. Got {kind!r}.")
    r = config.get("init_r" if kind == "ADALORA" else "r")
    if kind in _RANKED and (not isinstance(r, int) or r < 1):
        raise AdapterError(f"{folder / CONFIG} must have a rank r of at least 1. Got {r!r}.")
    for name in ("rank_pattern", "alpha_pattern") if kind == "LORA" else ():
        if not _are_patterns(config.get(name) or {}):
            raise AdapterError(f"The {name} in {CONFIG} must map patterns to numbers above 0. Got {config[name]!r}.")
    return dict(config)


def _read_lora(file: _File) -> dict[str, LowRank]:
    found: dict[str, LowRank] = {}
    for key in file.modules(".lora_A.weight"):
        module, is_parameter = _module_of(key, file)
        found |= _expert_deltas(module, key, file) if is_parameter else {module: _lora_delta(module, file)}
    return found


def _lora_delta(module: str, file: _File) -> LowRank:
    lora_a, lora_b, scaling = _factors(module, module, file)
    r = _r_of(module, file)
    if lora_a.shape[0] != r:
        raise AdapterError(f"{module}.lora_A.weight must have r={r} rows, as {CONFIG} says. Got {tuple(lora_a.shape)}.")
    delta = LowRank(lora_b, lora_a, scaling)
    if file.config.get("use_dora") and file.base is not None:
        return factors.dora(file.base.named(module), delta, file.tensor(module, ".lora_magnitude_vector"))
    return delta


def _expert_deltas(module: str, key: str, file: _File) -> dict[str, LowRank]:
    lora_a, lora_b, scaling = _factors(module, key, file)
    count, rest = divmod(lora_a.shape[0], r := _r_of(module, file))
    if rest or lora_b.shape[1] != lora_a.shape[0]:
        shapes = f"{tuple(lora_a.shape)} and {tuple(lora_b.shape)}"
        raise AdapterError(f"The factors of {module} must have r={r} rows and columns an expert. Got {shapes}.")
    if count == 1:
        return {module: LowRank(lora_b, lora_a, scaling)}
    return {f"{module}[{i}]": delta for i, delta in enumerate(factors.experts(lora_a, lora_b, count=count, scaling=scaling))}


def _factors(module: str, key: str, file: _File) -> tuple[Tensor, Tensor, float]:
    """A, B and the scaling; `key` is what the file calls the module."""
    alpha = _pattern(file.config.get("alpha_pattern"), module, file.number("lora_alpha", 8))
    r = _r_of(module, file)
    scaling = alpha / (r**0.5 if file.config.get("use_rslora") else r)
    return file.tensor(key, ".lora_A.weight"), file.tensor(key, ".lora_B.weight"), scaling


def _r_of(module: str, file: _File) -> int:
    return int(_pattern(file.config.get("rank_pattern"), module, file.config["r"]))


def _module_of(key: str, file: _File) -> tuple[str, bool]:
    """The matrix that a key names, and whether it is a parameter that PEFT wraps (`target_parameters`).

    PEFT writes no parameter's name: wrappers of several parameters of one module lie in each other, the first innermost.
    """
    owner = key.replace(".base_layer", "")
    wrapped = _targeted_parameters(owner, file)
    if not wrapped:
        return key, False
    depth = key.count(".base_layer")
    parameter = wrapped[-1 - depth] if depth < len(wrapped) else wrapped[0]
    return factors.matrix_name(owner, parameter), True


def _targeted_parameters(owner: str, file: _File) -> list[str]:
    """The parameters of a module that the config targets, in the order that the module has them."""
    targets = [target.rpartition(".") for target in file.config.get("target_parameters") or ()]
    names = {name for path, _, name in targets if not path or f".{owner}".endswith(f".{path}")}
    if len(names) < 2:
        return list(names)
    if file.base is not None:
        ordered = [m.name.rpartition(".") for m in file.base.matrices]
        return [name for path, _, name in ordered if path == owner and name in names]
    if names != {"gate_up_proj", "down_proj"}:
        raise AdapterError(f"An adapter of {', '.join(sorted(names))} of {owner} must be read with the base. Got none.")
    return ["gate_up_proj", "down_proj"]  # as every family of transformers has them


def _read_adalora(file: _File) -> dict[str, LowRank]:
    alpha, init_r = file.number("lora_alpha", 8), file.number("init_r")
    endings = (".lora_A", ".lora_B", ".lora_E")
    return {
        module: factors.adalora(*(file.tensor(module, ending) for ending in endings), lora_alpha=alpha, init_r=init_r)
        for module in file.modules(".lora_A")
    }


def _read_vera(file: _File) -> dict[str, LowRank]:
    modules = file.modules(".vera_lambda_b")
    vera_a, vera_b = file.shared("base_model.vera_A"), file.shared("base_model.vera_B")
    _require_widths(modules, file)
    return {
        module: factors.vera(
            vera_a,
            vera_b,
            file.tensor(module, ".vera_lambda_d"),
            file.tensor(module, ".vera_lambda_b"),
            d_in=file.base.find(module).d_in if file.base else vera_a.shape[1],
        )
        for module in modules
    }


def _require_widths(modules: list[str], file: _File) -> None:
    """The file holds projections as wide as the widest matrix, and no matrix's own width."""
    roles = {role_of(module) for module in modules}
    kinds = {module.rpartition(".")[-1] for module in modules}
    if file.base is None and len(kinds) > 1 and not roles <= _READ_THE_STREAM:
        raise AdapterError(f"A VeRA adapter of {', '.join(sorted(kinds))} must be read with the base, for their widths. Got none.")


def _read_ia3(file: _File) -> dict[str, LowRank]:
    modules = file.modules(".ia3_l")
    if file.base is None:
        raise AdapterError("An IA3 adapter must be read with the base, whose weights it scales. Got none.")
    return {module: factors.ia3(file.base.named(module), file.tensor(module, ".ia3_l")) for module in modules}


def _lora_rule(config: Mapping[str, Any]) -> str:
    return "lora_alpha / sqrt(r)" if config.get("use_rslora") else "lora_alpha / r"


_Reader = Callable[[_File], dict[str, LowRank]]
_READERS: dict[str, tuple[_Reader, Callable[[Mapping[str, Any]], str]]] = {
    "LORA": (_read_lora, _lora_rule),
    "ADALORA": (_read_adalora, lambda _: "lora_alpha / init_r"),
    "VERA": (_read_vera, lambda _: "none"),
    "IA3": (_read_ia3, lambda _: "none"),
}
_RANKED = ("LORA", "ADALORA", "VERA")


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


def _warnings(file: _File) -> tuple[str, ...]:
    found = []
    if file.config.get("use_dora") and file.base is None:
        found.append("DoRA: a magnitude changes W by more than B A; the factors here are its direction part only.")
    if str(file.config.get("init_lora_weights")).split("_niter")[0] in _MOVES_BASE:
        init = file.config["init_lora_weights"]
        found.append(f"The initialisation {init} moves the base: B A is not the change against the original W.")
    whole = sorted(
        {key.removeprefix(_PREFIX).rsplit(".", 1)[0] for key in file.tensors if not any(own in key for own in _OWN_KEYS)}
    )
    unread = [what for what, part in _UNREAD.items() if any(part in key for key in file.tensors)]
    if unread:
        found.append(f"Not read: {', '.join(unread)}.")
    if whole:
        found.append(f"Saved whole beside the factors and not part of any spectrum: {', '.join(whole)}.")
    return tuple(found)
