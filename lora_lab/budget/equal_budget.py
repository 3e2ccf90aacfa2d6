"""Equal budgets: what r the same number of trained parameters buys on other matrices.

Source: Hu et al. 2021 (arXiv 2106.09685), Table 5.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from lora_lab.budget.counts import method_params
from lora_lab.budget.solver import largest, most_r
from lora_lab.errors import SpecError, out_of_range
from lora_lab.geometry import Geometry
from lora_lab.specs import METHODS, MethodSpec


@dataclass(frozen=True, slots=True)
class EqualChoice:
    """What one choice comes to: the method with the r that was found, and how many parameters of the budget that trains."""

    spec: MethodSpec
    params: int
    budget_params: int

    def to_json(self) -> dict[str, Any]:
        """What tells the choice from the others, and its count."""
        spec = self.spec
        layers = None if spec.layers_to_transform is None else list(spec.layers_to_transform)
        chosen = {"method": spec.method, "target_modules": list(spec.targets), "layers_to_transform": layers, "r": spec.r}
        return {**chosen, "trainable_params": self.params, "budget_params": self.budget_params}


def budget_params(geometry: Geometry, budget: int | MethodSpec) -> int:
    """The number of parameters that a budget is: itself, or as many as a method trains; a task head apart."""
    return budget if isinstance(budget, int) else method_params(geometry, budget)


def equal_choice(geometry: Geometry, spec: MethodSpec, budget: int | MethodSpec, *, may_exceed: bool = False) -> EqualChoice:
    """The method with the r that spends a budget best; its own r does not count.

    Raises:
        SpecError: not even r = 1 is within the budget, or the method has no r.
    """
    params = budget_params(geometry, budget)
    r = r_for_params(geometry, spec, params, may_exceed=may_exceed)
    if r is None:
        least = method_params(geometry, replace(spec, r=1))
        what = f"{METHODS[spec.method].label} on {', '.join(spec.targets)}" if spec.targets else METHODS[spec.method].label
        raise SpecError(out_of_range("equal_budget", "SweepSpec", f"at least {least:,}, which {what} trains at r = 1", params))
    found = replace(spec, r=r)
    return EqualChoice(found, method_params(geometry, found), params)


def r_for_params(geometry: Geometry, spec: MethodSpec, params: int, *, may_exceed: bool = False) -> int | None:
    """The r with which a method trains as many parameters as it can of `params`; None where r = 1 trains more.

    Args:
        geometry: of the base.
        spec: the method; its own r does not count.
        params: the budget, a task head apart.
        may_exceed: take the next larger r where that comes nearer, or r = 1 where that is too much already.

    Raises:
        SpecError: the method has no r.
    """

    def count(r: int) -> int:
        return method_params(geometry, replace(spec, r=r))

    most = most_r(geometry, spec, tokens=params)  # a virtual token takes a parameter at least
    if most is None:
        raise SpecError(out_of_range("method", "MethodSpec", "one with an r where a budget is to be spent", spec.method))
    within = largest(most, lambda r: count(r) <= params)
    if not may_exceed:
        return within
    below, above = within or 1, min((within or 0) + 1, most)
    return min((below, above), key=lambda r: abs(count(r) - params))


def ranks_for_params(
    geometry: Geometry, params: int, choices: Iterable[tuple[str, ...]], *, method: str = "lora"
) -> dict[tuple[str, ...], int | None]:
    """For each choice of targets the largest r that trains no more than `params`; None where r = 1 is too much."""
    return {targets: r_for_params(geometry, MethodSpec(method=method, target_modules=targets), params) for targets in choices}
