"""The sentences under what Look shows, computed from the records."""

from collections.abc import Sequence

from lora_lab.analysis.base_records import Amplification, Band, Intruders, Location
from lora_lab.analysis.records import Likeness, NoiseEdges, Side, Spectrum
from lora_lab.budget.paper import PaperAmplification
from lora_lab.plots.angles import SIDES


def noise_caption(label: str, one: Spectrum, noise: NoiseEdges | None) -> str:
    """How many directions stand out of what a product of random factors would have."""
    if noise is None:
        return f"{label}: ΔW is zero, there is nothing to tell from noise."
    above = sum(s > noise.product_upper for s in one.singular_values)
    stand = (
        f"{label}: {above} of {one.numerical_rank} directions {'stands' if above == 1 else 'stand'} above {noise.product_upper:.3g}"
    )
    return f"{stand}, the largest σ of a product of random factors with r = {one.r} and this norm."


def likeness_caption(one: Likeness, *, first: str, second: str) -> str:
    """Whether two ΔW point the same way, and how far their subspaces are from chance."""
    if one.cosine is None or one.procrustes is None:
        return "One of the two is zero: there is nothing to compare."
    sides = []
    for side, closeness in (("in", one.input_side), ("out", one.output_side)):
        if closeness is not None:
            told = f"{closeness.projection:.2f} apart where chance gives {closeness.chance_projection:.2f}"
            sides.append(f"on the {SIDES[side]} the subspaces are {told}")
    cosine = (
        f"The cosine of {first} and {second} is {one.cosine:.2f}, and {one.procrustes:.2f} after the best rotation of their factors"
    )
    return f"{cosine}; {', '.join(sides)} (projection distance)."


def amplification_caption(one: Amplification, paper: PaperAmplification) -> str:
    """The factor, and how much of W lies where ΔW acts, beside chance and the paper."""
    if one.on_delta is None or one.on_random is None:
        return "ΔW is zero: it amplifies nothing."
    if one.factor is None:
        return "W has nothing at all in the directions of ΔW: there is no factor."
    times = f"{one.on_delta / one.on_random:.1f} times what random directions hold of W" if one.on_random else "nothing by chance"
    said = f"ΔW is {one.factor:.3g} times as large as W is in its {one.directions} directions, which hold {times}"
    return f"{said}; in the paper's {paper.matrix} the factor is {paper.factor:.3g} at r = {paper.r}."


def directions_caption(cosines: Sequence[Sequence[float]]) -> str:
    """How many leading directions of W + ΔW still are the direction of W in their place."""
    kept = sum(row[i] == max(row) for i, row in enumerate(cosines) if i < len(row))
    return f"{kept} of the first {len(cosines)} directions of W + ΔW are nearest to the one of W in the same place."


def intruder_caption(one: Intruders) -> str:
    """How many of the leading directions have no counterpart in W."""
    least = min(one.cosines)
    bound = "" if one.is_complete else f" Only the {one.against} leading directions of W were compared: it is an upper bound."
    said = f"{one.count} of the {one.k} leading directions of W + ΔW {'is an intruder' if one.count == 1 else 'are intruders'}"
    where = one.cosines.index(least) + 1
    return f"{said} at |cos| below {one.threshold:g}; direction {where} has the least counterpart, |cos| = {least:.3f}.{bound}"


def location_caption(one: Location) -> str:
    """Where on either side ΔW lies more often than chance."""
    told = []
    sides: tuple[Side, ...] = ("out", "in")
    for side in sides:
        bands = [(band.share / band.chance, band.share, _place_of(band)) for band in one.of(side) if band.share is not None]
        if bands:
            times, share, place = max(bands)
            told.append(f"on the {SIDES[side]} {100 * share:.0f} % lies {place}, {times:.1f} times chance")
    return f"Of ‖ΔW‖², {'; '.join(told)}." if told else "ΔW is zero: it lies nowhere."


def _place_of(band: Band) -> str:
    many = band.last - band.first + 1
    return {
        "top": f"in W's {many} strongest directions",
        "middle": f"in the {many} directions between W's strongest and weakest",
        "tail": f"in W's {many} weakest directions",
        "rest": f"beyond W's {band.first - 1} strongest directions",
        "outside": "where W has no direction",
    }[band.name]
