"""A grid becomes its runs."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import product
from typing import Any

from lora_lab.benches import Bench
from lora_lab.budget.equal_budget import EqualChoice, equal_choice
from lora_lab.geometry import Geometry
from lora_lab.specs import METHODS, MethodSpec, RunSpec, resolve_alpha, unique
from lora_lab.sweep_spec import AXES, SweepSpec
from lora_lab.training import plan_run

Point = Mapping[str, Any]  # a value of every axis
_COUNTED = ("methods", "bias", "targets", "layers_to_transform", "num_virtual_tokens")  # what a count depends on beside r


def expand(bench: Bench, grid: SweepSpec, *, geometry: Geometry | None = None) -> tuple[RunSpec, ...]:
    """Every combination once, the seed moving fastest.

    Raises:
        SpecError: a value out of range, a target that the base does not have, or a choice that no r brings within the budget;
            nothing is planned then.
    """
    geometry = geometry or bench.geometry()
    ranks = _ranks(geometry, grid)
    points = _points(grid, (axis for axis in AXES if axis != "r" or not ranks))
    fitted = (point if not ranks else {**point, "r": ranks[_counted(geometry, point)].spec.r} for point in points)
    return unique(_plan(bench, grid, point, geometry) for point in fitted)


def equal_choices(geometry: Geometry, grid: SweepSpec) -> tuple[EqualChoice, ...]:
    """Every choice of a grid of equal budget with its r and what that trains; none of a grid that has ranks of its own.

    Raises:
        SpecError: a choice that no r brings within the budget.
    """
    return tuple(_ranks(geometry, grid).values())


def _points(grid: SweepSpec, axes: Iterable[str]) -> Iterator[Point]:
    names = tuple(axes)
    for values in product(*map(grid.choices, names)):
        yield dict(zip(names, values, strict=True))


def _plan(bench: Bench, grid: SweepSpec, point: Point, geometry: Geometry) -> RunSpec:
    """The run of a point; what the method has no use for does not tell it from others."""
    fields: dict[str, dict[str, Any]] = {"tuning": {}, "run": {}}
    for name, value in point.items():
        fields[AXES[name].of][AXES[name].fills] = value
    if point["methods"] != "lora+":
        fields["run"]["loraplus_lr_ratio"] = None
    alpha = resolve_alpha(point["lora_alpha"], point["r"])
    tuning = MethodSpec(**{**fields["tuning"], "lora_alpha": alpha})
    tuning = _without_idle_layers(geometry, tuning)
    return plan_run(bench, tuning, geometry=geometry, steps=grid.steps, snapshots=grid.snapshots, **fields["run"])


def _ranks(geometry: Geometry, grid: SweepSpec) -> dict[MethodSpec, EqualChoice]:
    if grid.equal_budget is None:
        return {}
    counted = unique(_counted(geometry, point) for point in _points(grid, _COUNTED))
    return {spec: equal_choice(geometry, spec, grid.equal_budget, may_exceed=grid.may_exceed) for spec in counted}


def _counted(geometry: Geometry, point: Point) -> MethodSpec:
    """What of a point a count depends on, its r apart."""
    spec = MethodSpec(r=1, **{AXES[name].fills: point[name] for name in _COUNTED}).canonical()
    return _without_idle_layers(geometry, spec)


def _without_idle_layers(geometry: Geometry, spec: MethodSpec) -> MethodSpec:
    """Layers that leave no target out are not worth naming: one thing has one spec."""
    layers = spec.layers_to_transform
    if layers is None or not METHODS[spec.method].has_targets:
        return spec
    leaves_none_out = geometry.targeted(spec.targets, layers) == geometry.targeted(spec.targets)
    return replace(spec, layers_to_transform=None) if leaves_none_out else spec
