"""One block of a model as SVG: its matrices to scale, B and A beside those that are adapted."""

from collections.abc import Collection
from html import escape

from lora_lab.geometry import Geometry, Matrix
from lora_lab.plots.theme import PALETTE

_MOST_PX, _LEAST_PX, _FOOT_PX = 84.0, 6.0, 108.0
_THINNEST_PX, _THICKEST_PX = 2.5, 14.0


def block_drawing(geometry: Geometry, targets: Collection[str], *, r: int) -> str:
    """The matrices of one block to scale, B and A beside the targeted ones; each has its short name as `data-pick`.

    Args:
        geometry: whose first block it is.
        targets: names of the matrices that are adapted.
        r: how thick A and B are.
    """
    block = geometry.block()
    if not block:
        return '<div class="lab-s">The matrices appear when the base is known.</div>'
    scale = _MOST_PX / max(max(m.d_out, m.d_in) for m in block)
    thickness = max(_THINNEST_PX, r * scale)
    cells, x = [], 14.0
    for m in block:
        w, h = max(m.d_in * scale, _LEAST_PX), max(m.d_out * scale, _LEAST_PX)
        cells.append(_matrix_cell(m, x, w, h, chosen=m.name in targets, thickness=min(thickness, _THICKEST_PX)))
        x += max(w + thickness + 5, 46) + 8
    return f'<svg class="lab-block" viewBox="0 0 {x:.0f} 152" width="{x:.0f}" height="152">{"".join(cells)}</svg>'


def block_note(geometry: Geometry) -> str:
    """How many blocks the drawing stands for."""
    layers = {m.layer for m in geometry.matrices if m.layer is not None}
    return f"one of {len(layers)} blocks, drawn to scale; click to adapt" if layers else ""


def _matrix_cell(m: Matrix, x: float, w: float, h: float, *, chosen: bool, thickness: float) -> str:
    top = _FOOT_PX - h
    factors = ""
    if chosen:
        factors = (
            f'<rect x="{x}" y="{top - thickness - 3}" width="{w}" height="{thickness}" rx="1" fill="{PALETTE["A"]}"/>'
            f'<rect x="{x + w + 3}" y="{top}" width="{thickness}" height="{h}" rx="1" fill="{PALETTE["B"]}"/>'
        )
    middle, label = x + w / 2, escape(m.short_name)
    return (
        f'<g class="lab-matrix{" on" if chosen else ""}" data-pick="{label}" tabindex="0" role="checkbox"'
        f' aria-checked="{str(chosen).lower()}" aria-label="{label}, {m.d_out} by {m.d_in}">'
        f'<rect class="hit" x="{x - 4}" y="0" width="{max(w, 30) + 14}" height="150"/>'
        f'<rect class="w0" x="{x}" y="{top}" width="{w}" height="{h}" rx="2"/>{factors}'
        f'<text x="{middle}" y="125">{label}</text>'
        f'<text class="shape" x="{middle}" y="138">{m.d_out}×</text><text class="shape" x="{middle}" y="148">{m.d_in}</text></g>'
    )
