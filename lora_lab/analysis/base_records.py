"""What analysis says of a ΔW beside its base's W, and of W's gradient: plain numbers, as in `records`."""

from dataclasses import dataclass, replace

from lora_lab.analysis.records import LeadingOverlap, Side

Cells = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class RelativeNorms:
    """How large ΔW is beside W; the shares are None where W = 0."""

    name: str
    frobenius: float
    spectral: float
    base_frobenius: float
    base_spectral: float
    frobenius_share: float | None
    spectral_share: float | None


@dataclass(frozen=True, slots=True)
class Amplification:
    """‖UᵀWVᵀ‖_F with U and V of as many `directions` from ΔW, from W itself and at random: a column of Table 7.

    The projections are None where ΔW = 0, and `factor` also where W has nothing in ΔW's directions.

    Attributes:
        directions: the numerical rank of ΔW.
        on_delta: W projected on the singular subspaces of ΔW.
        on_base: on its own leading ones; `base_residual` says how well they were found, as a share of ‖W‖_2.
        on_random: on random ones, the mean over `draws` pairs; `on_random_sd` their standard deviation, None of one draw.
        on_random_expected: the root mean square over all of them, directions · ‖W‖_F / √(d_out · d_in).
        factor: ‖ΔW‖_F / on_delta, the amplification factor.
    """

    name: str
    directions: int
    frobenius: float
    base_frobenius: float
    on_delta: float | None
    on_base: float | None
    base_residual: float | None
    on_random: float | None
    on_random_sd: float | None
    on_random_expected: float | None
    draws: int
    factor: float | None


@dataclass(frozen=True, slots=True)
class Intruders:
    """Leading left singular vectors of W + ΔW that have no counterpart among those of W.

    Attributes:
        k: how many leading ones of W + ΔW were looked at.
        threshold: below this |cos| with every direction of W, one is an intruder.
        against: how many directions of W they were compared with. Where `is_complete` is false that is not all of them, and
            one whose counterpart lies beyond counts too: `count` is then an upper bound.
        count: how many of the k are intruders.
        cosines: of each of the k, the largest |cos| with a direction of W.
        counterparts: which direction of W that is, the strongest being 1.
        singular_values: of W + ΔW, for each of the k.
        residual: how well these were found: the largest ‖(W + ΔW) v − σ u‖ as a share of ‖W + ΔW‖_2.
    """

    name: str
    k: int
    threshold: float
    against: int
    is_complete: bool
    count: int
    cosines: tuple[float, ...]
    counterparts: tuple[int, ...]
    singular_values: tuple[float, ...]
    residual: float

    def at(self, threshold: float) -> "Intruders":
        """The same directions judged by another threshold."""
        return replace(self, threshold=threshold, count=sum(cosine < threshold for cosine in self.cosines))


@dataclass(frozen=True, slots=True)
class Band:
    """Singular directions `first` to `last` of W on one side, the strongest being 1, and the share of ‖ΔW‖_F² in their span.

    `outside` are the directions of the longer side that W has no singular value for, `rest` those that were not computed.
    `chance` is the share that a ΔW in random directions has there: the band's dimension over d. `share` is None for ΔW = 0.
    """

    side: Side
    name: str
    first: int
    last: int
    share: float | None
    chance: float


@dataclass(frozen=True, slots=True)
class Location:
    """Where ΔW lies in W: bands that make up each side's whole space, the shares of a side adding up to 1."""

    name: str
    bands: tuple[Band, ...]

    def of(self, side: Side) -> tuple[Band, ...]:
        """The bands of one side."""
        return tuple(band for band in self.bands if band.side == side)


@dataclass(frozen=True, slots=True)
class EffectOnBase:
    """What one ΔW does to its W.

    Attributes:
        cosines: |cos| of the i-th left singular direction of W + ΔW with the j-th of W, the leading ones of both.
    """

    amplification: Amplification
    intruders: Intruders
    cosines: tuple[tuple[float, ...], ...]
    location: Location


@dataclass(frozen=True, slots=True)
class MergedMatrix:
    """One W, the `kept` strongest directions of its ΔW, and their sum, as pictures.

    Attributes:
        rank: how many directions ΔW has; 0 where ΔW = 0.
        kept: how many of them are in `delta` and `merged`.
        norm_share: ‖ΔW‖_F of those kept as a share of the whole; None where ΔW = 0.
        block: rows and columns of the matrix that a cell is the mean of; (1, 1) where it is shown entry by entry.
        base: W, row by row.
        delta: the part of ΔW that is kept.
        merged: their sum.
    """

    name: str
    shape: tuple[int, int]
    rank: int
    kept: int
    norm_share: float | None
    block: tuple[int, int]
    base: Cells
    delta: Cells
    merged: Cells

    @property
    def is_averaged(self) -> bool:
        """Whether a cell stands for several entries."""
        return self.block != (1, 1)


@dataclass(frozen=True, slots=True)
class WeightGradient:
    """G = ∂L/∂W of one matrix, (d_out, d_in), and what a low rank can take of it.

    Attributes:
        frobenius: ‖G‖_F, nats per unit of weight.
        per_parameter: ‖G‖_F / √(d_out · d_in), the root mean square of its entries.
        singular_values: the leading ones, all of them where `is_complete`.
        stable_rank: ‖G‖_F² / ‖G‖_2²; None where G = 0.
        share_in_r: share of ‖G‖_F² in the first r directions: what an update of rank r can follow of it at most.
        rank_for_share: the fewest directions that keep `share` of ‖G‖_F²; None where G = 0 or the leading ones keep less.
    """

    name: str
    shape: tuple[int, int]
    frobenius: float
    per_parameter: float
    singular_values: tuple[float, ...]
    is_complete: bool
    stable_rank: float | None
    r: int
    share_in_r: float | None
    share: float
    rank_for_share: int | None


@dataclass(frozen=True, slots=True)
class GradientOverlap:
    """What the first gradient knew of a ΔW: all None where one of the two is 0.

    Attributes:
        input_side: φ of the leading right singular directions of G and of ΔW.
        output_side: φ of the left ones.
        descent_cosine: −⟨G, ΔW⟩ / (‖G‖_F ‖ΔW‖_F): 1 where ΔW is a step straight down the gradient.
    """

    name: str
    input_side: LeadingOverlap | None
    output_side: LeadingOverlap | None
    descent_cosine: float | None
