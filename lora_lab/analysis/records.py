"""What analysis hands upwards: plain numbers that draw, print and pickle without torch."""

from dataclasses import dataclass
from typing import Literal

from lora_lab.analysis.chance import chance_level, chance_sd

Side = Literal["in", "out"]
Of = Literal["delta", "a"]


@dataclass(frozen=True, slots=True)
class Spectrum:
    """What one ΔW is: `stable_rank`, `effective_rank` and `rank_for_95` are None where ΔW = 0, which has no direction.

    `rank_for_95` is the fewest directions that keep 95 % of ‖ΔW‖_F².
    """

    name: str
    shape: tuple[int, int]
    r: int
    scaling: float
    frobenius: float
    singular_values: tuple[float, ...]
    stable_rank: float | None
    effective_rank: float | None
    rank_for_95: int | None


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
