"""What a reader should know beside a budget's numbers, a sentence each."""

from collections.abc import Iterator

from lora_lab.budget.counts import targeted
from lora_lab.budget.models import Model
from lora_lab.geometry import Geometry
from lora_lab.roles import role_of
from lora_lab.specs import MethodSpec, StepSpec


def notes(model: Model, spec: MethodSpec, step: StepSpec, *, attached: bool = False) -> Iterator[str]:
    """On the model, the targets, the quantization and the method; `attached` where a config file stands for the method."""
    if not model.verified:
        yield f"The shapes of {model.name} are not verified against its published config."
    if step.quant != "none":
        yield from _on_quantization(model.geometry)
    if not attached:
        yield from _on_targets(model.geometry, spec)
        yield from _on_method(spec, step)


def _on_quantization(geometry: Geometry) -> Iterator[str]:
    if any(m.kind == "experts" for m in geometry.matrices):
        yield "bitsandbytes leaves the experts as they are: transformers 5 stores them as one 3-D parameter a layer."
    kept = {m.name.rsplit(".", 1)[-1] for m in geometry.matrices if m.kind == "kept_linear"}
    if kept:
        yield f"transformers quantizes no {' and no '.join(sorted(kept))} of this family."
    if any(m.kind == "own_linear" and m.role != "head" for m in geometry.matrices):
        yield "transformers hands plain linear layers alone to bitsandbytes; this family's own class stays as it is."


def _on_targets(geometry: Geometry, spec: MethodSpec) -> Iterator[str]:
    by_matrix: dict[str, list[str]] = {}
    for target, matrix in geometry.fused_targets(spec.targets).items():
        by_matrix.setdefault(matrix, []).append(target)
    for matrix, named in by_matrix.items():
        holds = "q, k and v" if role_of(matrix) == "qkv" else "gate and up"
        verb = "stand" if len(named) > 1 else "stands"
        yield f"{' and '.join(named)} {verb} for {matrix}, which holds {holds} as one matrix."
    if any(m.kind == "experts" for m in targeted(geometry, spec)):
        yield "PEFT adds ΔW to the experts as a whole: every layer that is adapted holds a second copy of them."


def _on_method(spec: MethodSpec, step: StepSpec) -> Iterator[str]:
    if spec.method in ("adapter", "adapter_pfeiffer"):
        yield "Adapters follow the paper's formula without its LayerNorm term."
    if spec.method == "prelayer":
        yield "PreLayer is counted as the paper defines it; no library attaches it, so there is no trace."
    if spec.virtual_tokens:
        yield f"{spec.virtual_tokens} of {step.seq} positions go to virtual tokens."
