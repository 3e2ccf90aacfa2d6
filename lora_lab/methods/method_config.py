"""MethodSpec -> the config of whichever PEFT method it names."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from peft import (
    AdaLoraConfig,
    EvaConfig,
    IA3Config,
    LNTuningConfig,
    LoftQConfig,
    LoraConfig,
    PeftConfig,
    PrefixTuningConfig,
    PromptTuningConfig,
    VeraConfig,
)

from lora_lab.errors import SpecError
from lora_lab.geometry import Architecture, Geometry, Matrix, resolve_targets
from lora_lab.specs import MethodSpec

# AdaLoRA plans its cuts over the steps of training, which change no count; a training run sets its own.
_TOTAL_STEPS = 1000


def method_config(
    geometry: Geometry,
    spec: MethodSpec,
    *,
    task_type: str | None = None,
    head_modules: Iterable[str] = (),
    total_steps: int | None = None,
    projection_prng_key: int | None = None,
) -> PeftConfig:
    """The PEFT config that says the same of this base, its targets in the base's own names.

    Raises:
        SpecError: a target names no matrix, or no layer is left.
    """
    config: PeftConfig = _CONFIGS[spec.method](geometry, spec)
    config.task_type = task_type
    if isinstance(config, VeraConfig) and projection_prng_key is not None:
        config.projection_prng_key = projection_prng_key
    if isinstance(config, AdaLoraConfig) and total_steps:
        _plan_cuts(config, total_steps)
    config.modules_to_save = list(head_modules) or None
    return config


def _lora(geometry: Geometry, spec: MethodSpec, **more: Any) -> LoraConfig:
    matrices = geometry.targeted(spec.targets, spec.layers_to_transform)
    experts = [m for m in matrices if m.kind == "experts"]
    return LoraConfig(
        r=spec.r,
        lora_alpha=spec.lora_alpha,
        lora_dropout=spec.lora_dropout,
        target_modules=_endings(geometry, [m for m in matrices if m.kind != "experts"]),
        target_parameters=_endings(geometry, experts) or None,
        rank_pattern=dict(spec.rank_pattern),
        bias=spec.bias,
        fan_in_fan_out=_is_conv1d(matrices),
        **_start(spec),
        **more,
    )


def _start(spec: MethodSpec) -> dict[str, Any]:
    """PEFT's words for the start values; the config of EVA keeps every matrix at r."""
    init = spec.init_lora_weights
    extra = {"eva": {"eva_config": EvaConfig(rho=1.0)}, "loftq": {"loftq_config": LoftQConfig(loftq_bits=4)}}
    return {"init_lora_weights": True if init == "default" else init, **extra.get(init, {})}


def _plan_cuts(config: AdaLoraConfig, total_steps: int) -> None:
    """AdaLoRA trains whole for a tenth of the run, cuts until a half, and trains what is left."""
    config.total_step = max(total_steps, 1)
    config.tinit, config.tfinal, config.deltaT = total_steps // 10, total_steps // 2, max(1, total_steps // 100)


def _rslora(geometry: Geometry, spec: MethodSpec) -> LoraConfig:
    return _lora(geometry, spec, use_rslora=True)


def _dora(geometry: Geometry, spec: MethodSpec) -> LoraConfig:
    return _lora(geometry, spec, use_dora=True)


def _vera(geometry: Geometry, spec: MethodSpec) -> VeraConfig:
    matrices = geometry.targeted(spec.targets, spec.layers_to_transform)
    return VeraConfig(
        r=spec.r,
        vera_dropout=spec.lora_dropout,
        target_modules=_endings(geometry, matrices),
        bias="vera_only" if spec.bias == "lora_only" else spec.bias,
        fan_in_fan_out=_is_conv1d(matrices),
    )


def _adalora(geometry: Geometry, spec: MethodSpec) -> AdaLoraConfig:
    matrices = geometry.targeted(spec.targets, spec.layers_to_transform)
    return AdaLoraConfig(
        init_r=spec.r,
        target_r=max(1, 2 * spec.r // 3),  # the paper starts at 1.5 times the rank that it ends with
        total_step=_TOTAL_STEPS,
        lora_alpha=spec.lora_alpha,
        lora_dropout=spec.lora_dropout,
        target_modules=_endings(geometry, matrices),
        bias=spec.bias,
        fan_in_fan_out=_is_conv1d(matrices),
    )


def _ia3(geometry: Geometry, spec: MethodSpec) -> IA3Config:
    matrices = geometry.targeted(spec.targets, spec.layers_to_transform)
    down = _endings(geometry, [m for m in matrices if m.role == "down"])
    others = _endings(geometry, [m for m in matrices if m.role != "down"])
    return IA3Config(target_modules=others + down, feedforward_modules=down, fan_in_fan_out=_is_conv1d(matrices))


def _ln_tuning(geometry: Geometry, spec: MethodSpec) -> LNTuningConfig:
    layers = spec.layers_to_transform
    return LNTuningConfig(target_modules=[n.name for n in geometry.norms if layers is None or n.layer in layers])


def _prefix(geometry: Geometry, spec: MethodSpec) -> PrefixTuningConfig:
    """PEFT reads the width from a model's config by names that not every family uses, and takes hidden_size for Falcon."""
    shape = architecture_of(geometry)
    return PrefixTuningConfig(
        num_virtual_tokens=spec.r, num_layers=shape.layers, num_attention_heads=shape.kv_heads, token_dim=shape.kv_width
    )


def _preembed(geometry: Geometry, spec: MethodSpec) -> PromptTuningConfig:
    shape = architecture_of(geometry)
    return PromptTuningConfig(
        num_virtual_tokens=spec.r, num_layers=shape.layers, num_attention_heads=shape.heads, token_dim=geometry.token_width
    )


def architecture_of(geometry: Geometry) -> Architecture:
    """How the base is put together, where a method must know.

    Raises:
        SpecError: the base has no config that tells.
    """
    if geometry.architecture is None or not geometry.architecture.hidden:
        raise SpecError("A method counted by width must have a model with a hidden_size. Got one without.")
    return geometry.architecture


def _endings(geometry: Geometry, matrices: Sequence[Matrix]) -> list[str]:
    """The names of these matrices, cut to endings that name no other one."""
    return list(resolve_targets(geometry, [m.name for m in matrices], r=1)) if matrices else []


def _is_conv1d(matrices: Iterable[Matrix]) -> bool:
    return any(m.kind == "conv1d" for m in matrices)


_CONFIGS: dict[str, Callable[[Geometry, MethodSpec], PeftConfig]] = {
    **dict.fromkeys(("lora", "lora+", "qlora"), _lora),
    "rslora": _rslora,
    "dora": _dora,
    "vera": _vera,
    "adalora": _adalora,
    "ia3": _ia3,
    "ln_tuning": _ln_tuning,
    "prefix": _prefix,
    "preembed": _preembed,
}
PEFT_METHODS = tuple(_CONFIGS)
