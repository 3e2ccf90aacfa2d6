"""Short names for runs beside each other."""

from collections.abc import Sequence

from lora_lab.specs import LORA_KIN, METHODS, RunSpec


def labels_of(specs: Sequence[RunSpec]) -> list[str]:
    """One label a run: "r 8 · seed 0", with α, targets, rate and the like where the runs differ in them."""
    return [" · ".join([*_r_of(spec), *_differing(spec, specs), f"seed {spec.seed}"]) for spec in specs]


def row_label(spec: RunSpec, *, alpha_by_rank: bool = False) -> str:
    """What a run is but for its rank and seed: "q_proj, v_proj · α 16 · lr 0.005 · 200 steps · batch 32"."""
    plain = _details(RunSpec(bench=spec.bench, base_sha256=spec.base_sha256, data=spec.data))
    always = (_ALPHA, _TARGETS, _RATE, _STEPS, _BATCH)
    told = [text for i, text in enumerate(_details(spec)) if i != _BENCH and text and (i in always or text != plain[i])]
    return " · ".join(f"{text} r" if alpha_by_rank and text.startswith("α ") else text for text in told)


def _r_of(spec: RunSpec) -> list[str]:
    """The rank, or what r is to the method; nothing where it has none."""
    meaning = METHODS[spec.tuning.method].r_is
    words = {"rank": "r {}", "initial rank": "r {}", "bottleneck width": "width {}", "top layers": "{} layers"}
    return [words.get(meaning, "{} tokens").format(spec.tuning.r)] if meaning else []


def _differing(spec: RunSpec, among: Sequence[RunSpec]) -> list[str]:
    told = [_details(other) for other in among]
    return [text for i, text in enumerate(_details(spec)) if text and len({other[i] for other in told}) > 1]


def _details(spec: RunSpec) -> tuple[str, ...]:
    tuning = spec.tuning
    return (
        f"{spec.bench} on {spec.data.path.rsplit('/', 1)[-1]}" if spec.data else spec.bench,
        METHODS[tuning.method].label,
        ", ".join(tuning.target_modules),
        f"α {tuning.lora_alpha:g}" if tuning.method in LORA_KIN and tuning.method != "vera" else "",
        f"dropout {tuning.lora_dropout:g}",
        f"{tuning.init_lora_weights} start",
        f"{tuning.num_virtual_tokens} tokens",
        "whole base" if spec.quant == "none" else f"base in {spec.quant}",
        spec.optimizer,
        f"lr {spec.learning_rate:g}",
        f"{spec.steps} steps",
        f"batch {spec.batch_size}",
    )


_BENCH, _TARGETS, _ALPHA, _RATE, _STEPS, _BATCH = 0, 2, 3, 9, 10, 11  # places in `_details`
