"""MethodSpec <-> peft.LoraConfig."""

from collections.abc import Iterable
from typing import Any

from peft import LoraConfig

from lora_lab.errors import SpecError, out_of_range
from lora_lab.specs import ALL_LINEAR, PLAIN_LORA, LoraSpec, MethodSpec

_UNSAID = ("alpha_pattern", "target_parameters", "layer_replication", "exclude_modules", "lora_bias")


def to_peft(spec: MethodSpec, *, task_type: str | None = None, modules_to_save: Iterable[str] = ()) -> LoraConfig:
    """The LoraConfig that says the same. Targets should be resolved (`geometry.resolve_targets`): PEFT knows no roles.

    Raises:
        SpecError: the method is not one of a LoraConfig.
    """
    if spec.method not in (*PLAIN_LORA, "dora"):
        raise SpecError(out_of_range("method", "MethodSpec", "one that a LoraConfig says, such as lora or dora", spec.method))
    layers = spec.layers_to_transform
    return LoraConfig(
        r=spec.r,
        lora_alpha=spec.lora_alpha,
        lora_dropout=spec.lora_dropout,
        target_modules=ALL_LINEAR if spec.targets == (ALL_LINEAR,) else list(spec.targets),
        layers_to_transform=None if layers is None else list(layers),
        rank_pattern=dict(spec.rank_pattern),
        bias=spec.bias,
        use_rslora=spec.method == "rslora",
        use_dora=spec.method == "dora",
        init_lora_weights=True if spec.init_lora_weights == "default" else spec.init_lora_weights,
        task_type=task_type,
        modules_to_save=list(modules_to_save) or None,
    )


def from_peft(config: LoraConfig) -> MethodSpec:
    """The MethodSpec of a LoraConfig.

    Raises:
        SpecError: the config names no targets, or asks for what MethodSpec cannot say.
    """
    plain = LoraConfig()
    unsaid = [name for name in _UNSAID if (getattr(config, name) or None) != (getattr(plain, name) or None)]
    if unsaid:
        raise SpecError(out_of_range(unsaid[0], "LoraConfig", "left unset here", getattr(config, unsaid[0])))
    if not config.target_modules:
        raise SpecError(out_of_range("target_modules", "LoraConfig", "a list of at least one name", config.target_modules))
    return LoraSpec(
        r=config.r,
        lora_alpha=float(config.lora_alpha),
        lora_dropout=config.lora_dropout,
        target_modules=_names(config.target_modules),
        layers_to_transform=_layers(config.layers_to_transform),
        rank_pattern=tuple(config.rank_pattern.items()),
        bias=config.bias,
        use_rslora=config.use_rslora,
        use_dora=config.use_dora,
        init_lora_weights="default" if config.init_lora_weights is True else config.init_lora_weights,
    )


def _names(targets: Any) -> tuple[str, ...]:
    return (targets,) if isinstance(targets, str) else tuple(sorted(targets))


def _layers(layers: Any) -> tuple[int, ...] | None:
    return None if layers is None else (layers,) if isinstance(layers, int) else tuple(layers)
