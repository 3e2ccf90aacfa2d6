"""From what a user says to a RunSpec that leaves nothing open."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from peft import LoraConfig

from lora_lab.assets import sha256_of
from lora_lab.benches import Bench
from lora_lab.benches.custom import read_examples
from lora_lab.errors import SpecError, out_of_range
from lora_lab.geometry import Geometry, resolve_targets
from lora_lab.methods import from_peft
from lora_lab.specs import DataSpec, LoraSpec, RunSpec


def plan_run(bench: Bench, lora: LoraSpec | LoraConfig, *, geometry: Geometry | None = None, **settings: Any) -> RunSpec:
    """A spec with resolved targets, the bench's own defaults where a setting is None, and hashes of base and data.

    Args:
        bench: the base and its task.
        lora: the adapter; its targets may be roles. A `peft.LoraConfig` will do.
        geometry: the bench's, where the caller has it already.
        settings: fields of RunSpec such as steps, learning_rate, seed.

    Raises:
        SpecError: a value out of range, a target that the base does not have, or one that is trained in full anyway.
    """
    lora = lora if isinstance(lora, LoraSpec) else from_peft(lora)
    bench.prepare()  # what cannot be fetched is refused here, before anything is written
    geometry = geometry or bench.geometry()
    targets = resolve_targets(geometry, lora.target_modules, r=lora.r)
    _refuse_head(bench, geometry, targets)
    given = {name: value for name, value in settings.items() if value is not None}
    defaults = bench.defaults
    steps = given.setdefault("steps", defaults.steps)
    given.setdefault("batch_size", defaults.batch_size)
    given.setdefault("learning_rate", defaults.learning_rate)
    if isinstance(steps, int) and steps > 0:
        given.setdefault("warmup_steps", min(10, steps // 10))
        given.setdefault("eval_every_steps", max(1, -(-steps // 4)))
    return RunSpec(
        bench=bench.name,
        base_sha256=bench.base_sha256(),
        data=_pinned(bench.data),
        lora=replace(lora, target_modules=targets),
        **given,
    )


def _refuse_head(bench: Bench, geometry: Geometry, targets: tuple[str, ...]) -> None:
    heads = [m.name for m in geometry.targeted(targets) if m.role == "head" and bench.trains_head]
    if heads:
        allowed = "without the task head, which is trained in full"
        raise SpecError(out_of_range("target_modules", "LoraSpec", allowed, heads[0]))


def _pinned(data: DataSpec | None) -> DataSpec | None:
    if data is None:
        return None
    read_examples(data)  # refuses a bad file here, before anything is written
    return replace(data, path=str(Path(data.path).resolve()), sha256=sha256_of(Path(data.path)))
