"""When did ΔW find the directions that it ends with?"""

from collections.abc import Mapping, Sequence

from jaxtyping import Float
from torch import Tensor

from lora_lab.analysis.chance import chance_level
from lora_lab.analysis.records import Drift, DriftPoint, Side
from lora_lab.analysis.subspaces import directions, subspace_similarity
from lora_lab.errors import AdapterError, SpecError, out_of_range
from lora_lab.lowrank import LowRank


def drift(
    snapshots: Sequence[tuple[int, Mapping[str, LowRank]]], *, module: str | None = None, k: int = 4, side: Side = "in"
) -> tuple[Drift, ...]:
    """`drift_of` for every matrix that the last snapshot adapts, or for the one named.

    Args:
        snapshots: (step, ΔW by matrix) in the order of training.
        module: the matrix; all of them if None.
        k: how many leading directions.
        side: `in` for right singular directions, `out` for left ones.

    Raises:
        SpecError: no snapshot, or k below 1.
        AdapterError: no such matrix, or one that a snapshot lacks or has in another shape.
    """
    if not snapshots:
        raise SpecError(out_of_range("snapshots", "drift", "at least one (step, ΔW by matrix)", snapshots))
    names = list(snapshots[-1][1])
    if module is not None and module not in names:
        raise AdapterError(out_of_range("module", "drift", f"one of {', '.join(names)}", module))
    return tuple(drift_of(name, _history(name, snapshots), k=k, side=side) for name in ([module] if module else names))


def _history(name: str, snapshots: Sequence[tuple[int, Mapping[str, LowRank]]]) -> list[tuple[int, LowRank]]:
    lacking = [step for step, modules in snapshots if name not in modules]
    if lacking:
        raise AdapterError(f"{name} must be in all snapshots. It is not in that of step {lacking[0]}.")
    return [(step, modules[name]) for step, modules in snapshots]


def drift_of(name: str, snapshots: Sequence[tuple[int, LowRank]], *, k: int = 4, side: Side = "in") -> Drift:
    """φ of the top k directions of ΔW at every snapshot with those of the last one.

    A snapshot that uses fewer directions than k is compared by those that it has; one of ΔW = 0 has no φ.

    Args:
        name: of the matrix.
        snapshots: (step, ΔW) in the order of training.
        k: how many leading directions, at most the numerical rank of the last ΔW.
        side: `in` for right singular directions, `out` for left ones.

    Raises:
        SpecError: no snapshot, or k below 1.
        AdapterError: the snapshots have different shapes.

    Source: φ as in Hu et al. 2021, section 7.2, equation 4.
    """
    if not snapshots:
        raise SpecError(out_of_range("snapshots", "drift_of", "at least one (step, ΔW)", snapshots))
    if k < 1:
        raise SpecError(out_of_range("k", "drift_of", "an int of at least 1", k))
    if len(shapes := {delta.shape for _, delta in snapshots}) > 1:
        raise AdapterError(f"{name} must have one shape in all snapshots. Got {', '.join(map(str, sorted(shapes)))}.")
    final = directions(snapshots[-1][1], side=side)[:, :k]
    points = tuple(_point(step, directions(delta, side=side)[:, :k], final) for step, delta in snapshots)
    return Drift(name, side, final.shape[1], points)


def _point(step: int, own: Float[Tensor, "d i"], final: Float[Tensor, "d j"]) -> DriftPoint:
    (d, i), j = own.shape, final.shape[1]
    if i == 0 or j == 0:
        return DriftPoint(step, i, None, None)
    return DriftPoint(step, i, min(subspace_similarity(own, final), 1.0), chance_level(i, j, d))
