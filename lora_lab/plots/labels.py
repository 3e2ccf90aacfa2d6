"""Short names for runs beside each other."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from lora_lab.specs import METHODS, RunSpec

if TYPE_CHECKING:
    from lora_lab.sweeps.subjects import Subject  # its package loads torch, which a label does not need


def labels_of(specs: Sequence[RunSpec]) -> list[str]:
    """One label a run: "r 8 · seed 0", with method, α, targets, rate and the like where the runs differ in them.

    What differs from method to method and is one within each (a learning rate, targets) goes without saying.
    """
    several = len({spec.tuning.method for spec in specs}) > 1
    return [" · ".join([*_named(spec, several), *_r_of(spec), *_differing(spec, specs), f"seed {spec.seed}"]) for spec in specs]


def subject_labels(subjects: "Sequence[Subject]") -> list[str]:
    """What tells adapters apart: runs by what they differ in, others by their place; by number where one is there twice."""
    keys = [subject.key for subject in subjects]
    if len(set(keys)) < len(keys):
        return [f"run {i}" for i in range(1, len(keys) + 1)]
    specs = [subject.run.spec for subject in subjects if subject.run]
    if len(specs) == len(subjects):
        return labels_of(specs)
    return _told_apart([labels_of([subject.run.spec])[0] if subject.run else subject.place for subject in subjects])


def _told_apart(labels: list[str]) -> list[str]:
    """Numbers behind names that are there twice."""
    return [f"{label} ({i})" if labels.count(label) > 1 else label for i, label in enumerate(labels, 1)]


def configuration_labels(specs: Sequence[RunSpec]) -> list[str]:
    """`labels_of` without the seed: empty where there is but one configuration, and nothing to tell it from."""
    alike = [replace(spec, seed=0) for spec in specs]
    return [label.removesuffix("seed 0").removesuffix(" · ") for label in labels_of(alike)]


def row_label(spec: RunSpec, *, alpha_by_rank: bool = False) -> str:
    """What a run is but for its rank and seed: "LoRA · q_proj, v_proj · α 16 · lr 0.005 · 200 steps · batch 32"."""
    plain = _details(RunSpec(bench=spec.bench, base_sha256=spec.base_sha256, data=spec.data))
    always = (_ALPHA, _TARGETS, _RATE, _STEPS, _BATCH)
    told = [text for i, text in enumerate(_details(spec)) if i != _BENCH and text and (i in always or text != plain[i])]
    said = [f"{text} r" if alpha_by_rank and text.startswith("α ") else text for text in told]
    return " · ".join([*_named(spec, True), *said])


def method_label(spec: RunSpec) -> str:
    """The method by name, with start values and quantization where they are not the plain ones: "LoRA · pissa start"."""
    start = [f"{spec.tuning.init_lora_weights} start"] if spec.tuning.init_lora_weights != "default" else []
    base = [f"base in {spec.quant}"] if spec.quant != "none" else []
    return " · ".join([METHODS[spec.tuning.method].label, *start, *base])


def r_meaning(spec: RunSpec) -> str:
    """What r is to a method to which it is no rank: "r is its bottleneck width"; nothing where it is one, or there is none."""
    meaning = METHODS[spec.tuning.method].r_is
    return f"r is its {meaning}" if meaning not in ("", "rank") else ""


def _named(spec: RunSpec, several: bool) -> list[str]:
    return [METHODS[spec.tuning.method].label] if several else []


def _r_of(spec: RunSpec) -> list[str]:
    """The rank, or what r is to the method; nothing where it has none."""
    meaning = METHODS[spec.tuning.method].r_is
    words = {"rank": "r {}", "initial rank": "r {}", "bottleneck width": "width {}", "top layers": "top {}"}
    return [words.get(meaning, "{} tokens").format(spec.tuning.r)] if meaning else []


def _differing(spec: RunSpec, among: Sequence[RunSpec]) -> list[str]:
    """What is not the same in all runs of its method; the bench, and a start or a dropout of choice, where not in all runs."""
    told = [(other.tuning.method, _details(other)) for other in among]
    plain = _details(RunSpec(bench=spec.bench, base_sha256=spec.base_sha256))
    chosen = {i for i in (_DROPOUT, _START) if _details(spec)[i] != plain[i] and len({details[i] for _, details in told}) > 1}
    return [text for i, text in enumerate(_details(spec)) if text and (i in chosen or len(_said_of(i, spec, told)) > 1)]


def _said_of(i: int, spec: RunSpec, told: Sequence[tuple[str, tuple[str, ...]]]) -> set[str]:
    return {details[i] for method, details in told if i == _BENCH or method == spec.tuning.method}


def _details(spec: RunSpec) -> tuple[str, ...]:
    tuning = spec.tuning
    return (
        f"{spec.bench} on {spec.data.path.rsplit('/', 1)[-1]}" if spec.data else spec.bench,
        ", ".join(tuning.target_modules),
        f"α {tuning.lora_alpha:g}" if tuning.has_alpha else "",
        f"dropout {tuning.lora_dropout:g}",
        f"{tuning.init_lora_weights} start",
        f"{tuning.num_virtual_tokens} tokens",
        "whole base" if spec.quant == "none" else f"base in {spec.quant}",
        spec.optimizer,
        f"lr {spec.learning_rate:g}",
        f"{spec.steps} steps",
        f"batch {spec.batch_size}",
    )


_BENCH, _TARGETS, _ALPHA, _DROPOUT, _START, _RATE, _STEPS, _BATCH = 0, 1, 2, 3, 4, 8, 9, 10  # places in `_details`
