"""What the first gradient of a bench's base advises, held against what training found: ΔW, and the targets that scored best."""

import math
from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

from lora_lab.analysis.base_records import WeightGradient
from lora_lab.analysis.configuration_records import Configuration, Ranking
from lora_lab.analysis.gradient_records import GradientAdvice, LearnedBeside, TriedAdvice, TriedTargets, per_parameter
from lora_lab.analysis.weight_gradients import gradient_overlap, rank_advice
from lora_lab.benches import Bench, find_bench
from lora_lab.benches.own_data import resolved
from lora_lab.budget.counts import rank_of, targeted
from lora_lab.errors import SpecError, out_of_range
from lora_lab.geometry import Geometry, Matrix
from lora_lab.specs import FACTORED, DataSpec
from lora_lab.sweeps.configurations import rank_configurations
from lora_lab.sweeps.pivots import at_one_budget
from lora_lab.sweeps.results import results_table, settings_of
from lora_lab.sweeps.run import Run
from lora_lab.training import pick_device, threads_for
from lora_lab.training.base_gradients import base_gradients
from lora_lab.training.begin import base_at_start
from lora_lab.training.begin import batches as batches_of
from lora_lab.training.devices import pinned_threads

_WHOLE = 1024  # up to this min(d_out, d_in) every singular value is found; beyond, a whole SVD takes minutes
_LEADING = 128


def gradient_advice(
    bench: str | Bench,
    *,
    data: DataSpec | None = None,
    batches: int = 8,
    batch_size: int | None = None,
    seed: int = 0,
    r: int = 8,
    share: float = 0.9,
    k: int = 4,
    against: Sequence[Run] = (),
    runs: Iterable[Run] = (),
    device: str | None = None,
) -> GradientAdvice:
    """Where the gradient of the base's own weights points before LoRA starts, and how that compares with what runs found.

    Nothing is trained: one forward and backward a batch, on the first batches that a run of this seed sees.

    Args:
        bench: a bench, or its name.
        data: where the bench is a base of the user's own.
        batches: whose mean the gradient is.
        batch_size: the bench's own if None.
        seed: of the batches, and of the head that is trained beside an adapter.
        r: the rank in question.
        share: of ‖G‖_F² that `rank_for_share` of a matrix keeps.
        k: how many leading directions of gradient and ΔW are compared.
        against: runs whose ΔW is compared with the gradient.
        runs: what the ranking of targets is held against: those that finished on this base and data.
        device: as for `train_events`.

    Raises:
        SpecError: a value out of range, or a run of another bench.
        LabError: base, data or an adapter cannot be had.
    """
    bench = find_bench(bench, data) if isinstance(bench, str) else bench
    batch_size = bench.defaults.batch_size if batch_size is None else batch_size
    _check(batches=batches, batch_size=batch_size, seed=seed, r=r, k=k)
    stranger = next((run for run in against if run not in _on(bench, against)), None)
    if stranger is not None:
        raise SpecError(out_of_range("against", "gradient_advice", f"a run on {bench.name} as it is now", stranger.run_id))
    geometry = bench.geometry()
    gradients = _gradients(bench, batches, batch_size, seed, device)
    leading = _LEADING if max(min(g.shape) for g in gradients.values()) > _WHOLE else None
    matrices = rank_advice(gradients, r=r, share=share, k=leading)
    return GradientAdvice(
        bench=bench.name,
        base_sha256=bench.base_sha256(),
        seed=seed,
        batches=batches,
        batch_size=batch_size,
        untrained_head=bool(bench.head_modules(geometry)),
        r=r,
        share=share,
        matrices=matrices,
        against=tuple(learned_beside(run, gradients, k=k) for run in against),
        tried=tried_advice(matrices, geometry, _on(bench, runs)),
    )


def _check(**ints: int) -> None:
    for name, value in ints.items():
        least = 0 if name == "seed" else 1
        if value < least:
            raise SpecError(out_of_range(name, "gradient_advice", f"an int of at least {least}", value))


def _on(bench: Bench, runs: Iterable[Run]) -> list[Run]:
    """Those of the runs that are of this bench, with the base and the data that it has now."""
    wanted = bench.name, bench.base_sha256(), resolved(bench.data) if bench.data else None
    return [run for run in runs if (run.spec.bench, run.spec.base_sha256, run.spec.data) == wanted]


def _gradients(bench: Bench, batches: int, batch_size: int, seed: int, device: str | None) -> dict[str, Tensor]:
    training = bench.splits().train
    with pinned_threads(threads_for(bench.defaults.threads)):
        model = base_at_start(bench, seed=seed).to(pick_device(device))
        return base_gradients(model, batches_of(training, batch_size, steps=batches, seed=seed))


def learned_beside(run: Run, gradients: Mapping[str, Tensor], *, k: int) -> LearnedBeside:
    """What the gradient knew of each ΔW of a run, in the order of the adapter.

    Raises:
        LabError: the adapter cannot be read.
    """
    adapter = run.adapter()
    known = {name: delta for name, delta in adapter.items() if name in gradients}
    return LearnedBeside(run.run_id, tuple(gradient_overlap(name, gradients[name], delta, k=k) for name, delta in known.items()))


def tried_advice(matrices: Iterable[WeightGradient], geometry: Geometry, runs: Sequence[Run]) -> TriedAdvice | None:
    """Choices of targets that runs tried at one budget, each at its best configuration, beside what the gradient says of them.

    Args:
        matrices: the base's gradients.
        geometry: of the base.
        runs: of one bench and data.
    """
    finished = [run for run in runs if run.metrics["status"] == "finished" and run.spec.tuning.method in FACTORED]
    table = at_one_budget(results_table(finished))
    params = dict(zip(table["run_id"], table["adapter_params"], strict=True))
    ranking = rank_configurations(run for run in finished if run.run_id in params)
    by_name = {one.name: one for one in matrices}
    chosen = _best_of_each(ranking, geometry, known=set(by_name))
    if len(chosen) < 2:
        return None
    choices = tuple(_tried(row, chosen[0], ranking, by_name, geometry) for row in chosen)
    return TriedAdvice(int(params[chosen[0].run_ids[0]]), ranking.metric_name, choices)


def _best_of_each(ranking: Ranking, geometry: Geometry, *, known: set[str]) -> list[Configuration]:
    """The first configuration in the ranking of each choice of matrices; of those alone that are all known."""
    best: dict[frozenset[str], Configuration] = {}
    for row in (one.row for one in ranking.ranked if one.row.mean is not None):
        names = frozenset(name for m in targeted(geometry, row.spec.tuning) for name in _names(m))
        if names <= known:
            best.setdefault(names, row)
    return list(best.values())


def _tried(
    row: Configuration, best: Configuration, ranking: Ranking, gradients: Mapping[str, WeightGradient], geometry: Geometry
) -> TriedTargets:
    tuning, settings = row.spec.tuning, settings_of(row.spec)
    own = [(gradients[name], rank_of(tuning, m.name)) for m in targeted(geometry, tuning) for name in _names(m)]
    pair = ranking.between(row, best) if row is not best else None
    layers = settings["layers_to_transform"]
    assert row.mean is not None
    return TriedTargets(
        targets=settings["target_roles"] + (f" in layers {layers}" if layers else ""),
        r=tuning.r,
        per_parameter=per_parameter(one for one, _ in own),
        in_reach=math.hypot(*(value for one, r in own for value in one.singular_values[:r])),
        mean=row.mean,
        sd=row.sd,
        seeds=len(row.seeds),
        is_told_from_best=None if pair is None or pair.holm is None else pair.is_told,
    )


def _names(matrix: Matrix) -> list[str]:
    """What gradients and ΔW call the matrix, or its experts."""
    return [matrix.name] if matrix.kind != "experts" else [f"{matrix.name}[{i}]" for i in range(matrix.experts)]
