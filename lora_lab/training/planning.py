"""From what a user says to a RunSpec that leaves nothing open."""

from dataclasses import replace
from functools import lru_cache
from typing import Any

from peft import LoraConfig
from torch import nn

from lora_lab.benches import Bench
from lora_lab.benches.own_data import resolved
from lora_lab.errors import SpecError, out_of_range
from lora_lab.geometry import Geometry, resolve_targets
from lora_lab.methods import from_peft, refuse_unfit
from lora_lab.methods.quantized import bitsandbytes
from lora_lab.specs import FACTORED, IN_PLACE, METHODS, DataSpec, MethodSpec, Quant, RunSpec
from lora_lab.training.optimizers import optimizer_name


def plan_run(bench: Bench, tuning: MethodSpec | LoraConfig, *, geometry: Geometry | None = None, **settings: Any) -> RunSpec:
    """A spec with resolved targets, the bench's own defaults where a setting is None, and hashes of base and data.

    Args:
        bench: the base and its task.
        tuning: the method; its targets may be roles. A `peft.LoraConfig` will do.
        geometry: the bench's, where the caller has it already.
        settings: fields of RunSpec such as steps, learning_rate, seed.

    Raises:
        SpecError: a value out of range, a method that the base cannot take, a target that it does not have, or one that is
            trained in full anyway.
    """
    tuning = (tuning if isinstance(tuning, MethodSpec) else from_peft(tuning)).canonical()
    bench.prepare()  # what cannot be fetched is refused here, before anything is written
    geometry = geometry or bench.geometry()
    tuning = replace(tuning, target_modules=_resolved(bench, geometry, tuning))
    refuse_unfit(_on_meta(bench), geometry, tuning)
    given = {name: value for name, value in settings.items() if value is not None}
    defaults = bench.defaults
    steps = given.setdefault("steps", defaults.steps)
    given.setdefault("batch_size", defaults.batch_size)
    given.setdefault("learning_rate", defaults.learning_rate * METHODS[tuning.method].lr_factor)
    if isinstance(steps, int) and steps > 0:
        given.setdefault("warmup_steps", min(10, steps // 10))
        given.setdefault("eval_every_steps", max(1, -(-steps // 4)))
    _refuse_snapshots(tuning, given.get("snapshots", 0))
    return RunSpec(
        bench=bench.name,
        base_sha256=bench.base_sha256(),
        data=_pinned(bench.data),
        tuning=tuning,
        quant=_quant(tuning, given.pop("quant", None)),
        optimizer=optimizer_name(given.pop("optimizer", "AdamW")),
        **given,
    )


def methods_for(bench: Bench, *, geometry: Geometry | None = None) -> dict[str, str]:
    """Every method with the sentence why the bench's base cannot take it, empty where it can.

    Each is asked with its own targets and values: other ones may be refused all the same.
    """
    bench.prepare()
    geometry = geometry or bench.geometry()
    return {method: _refusal(bench, geometry, MethodSpec(method=method)) for method in METHODS}


def _refusal(bench: Bench, geometry: Geometry, tuning: MethodSpec) -> str:
    try:
        refuse_unfit(_on_meta(bench), geometry, replace(tuning, target_modules=_resolved(bench, geometry, tuning)))
        _quant(tuning, None)
    except SpecError as err:
        return str(err)
    return ""


@lru_cache(maxsize=4)
def _on_meta(bench: Bench) -> nn.Module:
    """The bench's model without weights, to ask it what it takes; nothing is attached to this one."""
    model: nn.Module = bench.build(meta=True)
    return model


def _resolved(bench: Bench, geometry: Geometry, tuning: MethodSpec) -> tuple[str, ...]:
    """The targets in the base's own names; VeRA's r is no rank of its matrices' updates alone, and IA3 has none."""
    if not METHODS[tuning.method].has_targets:
        return ()
    targets = resolve_targets(geometry, tuning.targets, r=1 if tuning.method in ("ia3", "vera") else tuning.r)
    heads = [m.name for m in geometry.targeted(targets) if m.role == "head" and bench.trains_head]
    if heads:
        allowed = "without the task head, which is trained in full"
        raise SpecError(out_of_range("target_modules", "MethodSpec", allowed, heads[0]))
    return targets


def _quant(tuning: MethodSpec, quant: Quant | None) -> Quant:
    """QLoRA means NF4 quantized twice where nothing is said; a base whose own weights are trained keeps them whole."""
    quant = quant or ("nf4-dq" if tuning.method == "qlora" else "none")
    if tuning.method == "qlora" and quant == "none":
        raise SpecError(out_of_range("quant", "RunSpec", "int8, nf4 or nf4-dq for QLoRA", quant))
    if quant != "none":
        bitsandbytes()
    if tuning.method in IN_PLACE and quant != "none":
        raise SpecError(out_of_range("quant", "RunSpec", f"none for {METHODS[tuning.method].label}", quant))
    return quant


def _refuse_snapshots(tuning: MethodSpec, snapshots: object) -> None:
    """Where ΔW is not two thin factors a snapshot would be as large as the base; LoftQ's counts from the base before NF4."""
    if snapshots and (tuning.method not in FACTORED or tuning.init_lora_weights == "loftq"):
        what = METHODS[tuning.method].label + (" from loftq" if tuning.method in FACTORED else "")
        raise SpecError(out_of_range("snapshots", "RunSpec", f"0 for {what}, whose ΔW has no small factors to keep", snapshots))


def _pinned(data: DataSpec | None) -> DataSpec | None:
    """With the data's hash; bad data are refused here, before anything is written."""
    return None if data is None else resolved(data)
