"""Which runs the five analyses of section 7 need on a bench.

Source: Hu et al. 2021 (arXiv 2106.09685), section 7: Tables 5, 6 and 7, Figures 3 and 4.
"""

from dataclasses import dataclass, replace

from lora_lab.benches import Bench
from lora_lab.geometry import Geometry
from lora_lab.specs import MethodSpec, RunSpec, unique
from lora_lab.sweep_spec import SweepSpec
from lora_lab.sweeps.grid import expand

_RANKS = (1, 2, 4, 8, 64)
_TARGETS = (("q",), ("q", "v"), ("q", "k", "v", "o"))  # of Table 6
_AT_ONE_BUDGET = (("q",), ("k",), ("v",), ("o",), ("q", "k"), ("q", "v"), ("q", "k", "v", "o"))  # of Table 5
_BUDGET = MethodSpec(r=4, target_modules=("q", "v"))
_PAIR = ("q", "v")  # what Figures 3 and 4 are of
_FEW = {"e2e": (1, 8, 64)}  # where a run takes minutes: q and v alone, and nothing at equal budget
_SEEDS = {"digits": (0, 1, 2)}


@dataclass(frozen=True)
class ReproductionPlan:
    """The runs by what they are for; one may be for several.

    Attributes:
        small: the smaller rank of Figure 3 and Table 7.
        large: the larger one, of Figure 4 too.
        by_rank: the runs of Table 6.
        by_targets: those of Table 5, all of one budget; none where the bench is too slow for them.
        at_start: of q and v at both ranks, not trained at all: their A is the control of Figures 3 and 4.
    """

    bench: Bench
    geometry: Geometry
    ranks: tuple[int, ...]
    small: int
    large: int
    seeds: tuple[int, ...]
    by_rank: tuple[RunSpec, ...]
    by_targets: tuple[RunSpec, ...]
    at_start: tuple[RunSpec, ...]

    @property
    def specs(self) -> tuple[RunSpec, ...]:
        """Every run once."""
        return unique([*self.by_rank, *self.by_targets, *self.at_start])

    def pair(self, r: int, *, start: bool = False) -> tuple[RunSpec, ...]:
        """The runs of q and v of one rank, a seed each; before the first step where `start`."""
        runs = self.at_start if start else self.by_rank
        names = {m.name for role in _PAIR for m in self.geometry.matching(role)}
        return tuple(
            spec for spec in runs if spec.tuning.r == r and {m.name for m in self.geometry.targeted(spec.tuning.targets)} == names
        )


def plan_reproduction(
    bench: Bench, *, seeds: tuple[int, ...] | None = None, steps: int | None = None, geometry: Geometry | None = None
) -> ReproductionPlan:
    """The runs on a bench: ranks 1, 2, 4, 8 and 64 (the largest that is not the whole space), seven choices of targets.

    Args:
        bench: where.
        seeds: at least two; the bench's own where None.
        steps: of a run; the bench's own where None.
        geometry: of its base.

    Raises:
        SpecError: the base has no such targets.
    """
    geometry = geometry or bench.geometry()
    few = _FEW.get(bench.name)
    matrices = [m for role in _PAIR for m in geometry.matching(role)]
    whole = min(min(m.d_out, m.d_in) for m in matrices)
    ranks = tuple(min(r, whole // 2) for r in few or _RANKS)
    seeds = seeds if seeds is not None else _SEEDS.get(bench.name, (0, 1))
    grid = SweepSpec(r=ranks, targets=(_PAIR,) if few else _TARGETS, seeds=seeds, steps=steps)
    equal = SweepSpec(targets=_AT_ONE_BUDGET, equal_budget=_BUDGET, may_exceed=True, seeds=seeds, steps=steps)
    small, large = ranks[-2], ranks[-1]
    pair = expand(bench, replace(grid, r=(small, large), targets=(_PAIR,)), geometry=geometry)
    return ReproductionPlan(
        bench=bench,
        geometry=geometry,
        ranks=ranks,
        small=small,
        large=large,
        seeds=seeds,
        by_rank=expand(bench, grid, geometry=geometry),
        by_targets=() if few else expand(bench, equal, geometry=geometry),
        at_start=tuple(replace(spec, steps=0) for spec in pair),
    )
