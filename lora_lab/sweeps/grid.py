"""A grid becomes its runs."""

from itertools import product

from lora_lab.benches import Bench
from lora_lab.geometry import Geometry
from lora_lab.specs import LoraSpec, RunSpec, SweepSpec, resolve_alpha, unique
from lora_lab.training import plan_run


def expand(bench: Bench, grid: SweepSpec, *, geometry: Geometry | None = None) -> tuple[RunSpec, ...]:
    """Every combination once, the seed moving fastest.

    Raises:
        SpecError: a value out of range, or a target that the base does not have; nothing is planned then.
    """
    geometry = geometry or bench.geometry()
    rates = grid.learning_rate or (None,)
    combinations = product(grid.targets, grid.r, grid.lora_alpha, grid.use_rslora, rates, grid.seeds)
    return unique(
        plan_run(
            bench,
            LoraSpec(
                r=r,
                lora_alpha=resolve_alpha(alpha, r),
                lora_dropout=grid.lora_dropout,
                target_modules=targets,
                use_rslora=rslora,
            ),
            geometry=geometry,
            steps=grid.steps,
            batch_size=grid.batch_size,
            learning_rate=rate,
            seed=seed,
        )
        for targets, r, alpha, rslora, rate, seed in combinations
    )
