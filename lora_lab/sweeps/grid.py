"""A grid becomes its runs."""

from itertools import product

from lora_lab.benches import Bench
from lora_lab.geometry import Geometry
from lora_lab.specs import MethodSpec, RunSpec, SweepSpec, resolve_alpha, unique
from lora_lab.training import plan_run


def expand(bench: Bench, grid: SweepSpec, *, geometry: Geometry | None = None) -> tuple[RunSpec, ...]:
    """Every combination once, the seed moving fastest.

    Raises:
        SpecError: a value out of range, or a target that the base does not have; nothing is planned then.
    """
    geometry = geometry or bench.geometry()
    rates = grid.learning_rate or (None,)
    kinds = product(grid.methods, grid.init_lora_weights, grid.targets)
    combinations = product(kinds, grid.r, grid.lora_alpha, rates, grid.seeds)
    return unique(
        plan_run(
            bench,
            MethodSpec(
                method=method,
                r=r,
                lora_alpha=resolve_alpha(alpha, r),
                lora_dropout=grid.lora_dropout,
                target_modules=targets,
                init_lora_weights=init,
                num_virtual_tokens=grid.num_virtual_tokens,
            ),
            geometry=geometry,
            steps=grid.steps,
            batch_size=grid.batch_size,
            learning_rate=rate,
            seed=seed,
            quant=grid.quant,
            optimizer=grid.optimizer,
        )
        for (method, init, targets), r, alpha, rate, seed in combinations
    )
