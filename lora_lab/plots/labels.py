"""Short names for runs beside each other."""

from collections.abc import Sequence

from lora_lab.specs import RunSpec


def labels_of(specs: Sequence[RunSpec]) -> list[str]:
    """One label a run: "r 8 · seed 0", with α, targets, rate and the like where the runs differ in them."""
    return [" · ".join([f"r {spec.lora.r}", *_differing(spec, specs), f"seed {spec.seed}"]) for spec in specs]


def row_label(spec: RunSpec, *, alpha_by_rank: bool = False) -> str:
    """What a run is but for its rank and seed: "q_proj, v_proj · α 16 · lr 0.005 · 200 steps · batch 32"."""
    _bench, alpha, method, targets, dropout, *rest = _details(spec)
    alpha += " r" if alpha_by_rank else ""
    told = [targets, alpha, *([method] if method != "LoRA" else []), *([dropout] if spec.lora.lora_dropout else []), *rest]
    return " · ".join(told)


def _differing(spec: RunSpec, among: Sequence[RunSpec]) -> list[str]:
    told = [_details(other) for other in among]
    return [text for i, text in enumerate(_details(spec)) if len({other[i] for other in told}) > 1]


def _details(spec: RunSpec) -> tuple[str, ...]:
    lora = spec.lora
    return (
        f"{spec.bench} on {spec.data.path.rsplit('/', 1)[-1]}" if spec.data else spec.bench,
        f"α {lora.lora_alpha:g}",
        "rsLoRA" if lora.use_rslora else "LoRA",
        ", ".join(lora.target_modules),
        f"dropout {lora.lora_dropout:g}",
        f"lr {spec.learning_rate:g}",
        f"{spec.steps} steps",
        f"batch {spec.batch_size}",
    )
