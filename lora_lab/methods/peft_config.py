"""LoraSpec <-> peft.LoraConfig."""

from collections.abc import Iterable

from peft import LoraConfig

from lora_lab.errors import SpecError, out_of_range
from lora_lab.specs import ALL_LINEAR, LoraSpec

_UNSAID = (
    "use_dora",
    "rank_pattern",
    "alpha_pattern",
    "target_parameters",
    "layers_to_transform",
    "layer_replication",
    "exclude_modules",
    "init_lora_weights",
    "bias",
    "lora_bias",
)


def to_peft(spec: LoraSpec, *, task_type: str | None = None, modules_to_save: Iterable[str] = ()) -> LoraConfig:
    """The LoraConfig that says the same. Targets should be resolved (`geometry.resolve_targets`): PEFT knows no roles."""
    targets = ALL_LINEAR if spec.target_modules == (ALL_LINEAR,) else list(spec.target_modules)
    return LoraConfig(
        r=spec.r,
        lora_alpha=spec.lora_alpha,
        lora_dropout=spec.lora_dropout,
        target_modules=targets,
        use_rslora=spec.use_rslora,
        task_type=task_type,
        modules_to_save=list(modules_to_save) or None,
    )


def from_peft(config: LoraConfig) -> LoraSpec:
    """The LoraSpec of a LoraConfig.

    Raises:
        SpecError: the config names no targets, or asks for what LoraSpec cannot say.
    """
    plain = to_peft(LoraSpec())
    unsaid = [name for name in _UNSAID if (getattr(config, name) or None) != (getattr(plain, name) or None)]
    if unsaid:
        raise SpecError(out_of_range(unsaid[0], "LoraConfig", "left unset here", getattr(config, unsaid[0])))
    targets = config.target_modules
    if not targets:
        raise SpecError(out_of_range("target_modules", "LoraConfig", "a list of at least one name", targets))
    return LoraSpec(
        r=config.r,
        lora_alpha=float(config.lora_alpha),
        lora_dropout=config.lora_dropout,
        target_modules=(targets,) if isinstance(targets, str) else tuple(sorted(targets)),
        use_rslora=config.use_rslora,
    )
