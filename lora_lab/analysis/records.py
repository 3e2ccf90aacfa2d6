"""What analysis hands upwards: plain numbers that draw, print and pickle without torch."""

from dataclasses import dataclass
from itertools import chain
from statistics import fmean
from typing import Literal

from lora_lab.analysis.chance import chance_level, chance_sd

Side = Literal["in", "out"]
Of = Literal["delta", "a"]


@dataclass(frozen=True, slots=True)
class Spectrum:
    """What one ΔW is. Its ranks are None where ΔW = 0, which has no direction.

    Attributes:
        frobenius: ‖ΔW‖_F.
        spectral: ‖ΔW‖_2, the largest singular value.
        singular_values: largest first, min(d_out, d_in, r) of them.
        numerical_rank: how many of them stand above the rounding of the stored factors; 0 where ΔW = 0.
        rank_for_90: the fewest directions that keep 90 % of ‖ΔW‖_F²; likewise for 95 and 99 %.
    """

    name: str
    shape: tuple[int, int]
    r: int
    scaling: float
    frobenius: float
    spectral: float
    singular_values: tuple[float, ...]
    numerical_rank: int
    stable_rank: float | None
    effective_rank: float | None
    participation_ratio: float | None
    rank_for_90: int | None
    rank_for_95: int | None
    rank_for_99: int | None


@dataclass(frozen=True, slots=True)
class Overlap:
    """φ(i, j) for i = 1..i_max, j = 1..j_max at `phi[i-1][j-1]`, with the chance level of each cell beside it.

    `phi` is None where one of the two has no direction (ΔW = 0); `dimension` is d of the space that both live in.
    """

    name: str
    of: Of
    side: Side
    dimension: int
    phi: tuple[tuple[float, ...], ...] | None
    chance: tuple[tuple[float, ...], ...] | None

    @property
    def has_cells_that_tell_nothing(self) -> bool:
        """Whether some cells have a chance level above one half: i or j past d / 2."""
        return self.chance is not None and self.chance[-1][-1] > 0.5

    @property
    def mean_above_chance(self) -> float | None:
        """Mean of φ − chance over the cells that can tell something, 0 for independent subspaces; None where no cell can."""
        if self.phi is None or self.chance is None:
            return None
        cells = zip(chain.from_iterable(self.phi), chain.from_iterable(self.chance), strict=True)
        above = [phi - chance for phi, chance in cells if chance <= 0.5]
        return fmean(above) if above else None

    def leading(self, most: int = 4) -> "LeadingOverlap | None":
        """The leading i directions of both, i at most `most`; None where φ is."""
        if self.phi is None:
            return None
        i = min(most, len(self.phi), len(self.phi[0]))
        return LeadingOverlap(i, self.phi[i - 1][i - 1], chance_level(i, i, self.dimension), chance_sd(i, i, self.dimension))


@dataclass(frozen=True, slots=True)
class LeadingOverlap:
    """φ(i, i) with what chance gives: its mean and standard deviation over random subspaces."""

    i: int
    phi: float
    chance: float
    chance_sd: float

    @property
    def tells(self) -> bool:
        """Whether an overlap can say anything here: where chance is above a half, r is near d and it cannot."""
        return self.chance <= 0.5

    @property
    def is_above_chance(self) -> bool:
        """Further above chance than random subspaces get: four standard deviations, as the tail at i = 1 is long."""
        return self.tells and self.phi > self.chance + 4 * self.chance_sd


@dataclass(frozen=True, slots=True)
class Closeness:
    """How near two subspaces of R^d are, of dimensions i and j: 0 where the smaller lies in the larger.

    Attributes:
        projection: the projection distance, at most √min(i, j).
        grassmann: the geodesic distance in radians, at most (π / 2) · √min(i, j).
        chance_projection: root mean square of the projection distance of independent uniform subspaces.
        angles_rad: the min(i, j) principal angles, smallest first.
    """

    i: int
    j: int
    dimension: int
    projection: float
    grassmann: float
    chance_projection: float
    angles_rad: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Likeness:
    """Two ΔW of one matrix beside each other; all None where one of them is 0.

    Attributes:
        cosine: ⟨ΔW, ΔW'⟩ / (‖ΔW‖_F ‖ΔW'‖_F), from −1 to 1.
        procrustes: likeness of the balanced factors after the best rotation of the r dimensions, from 0 to 1.
        input_side: their right singular subspaces in R^d_in.
        output_side: their left singular subspaces in R^d_out.
    """

    name: str
    cosine: float | None
    procrustes: float | None
    input_side: Closeness | None
    output_side: Closeness | None


@dataclass(frozen=True, slots=True)
class DriftPoint:
    """ΔW after `step` optimizer steps: φ of its leading `directions` with the final ones, None where it has none."""

    step: int
    directions: int
    phi: float | None
    chance: float | None


@dataclass(frozen=True, slots=True)
class Drift:
    """When ΔW found the `k` leading directions that it ends with; k = 0 where it ends with none."""

    name: str
    side: Side
    k: int
    points: tuple[DriftPoint, ...]


@dataclass(frozen=True, slots=True)
class NoiseEdges:
    """Where the singular values of a random matrix with the norm of ΔW lie, as its sizes grow.

    Attributes:
        entry_sd: standard deviation of the entries that gives ‖ΔW‖_F: ‖ΔW‖_F / √(d_out · d_in).
        dense_lower: of a full matrix of independent entries, the least singular value.
        dense_upper: and the largest.
        product_lower: of B A with independent entries in both factors, r between them, the least that is not 0.
        product_upper: and the largest.
    """

    entry_sd: float
    dense_lower: float
    dense_upper: float
    product_lower: float
    product_upper: float


@dataclass(frozen=True, slots=True)
class MatrixGradient:
    """‖∂L/∂A‖_F and ‖∂L/∂B‖_F of one adapted matrix, nats per unit of weight; None where that factor has no gradient."""

    a: float | None
    b: float | None


@dataclass(frozen=True, slots=True)
class GradientNorms:
    """Gradients of LoRA's factors by matrix, and their norms over all matrices; None where no factor has a gradient."""

    matrices: dict[str, MatrixGradient]
    grad_norm_a: float | None
    grad_norm_b: float | None


@dataclass(frozen=True, slots=True)
class FirstGradient:
    """One of the first optimizer steps: the loss (nats) and the gradients before the step, nothing clipped."""

    step: int
    loss: float
    norms: GradientNorms

    @property
    def grad_norm_a(self) -> float | None:
        """‖∂L/∂A‖ over all matrices."""
        return self.norms.grad_norm_a

    @property
    def grad_norm_b(self) -> float | None:
        """‖∂L/∂B‖ over all matrices."""
        return self.norms.grad_norm_b


@dataclass(frozen=True, slots=True)
class ChainRule:
    """∂L/∂B = s·G·Aᵀ and ∂L/∂A = s·Bᵀ·G of one matrix, G = ∂L/∂W of shape (d_out, d_in): the rule beside autograd.

    Norms are Frobenius norms; `grad_norm_a` and `grad_norm_b` are autograd's. A difference is ‖autograd - rule‖_F as a share of
    the larger of the two norms, and 0 where both vanish.
    """

    name: str
    d_out: int
    d_in: int
    r: int
    scaling: float
    loss: float
    norm_a: float
    norm_b: float
    grad_norm_w: float
    grad_norm_a: float
    grad_norm_b: float
    difference_a: float
    difference_b: float


@dataclass(frozen=True, slots=True)
class ReachPoint:
    """What LoRA of rank r can do of a known change of a matrix, as shares of what that change does.

    `error` is what training left over at the matrix's output, `best_error` what every matrix of rank r must leave,
    `logits_error` what training left over at the model's output, on examples that it was not fitted to.
    """

    r: int
    params: int
    error: float
    best_error: float
    logits_error: float
    evaluations: int  # of the loss and its gradient


@dataclass(frozen=True, slots=True)
class Reach:
    """A known full-rank change Δ* of one matrix, fitted by s·B·A of growing rank.

    `activations` inputs of the matrix span `activations_rank` of its d_in dimensions: outside of them nothing is fitted.
    `change_share` is ‖Δ*‖_F / ‖W0‖_F, `logits_change` is what Δ* does to the held-out logits, relative to those of the base.
    """

    bench: str
    matrix: str
    shape: tuple[int, int]
    seed: int
    change_share: float
    change_singular_values: tuple[float, ...]
    activations: int
    activations_rank: int
    logits_change: float
    points: tuple[ReachPoint, ...]

    @property
    def max_r(self) -> int:
        """The rank of a full update: min(d_out, d_in)."""
        return min(self.shape)

    @property
    def matrix_params(self) -> int:
        """Parameters of the matrix itself."""
        return self.shape[0] * self.shape[1]

    @property
    def full(self) -> ReachPoint | None:
        """The point at r = min(d_out, d_in), where it was fitted."""
        return next((point for point in self.points if point.r == self.max_r), None)
