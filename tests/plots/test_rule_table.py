"""The chain rule, told with its shapes."""

import re

from lora_lab.analysis.records import ChainRule
from lora_lab.plots.rule_table import chain_rule_table


def test_the_chain_rule_stands_with_its_shapes_and_norms() -> None:
    record = ChainRule("layers.3.v_proj", 64, 32, 4, 2.0, 1.0, 1.0, 0.0, 3.0, 0.0, 5.0, 0.0, 1e-7)
    text = re.sub("<[^>]+>", "", chain_rule_table([("before the first step", record)]))
    assert "∂L/∂B (64 × 4) = s · G (64 × 32) · Aᵀ (32 × 4)5" in text
    assert "∂L/∂A (4 × 32) = s · Bᵀ (4 × 64) · G (64 × 32)0" in text
    assert "layer 3 · v, s = 2" in text
