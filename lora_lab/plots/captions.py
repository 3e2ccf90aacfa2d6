"""The sentence under a plot, computed from the numbers in it."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lora_lab.analysis.records import ChainRule, Overlap, Spectrum
from lora_lab.metrics import METRICS, Metric

if TYPE_CHECKING:
    from lora_lab.inference import MergeCost, MergeReport  # its package loads torch, which a sentence does not need


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


def learning_caption(
    best: float | None,
    base: float | None,
    *,
    ended: bool,
    base_name: str = "frozen base",
    best_name: str = "",
    metric: Metric = METRICS["accuracy"],
    echo: float | None = None,
) -> str:
    """How far the best run, by its name where there is one, is above the frozen base, and above repeating what it was shown."""
    if best is None or base is None:
        return ""
    verb = "reached" if ended else "has reached"
    named = f", {best_name}," if best_name else ""
    repeated = "" if echo is None else f", repeating the nearest training example {metric.text(echo)}"
    what = "" if metric.unit == "share" else f" {metric.label}"
    beside = f"the {base_name} has {metric.text(base)}{repeated}"
    return f"The best run{named} {verb} {metric.text(best)}{what} on the validation split; {beside}."


def rule_caption(records: Sequence[ChainRule]) -> str:
    """How far autograd is from the two products, at most."""
    if not records:
        return ""
    most = max(difference for record in records for difference in (record.difference_a, record.difference_b))
    if most == 0:
        return "Autograd and these products are the same to the bit."
    return f"Autograd differs from these products by at most {most:.1e} of the gradient."


_WAYS = {"fp32": "merged in fp32", "bf16": "merged in bf16"}


def merge_way(cost: "MergeCost") -> str:
    """A way to merge in words."""
    return _WAYS.get(cost.name, f"merged back into {cost.name} as PEFT does")


def merge_caption(report: "MergeReport") -> str:
    """How far the logits move, in the way that moves them most and in the one that moves them least."""
    ways = [way for way in report.ways if way.difference is not None]
    least, most = (pick(ways, key=lambda way: way.difference or 0.0) for pick in (min, max))
    one = f"{merge_way(most)[0].upper()}{merge_way(most)[1:]} the logits move by {small_share(most.difference)}"
    other = f"{merge_way(least)} by {small_share(least.difference)}"
    beside = report.unquantized
    base = f" On the base that was not quantized the same adapter answers {small_share(beside.difference)} apart." if beside else ""
    return f"{one}, {other}.{base}"


def small_share(share: float | None) -> str:
    """A share that may be very small, in percent with two digits; nothing where it was not measured.

    >>> small_share(0.0562), small_share(4.2e-7), small_share(0.0), small_share(None)
    ('5.6 %', '0.000042 %', '0 %', '')
    """
    if share is None:
        return ""
    if share == 0:
        return "0 %"
    number = 100 * share
    return f"{number:.{max(0, 1 - math.floor(math.log10(number)))}f} %"
