"""The first steps of a planned run, with the gradients of A and B before each."""

from functools import lru_cache

from lora_lab.analysis.records import FirstGradient
from lora_lab.benches import find_bench
from lora_lab.errors import SpecError, out_of_range
from lora_lab.specs import RunSpec
from lora_lab.training import first_gradients, threads_for
from lora_lab.training.begin import batches, begun
from lora_lab.training.devices import pinned_threads


@lru_cache(maxsize=64)
def first_gradients_of(spec: RunSpec) -> tuple[FirstGradient, ...]:
    """`first_gradients` of all steps of the run, on its own batches and the CPU; a second asking gets the first one's answer.

    The first is the run's own; later ones go on from full steps, where a run warms up and clips. Nothing is dropped out.

    Args:
        spec: a planned run; its steps are the first steps.

    Raises:
        SpecError: LoRA+, which trains A and B at two rates.
        LabError: the base cannot be had.
    """
    if spec.tuning.method == "lora+":
        raise SpecError(out_of_range("method", "first_gradients_of", "one that trains A and B at one rate", spec.tuning.method))
    bench = find_bench(spec.bench, spec.data)
    with pinned_threads(threads_for(bench.defaults.threads)):
        training = bench.splits().train
        model = begun(spec, bench, bench.build(), training)
        shown = batches(training, spec.batch_size, steps=spec.steps, seed=spec.seed)
        return first_gradients(model, shown, steps=spec.steps, learning_rate=spec.learning_rate, optimizer=spec.optimizer)
