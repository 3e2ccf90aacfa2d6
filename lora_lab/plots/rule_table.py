"""The chain rule of LoRA's factors as a table of HTML."""

from collections.abc import Sequence
from html import escape

from lora_lab.analysis.records import ChainRule
from lora_lab.plots.theme import PALETTE
from lora_lab.roles import label_of


def chain_rule_table(states: Sequence[tuple[str, ChainRule]]) -> str:
    """Both products with their shapes and what autograd measured, a column a state of the same run."""
    if not states:
        return ""
    one = states[0][1]
    a, b, g = (f'<b style="color:{PALETTE[side]}">{name}</b>' for side, name in (("A", "A"), ("B", "B"), ("W0", "G")))
    shapes = {"out r": f"{one.d_out} × {one.r}", "r in": f"{one.r} × {one.d_in}", "out in": f"{one.d_out} × {one.d_in}"}
    small = {key: f"<small>({text})</small>" for key, text in shapes.items()}
    turned = f"<small>({one.d_in} × {one.r})</small>", f"<small>({one.r} × {one.d_out})</small>"
    rows = (
        (f"{g} = ∂L/∂W {small['out in']}", [record.grad_norm_w for _, record in states]),
        (f"∂L/∂{b} {small['out r']} = s · {g} {small['out in']} · {a}ᵀ {turned[0]}", [r.grad_norm_b for _, r in states]),
        (f"∂L/∂{a} {small['r in']} = s · {b}ᵀ {turned[1]} · {g} {small['out in']}", [r.grad_norm_a for _, r in states]),
    )
    head = "".join(f"<th>norm {escape(when)}</th>" for when, _ in states)
    body = "".join(f"<tr><td>{rule}</td>{''.join(f'<td>{norm:.3g}</td>' for norm in norms)}</tr>" for rule, norms in rows)
    title = f"{escape(label_of(one.name))}, s = {one.scaling:g}"
    table = f'<table class="lab-table lab-rule" id="rule-table"><tr><th>{title}</th>{head}</tr>{body}</table>'
    return f'<div class="lab-wide">{table}</div>'
