"""The gradients of LoRA's two factors, step by step, and the rule that they follow."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import plotly.graph_objects as go

from lora_lab.analysis.records import ChainRule
from lora_lab.plots.theme import PALETTE, figure, nothing_yet, seed_dash

_TENTH = 0.1
_SIDES = ("A", "B")
_FEW_STEPS = 10
_AT_THE_FOOT = 0.03  # of the plot's height: where a zero is marked, as a log axis has no place for it


@runtime_checkable
class StepGradients(Protocol):
    """Whatever says how large the two gradients were at an optimizer step; None where one was not measured."""

    @property
    def step(self) -> int: ...
    @property
    def grad_norm_a(self) -> float | None: ...
    @property
    def grad_norm_b(self) -> float | None: ...


@dataclass(frozen=True, slots=True)
class GradientLine:
    """The first steps of one run; `seed` gives its dash. One that is faint stands behind the others, without a legend."""

    label: str
    steps: Sequence[StepGradients]
    seed: int = 0
    faint: bool = False


def gradient_flow(lines: Iterable[GradientLine]) -> go.Figure:
    """‖∂L/∂A‖ and ‖∂L/∂B‖ of each run by optimizer step on a log scale.

    A zero has no place on it: it is a gap, and a mark at the foot of the plot. What was not measured is a gap alone.
    """
    lines = [line for line in lines if any(_norm(step, side) is not None for step in line.steps for side in _SIDES)]
    fig = figure(x="optimizer step", y="‖gradient‖_F (nats per unit of weight)")
    if not lines:
        return nothing_yet(fig, "No gradient of A or B was measured.")
    for line in lines:
        for side in _SIDES:
            _curve(fig, line, side)
    for side in _SIDES:
        _zeros(fig, lines, side)
    if max(step.step for line in lines for step in line.steps) <= _FEW_STEPS:
        fig.update_xaxes(dtick=1)  # there is no half a step
    fig.update_layout(yaxis2={"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True})
    return fig.update_yaxes(type="log", exponentformat="power", selector={"overlaying": None})


def _norm(step: StepGradients, side: str) -> float | None:
    return step.grad_norm_a if side == "A" else step.grad_norm_b


def _curve(fig: go.Figure, line: GradientLine, side: str) -> None:
    norms = [_norm(step, side) for step in line.steps]
    if any(norms):
        fig.add_scatter(
            x=[step.step for step in line.steps],
            y=[norm or None for norm in norms],
            name=f"‖∂L/∂{side}‖ · {line.label}",
            mode="lines" if line.faint else "lines+markers",
            marker={"size": 5},
            line={"color": PALETTE[side], "dash": seed_dash(line.seed), "width": 1 if line.faint else 1.8},
            opacity=0.3 if line.faint else 1,
            showlegend=not line.faint,
            hovertemplate=f"{line.label}<br>step %{{x}}: ‖∂L/∂{side}‖ = %{{y:.3g}}<extra></extra>",
        )


def _zeros(fig: go.Figure, lines: list[GradientLine], side: str) -> None:
    """One mark a step and factor, with the runs that it stands for."""
    found = [(step.step, line.label) for line in lines for step in line.steps if _norm(step, side) == 0]
    labels = {at: ", ".join(label for step, label in found if step == at) for at, _ in sorted(found)}
    if labels:
        fig.add_scatter(
            x=list(labels),
            y=[_AT_THE_FOOT] * len(labels),
            yaxis="y2",
            name=f"∂L/∂{side} = 0",
            mode="markers",
            marker={"symbol": "triangle-down", "size": 10, "color": PALETTE[side]},
            customdata=list(labels.values()),
            hovertemplate=f"%{{customdata}}<br>step %{{x}}: ∂L/∂{side} is exactly 0<extra></extra>",
        )


def gradient_caption(lines: Iterable[GradientLine]) -> str:
    """What the two gradients are at the first step, and when that of A catches up; a label before it where runs are several."""
    lines = list(lines)
    told = [(line.label, _told(line.steps)) for line in lines]
    parts = [f"{label}: {text}" if len(lines) > 1 else text[0].upper() + text[1:] for label, text in told if text]
    return ". ".join(parts) + "." if parts else ""


def _told(steps: Sequence[StepGradients]) -> str:
    measured = [(s.step, s.grad_norm_a, s.grad_norm_b) for s in steps if s.grad_norm_a is not None and s.grad_norm_b is not None]
    if not measured:
        return ""
    step, a, b = measured[0]
    if a == b == 0:
        return f"at step {step} ∂L/∂A and ∂L/∂B are both exactly 0"
    if a > 0:  # only a B that is not 0 lets it through
        return f"at step {step} ‖∂L/∂A‖ is {a:.3g} and ‖∂L/∂B‖ {b:.3g}: B is not 0 there"
    start = f"at step {step} ∂L/∂A = s·Bᵀ·G is exactly 0, because B = 0, and ‖∂L/∂B‖ is {b:.3g}"
    return f"{start}; {_catching_up(measured)}"


def _catching_up(measured: list[tuple[int, float, float]]) -> str:
    """When ‖∂L/∂A‖ first is a tenth of ‖∂L/∂B‖ at the same step, and when as large."""
    tenth = _first(measured, lambda a, b: 0 < b and a >= _TENTH * b)
    equal = _first(measured, lambda a, b: 0 < b <= a)
    last = measured[-1][0]
    if tenth is None:
        return f"up to step {last} ‖∂L/∂A‖ stays below a tenth of ‖∂L/∂B‖"
    if equal is None:
        return f"‖∂L/∂A‖ first is a tenth of ‖∂L/∂B‖ at step {tenth}, and stays below it up to step {last}"
    if equal == tenth:
        return f"‖∂L/∂A‖ first is a tenth of ‖∂L/∂B‖ at step {tenth}, and as large as it at the same step"
    return f"‖∂L/∂A‖ first is a tenth of ‖∂L/∂B‖ at step {tenth}, and as large as it at step {equal}"


def _first(measured: list[tuple[int, float, float]], holds: Callable[[float, float], bool]) -> int | None:
    return next((step for step, a, b in measured if holds(a, b)), None)


def chain_rule_caption(record: ChainRule) -> str:
    """Both products with their shapes, and how far autograd is from them."""
    d_out, d_in, r = record.d_out, record.d_in, record.r
    of_b = f"∂L/∂B ({d_out} × {r}) = s · G ({d_out} × {d_in}) · Aᵀ ({d_in} × {r})"
    of_a = f"∂L/∂A ({r} × {d_in}) = s · Bᵀ ({r} × {d_out}) · G ({d_out} × {d_in})"
    told_b = _compared(record.grad_norm_b, record.difference_b, is_zero=record.norm_a == 0, other="A")
    told_a = _compared(record.grad_norm_a, record.difference_a, is_zero=record.norm_b == 0, other="B")
    return f"{of_b}: {told_b}. {of_a}: {told_a}."


def _compared(norm: float, difference: float, *, is_zero: bool, other: str) -> str:
    if norm == 0 and difference == 0:
        return "both sides are exactly 0" + (f", because {other} = 0" if is_zero else "")
    return f"autograd's has norm {norm:.3g} and differs from the product by {difference:.1e} of it"
