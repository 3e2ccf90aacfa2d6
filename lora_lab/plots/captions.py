"""The sentence under a plot, computed from the numbers in it."""

from collections.abc import Sequence

from lora_lab.analysis.records import Overlap, Spectrum
from lora_lab.units import percent


def spectrum_caption(labelled: Sequence[tuple[str, Spectrum]]) -> str:
    """How many of its directions each ΔW uses."""
    parts = []
    for label, one in labelled:
        if one.rank_for_95 is None or one.stable_rank is None:
            parts.append(f"{label}: ΔW is zero, it has no direction")
        else:
            verb = "keeps" if one.rank_for_95 == 1 else "keep"
            kept = f"{one.rank_for_95} of {one.r} directions {verb} 95 % of ‖ΔW‖²"
            parts.append(f"{label}: {kept} (stable rank {one.stable_rank:.1f}, effective rank {one.effective_rank:.1f})")
    return ". ".join(parts) + "." if parts else ""


def overlap_caption(record: Overlap, *, first: str, second: str) -> str:
    """What φ says at the leading directions, and what it would be by chance."""
    leading = record.leading()
    if leading is None:
        return "One of the two is zero: there is no direction to compare."
    i, between = leading.i, f"the leading directions of {first} and {second}"
    said = f"φ({i}, {i}) = {leading.phi:.2f} where chance gives {leading.chance:.3f} ± {leading.chance_sd:.3f}"
    rest = f" Past i or j = {record.dimension // 2} chance is above one half: those cells tell nothing."
    beyond = rest if record.has_cells_that_tell_nothing else ""
    if not leading.tells:
        return f"{said}: with {i} of {record.dimension} directions on either side an overlap tells nothing."
    if leading.is_above_chance:
        return f"{said}: {between} share {leading.phi / leading.chance:.1f} times as much as chance would give.{beyond}"
    return f"{said}: {between} are no closer than random ones.{beyond}"


def learning_caption(best: float | None, base: float | None, *, ended: bool, base_name: str = "frozen base") -> str:
    """How far the best run is above the frozen base."""
    if best is None or base is None:
        return ""
    verb = "reached" if ended else "has reached"
    return f"The best run {verb} {percent(best)} on the held-out split; the {base_name} has {percent(base)}."
