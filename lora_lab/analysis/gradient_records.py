"""What the first gradient of a base says of where LoRA should go, and what runs found: plain numbers, as in `records`."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from lora_lab.analysis.base_records import GradientOverlap, WeightGradient
from lora_lab.analysis.records import LeadingOverlap, Side
from lora_lab.metrics import Scored

By = Literal["per_parameter", "in_reach"]
Verdict = Literal["agrees", "open", "differs"]


def per_parameter(matrices: Iterable[WeightGradient]) -> float:
    """√(Σ‖G‖_F² / Σ d_out·d_in): the root mean square over all entries of several gradients, as it is of one."""
    matrices = list(matrices)
    return math.hypot(*(m.frobenius for m in matrices)) / math.sqrt(sum(m.shape[0] * m.shape[1] for m in matrices))


@dataclass(frozen=True, slots=True)
class TriedTargets:
    """A choice of targets at a budget that others share: what the gradient says of its matrices, and what runs scored with it.

    Attributes:
        targets: by role, such as `q,v`.
        r: that the budget buys.
        per_parameter: root mean square over the entries of the gradients of its matrices.
        in_reach: how fast the loss can fall along updates of that rank: the most that −⟨G, ΔW⟩ can be over all of its matrices
            where ‖ΔW‖_F = 1, which is √(Σ‖G cut to rank r‖_F²).
        mean: of the score on the validation split, over the seeds.
        sd: None for one seed.
        is_told_from_best: whether the spread over seeds tells it from the choice with the best mean; None where it is that
            choice, or where there is no spread.
    """

    targets: str
    r: int
    per_parameter: float
    in_reach: float
    mean: float
    sd: float | None
    seeds: int
    is_told_from_best: bool | None


@dataclass(frozen=True, slots=True)
class TriedAdvice(Scored):
    """Two or more choices of targets that cost the same, the best score first: the advice of the gradient beside it."""

    adapter_params: int
    metric_name: str
    choices: tuple[TriedTargets, ...]

    @property
    def best(self) -> TriedTargets:
        """That with the best mean."""
        return self.choices[0]

    def advised(self, by: By) -> TriedTargets:
        """That which the gradient puts first."""
        return max(self.choices, key=lambda one: float(getattr(one, by)))

    def verdict(self, by: By) -> Verdict:
        """Whether the gradient's first is the best; `open` where it is another that the seeds do not tell from the best."""
        advised = self.advised(by)
        if advised is self.best:
            return "agrees"
        return "differs" if advised.is_told_from_best else "open"

    def pairs_alike(self, by: By) -> tuple[int, int]:
        """Of all pairs with two means, how many the gradient orders as the scores do; and how many there are."""
        pairs = [(a, b) for i, a in enumerate(self.choices) for b in self.choices[i + 1 :] if a.mean != b.mean]
        return sum(float(getattr(a, by)) > float(getattr(b, by)) for a, b in pairs), len(pairs)


@dataclass(frozen=True, slots=True)
class LearnedBeside:
    """The ΔW of one run beside the first gradient, matrix by matrix; none where the run changes no matrix of the base."""

    run_id: str
    overlaps: tuple[GradientOverlap, ...]

    def told(self, side: Side) -> tuple[LeadingOverlap, ...]:
        """The overlaps on a side that can tell anything."""
        found = [one.input_side if side == "in" else one.output_side for one in self.overlaps]
        return tuple(leading for leading in found if leading is not None and leading.tells)


@dataclass(frozen=True, slots=True)
class GradientAdvice:
    """The first gradient of a base on a bench, and what it is held against.

    Attributes:
        batches: whose mean it is, the first that a run of this seed and batch size sees.
        untrained_head: the gradient comes through a head that was drawn with the seed and has learned nothing.
        r: the rank in question.
        share: of ‖G‖_F² that `rank_for_share` of a matrix keeps.
        matrices: every one but a head's, the largest gradient per parameter first.
        against: runs whose ΔW was looked at.
        tried: what runs at one budget found; None where there are no two choices of targets to compare.
    """

    bench: str
    base_sha256: str
    seed: int
    batches: int
    batch_size: int
    untrained_head: bool
    r: int
    share: float
    matrices: tuple[WeightGradient, ...]
    against: tuple[LearnedBeside, ...]
    tried: TriedAdvice | None
