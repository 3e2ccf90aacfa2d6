"""Short names for runs beside each other: rank and seed, and what else differs among them."""

from collections.abc import Sequence

from lora_lab.specs import RunSpec


def labels_of(specs: Sequence[RunSpec]) -> list[str]:
    """One label a run: "r 8 · seed 0", with α, targets, rate, steps or bench where the runs differ in them."""
    return [" · ".join([f"r {spec.lora.r}", *_differing(spec, specs), f"seed {spec.seed}"]) for spec in specs]


def _differing(spec: RunSpec, among: Sequence[RunSpec]) -> list[str]:
    told = [_details(other) for other in among]
    return [text for i, text in enumerate(_details(spec)) if len({other[i] for other in told}) > 1]


def _details(spec: RunSpec) -> tuple[str, ...]:
    lora = spec.lora
    return (
        spec.bench,
        f"α {lora.lora_alpha:g}",
        "rsLoRA" if lora.use_rslora else "LoRA",
        ", ".join(lora.target_modules),
        f"lr {spec.learning_rate:g}",
        f"{spec.steps} steps",
        f"batch {spec.batch_size}",
    )
