"""The tables of Look as HTML: what is looked at in texts, each value escaped."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from lora_lab.analysis.base_records import Amplification, Intruders, RelativeNorms
from lora_lab.analysis.records import Closeness, Likeness, Spectrum
from lora_lab.budget.paper import PaperAmplification
from lora_lab.plots.angles import SIDES
from lora_lab.plots.captions import small_share
from lora_lab.plots.html_parts import folded, table


def short(value: Any) -> str:
    """A number in four digits; nothing where there is none."""
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


SPECTRUM_ROWS = {
    "numerical_rank": "numerical rank",
    "stable_rank": "stable rank",
    "effective_rank": "effective rank",
    "participation_ratio": "participation ratio",
    "rank_for_90": "r for 90 % of ‖ΔW‖²",
    "rank_for_95": "r for 95 %",
    "rank_for_99": "r for 99 %",
    "frobenius": "‖ΔW‖_F",
    "spectral": "‖ΔW‖_2",
}


def measures_table(labelled: Sequence[tuple[str, Spectrum]], norms: Sequence[RelativeNorms | None]) -> str:
    """Every measure of one matrix, a column a subject; beside W where the base is known."""
    columns = [label for label, _ in labelled]
    rows = [["shape, r", *(f"{one.shape[0]} × {one.shape[1]}, {one.r}" for _, one in labelled)]]
    rows += [[title, *(short(getattr(one, name)) for _, one in labelled)] for name, title in SPECTRUM_ROWS.items()]
    if any(norms):
        rows.append(["‖ΔW‖_F / ‖W‖_F", *(small_share(one.frobenius_share) if one else "" for one in norms)])
        rows.append(["‖ΔW‖_2 / ‖W‖_2", *(small_share(one.spectral_share) if one else "" for one in norms)])
    sigmas = "".join(
        f"<p><b>{escape(label)}</b>: {', '.join(f'{s:.4g}' for s in one.singular_values)}</p>" for label, one in labelled
    )
    return table("measures-table", ["", *columns], rows) + folded("all singular values", f'<div class="lab-prose">{sigmas}</div>')


def likeness_table(one: Likeness, controls: Mapping[str, Closeness | None]) -> str:
    """Cosine and Procrustes of the two ΔW, and the distances of their subspaces beside those of random ones."""
    rows = [
        ["cosine of ΔW and ΔW′", short(one.cosine), "0"],
        ["Procrustes similarity of the balanced factors", short(one.procrustes), ""],
    ]
    for side, found in (("in", one.input_side), ("out", one.output_side)):
        random = controls[side]
        if found is not None and random is not None:
            rows.append([f"projection distance, {SIDES[side]}", short(found.projection), short(found.chance_projection)])
            rows.append([f"Grassmann distance, {SIDES[side]} (radians)", short(found.grassmann), short(random.grassmann)])
    return table("likeness-table", ["", "measured", "by chance"], rows)


def amplification_table(one: Amplification, paper: Sequence[PaperAmplification]) -> str:
    """Table 7: ours on top of the paper's."""
    if one.on_delta is None:
        return ""
    sd = "" if one.on_random_sd is None else f" ± {one.on_random_sd:.2g}"
    ours = [
        f"{one.on_delta:.3g}",
        f"{short(one.on_base)}",
        f"{one.on_random:.3g}{sd}",
        f"{one.frobenius:.3g}",
        f"{one.base_frobenius:.3g}",
    ]
    rows = [[f"here, {one.directions} directions", *ours, short(one.factor)]]
    for p in paper:
        printed = (f"{p.on_delta:.2f}", f"{p.on_base:.2f}", f"{p.on_random:.2f}", f"{p.frobenius:.2f}", f"{p.base_frobenius:.2f}")
        rows.append([f"paper, {p.matrix}, r = {p.r}", *printed, short(p.factor)])
    head = ["U and V from", "ΔW", "W", "random", "‖ΔW‖_F", "‖W‖_F", "factor"]
    return table("amplification-table", head, rows)


def intruder_table(one: Intruders) -> str:
    """The leading directions of W + ΔW, strongest first."""
    found = zip(one.singular_values, one.cosines, one.counterparts, strict=True)
    rows = [
        [str(i), short(s), f"{cosine:.3f}", str(j), "yes" if cosine < one.threshold else ""]
        for i, (s, cosine, j) in enumerate(found, 1)
    ]
    head = ["direction", "σ", "largest |cos|", "with W's", "intruder"]
    return folded(f"the {one.k} leading directions of W + ΔW", table("intruder-table", head, rows))
