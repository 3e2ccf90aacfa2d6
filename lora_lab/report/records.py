"""What the five analyses found, as plain numbers."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean

from lora_lab.analysis.base_records import Amplification
from lora_lab.analysis.method_records import Difference, OverSeeds, Values
from lora_lab.analysis.records import Overlap
from lora_lab.metrics import Scored


@dataclass(frozen=True, slots=True)
class ScoreCell(OverSeeds):
    """One choice of targets at one rank: its score on the test split, one a seed; None where a run diverged or is missing."""

    targets: str
    r: int
    scores: Values

    @property
    def name(self) -> tuple[str, int | None]:
        """What tells it from every other cell."""
        return self.targets, self.r


@dataclass(frozen=True, slots=True)
class ScoreTable(Scored):
    """Cells in the order of a table of the paper, every pair of them judged, and what the frozen base scores."""

    metric_name: str
    cells: tuple[ScoreCell, ...]
    pairs: tuple[Difference, ...]
    base: float | None

    def cell(self, targets: str, r: int) -> ScoreCell | None:
        """That cell; None where it is not there."""
        return next((cell for cell in self.cells if cell.name == (targets, r)), None)

    def best(self) -> ScoreCell | None:
        """The cell of the best mean."""
        known = [(cell.mean, cell) for cell in self.cells if cell.mean is not None]
        return max(known, key=lambda pair: self.metric.sign * pair[0], default=(0.0, None))[1]

    def between(self, first: ScoreCell, second: ScoreCell) -> Difference | None:
        """The judged pair, first less second."""
        for pair in self.pairs:
            if (pair.first, pair.second) == (first.name, second.name):
                return pair
            if (pair.second, pair.first) == (first.name, second.name):
                turned = None if pair.difference is None else -pair.difference
                return Difference(first.name, second.name, turned, pair.half_width, pair.p, pair.holm)
        return None


@dataclass(frozen=True, slots=True)
class PairMaps:
    """φ of A, input side, between two runs, for every matrix that both adapt; several pairs of runs, seed by seed.

    Attributes:
        title: which two.
        maps: of each pair of runs, every matrix's Overlap by name.
    """

    title: str
    maps: tuple[Mapping[str, Overlap], ...]

    @property
    def first(self) -> Mapping[str, Overlap]:
        """The first pair's, which are drawn."""
        return self.maps[0] if self.maps else {}

    def above_chance(self, name: str) -> float | None:
        """Mean φ above chance of a matrix, over the pairs of runs."""
        return _mean(one[name].mean_above_chance for one in self.maps if name in one)

    def at(self, name: str, i: int, j: int) -> float | None:
        """φ(i, j) of a matrix, over the pairs of runs."""
        found = (one[name].phi for one in self.maps if name in one)
        return _mean(phi[i - 1][j - 1] if phi and len(phi) >= i and len(phi[0]) >= j else None for phi in found)


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that the report is of.

    Attributes:
        ranks: Table 6, a cell a choice of targets and rank.
        targets: Table 5; None where it was not run.
        two_ranks: Figure 3, A at the small rank against A at the large one, of one seed.
        two_seeds: Figure 4, A at the large rank of two seeds.
        two_ranks_at_start: the same of the start values: the control of the two figures.
        two_seeds_at_start: likewise.
        two_random: A and A' of independent Gaussian numbers, of the large rank.
        amplifications: Table 7 by rank, every matrix's Amplification by name, of the first seed.
    """

    bench: str
    metric_name: str
    small: int
    large: int
    seeds: tuple[int, ...]
    ranks: ScoreTable
    targets: ScoreTable | None
    two_ranks: PairMaps
    two_seeds: PairMaps
    two_ranks_at_start: PairMaps
    two_seeds_at_start: PairMaps
    two_random: PairMaps
    amplifications: Mapping[int, Mapping[str, Amplification]]

    @property
    def matrices(self) -> tuple[str, ...]:
        """Those of q and v, in the model's order."""
        return tuple(self.two_ranks.first)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
