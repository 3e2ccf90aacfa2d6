"""The figures of each finding: the middle layer as the paper draws it, then every layer and matrix."""

from collections.abc import Iterable

import plotly.graph_objects as go

from lora_lab.plots.overlap_grid import overlap_grid
from lora_lab.plots.section7 import measure_map, phi_panels, projections
from lora_lab.report.records import Evidence, PairMaps
from lora_lab.report.tables import middle_pair
from lora_lab.roles import label_of

_MOST_MULTIPLES = 32  # matrices drawn one by one; of more the map of numbers is enough


def figures_of(key: str, evidence: Evidence, *, multiples: bool = True) -> dict[str, go.Figure]:
    """The figures of a finding by their titles; none where its tables say it all.

    Args:
        key: of the finding.
        evidence: all that was found.
        multiples: also every matrix drawn small.
    """
    if key == "two_ranks":
        start = evidence.two_ranks_at_start
        return _of_pairs(
            evidence, evidence.two_ranks, (evidence.two_ranks, start), (start, "before the first step") if multiples else None
        )
    if key == "two_seeds":
        panels = (evidence.two_seeds, evidence.two_random, evidence.two_seeds_at_start)
        return _of_pairs(evidence, evidence.two_seeds, panels, (evidence.two_random, "two random matrices") if multiples else None)
    if key == "amplification":
        ones = evidence.amplifications[evidence.large]
        rows = [(label_of(name), one.on_delta, one.on_base, one.on_random) for name, one in ones.items()]
        factors = {name: one.factor for name, one in evidence.amplifications[evidence.small].items()}
        return {
            f"Every matrix at r = {evidence.large}": projections(rows),
            f"The amplification factor at r = {evidence.small}": measure_map(factors, title="factor", text="{:.1f}".format),
        }
    return {}


def _of_pairs(
    evidence: Evidence, maps: PairMaps, panels: Iterable[PairMaps], control: tuple[PairMaps, str] | None
) -> dict[str, go.Figure]:
    """The middle layer as the paper draws it, every matrix small beside its control, where one is given, and one number each."""
    shown: dict[str, go.Figure] = {}
    for name in middle_pair(evidence):
        titles = [("before the first step" if one is not maps and "random" not in one.title else one.title, one) for one in panels]
        shown[f"{label_of(name)}: φ(A, A', i, j)"] = phi_panels(
            [(title, one.first[name]) for title, one in titles if name in one.first]
        )
    if control is not None and 0 < len(maps.first) <= _MOST_MULTIPLES and maps.first.keys() <= control[0].first.keys():
        shown["Every layer and matrix"] = overlap_grid(maps.first, control[0].first, control=control[1])
    numbers = {name: maps.above_chance(name) for name in maps.first}
    shown["Mean φ above chance"] = measure_map(numbers, title="mean φ above chance")
    return shown
