"""The chain rule of LoRA's factors on a run of the lab: its own first batch, at its start and at its end."""

from functools import lru_cache
from pathlib import Path

from lora_lab.analysis.records import ChainRule
from lora_lab.benches import find_bench
from lora_lab.errors import SpecError
from lora_lab.inference.open_run import open_run
from lora_lab.specs import COMBINED, METHODS, RunSpec
from lora_lab.training import chain_rule, threads_for
from lora_lab.training.begin import batches, begun
from lora_lab.training.devices import pinned_threads


@lru_cache(maxsize=128)
def chain_rule_of(spec: RunSpec, module_name: str, *, adapter_dir: Path | None = None) -> ChainRule:
    """`chain_rule` of one matrix on the run's first batch, on the CPU; a second asking gets the first one's answer.

    Args:
        spec: a planned run.
        module_name: the matrix's module path in the base.
        adapter_dir: what the run saved, to measure it as it stood at the end; before its first step where None.

    Raises:
        SpecError: the method has no factors A and B there, or the base's weights have no gradient.
        LabError: the base cannot be had.
    """
    _refuse_without_rule(spec)
    bench = find_bench(spec.bench, spec.data)
    with pinned_threads(threads_for(bench.defaults.threads)):
        training = bench.splits().train
        model = begun(spec, bench, bench.build(), training) if adapter_dir is None else open_run(spec, adapter_dir)
        first = next(iter(batches(training, spec.batch_size, steps=1, seed=spec.seed)))
        return chain_rule(model, first, module_name)


def _refuse_without_rule(spec: RunSpec) -> None:
    if spec.quant != "none":
        raise SpecError(f"The rule is checked on G = ∂L/∂W, and a weight kept in {spec.quant} has no gradient.")
    if spec.tuning.method in COMBINED:
        raise SpecError(f"{METHODS[spec.tuning.method].label} trains more than A and B: the rule is shown on LoRA alone.")
    if spec.tuning.method in ("adalora", "vera"):
        raise SpecError(f"{METHODS[spec.tuning.method].label} has something between B and A: its gradients follow another rule.")
