"""Page and notebook offer the same choices."""

import re
from pathlib import Path

import lora_lab as ll
from lora_lab.plots.choices import ALPHAS, RANKS, SEEDS, TARGETS
from lora_lab.specs import resolve_alpha
from lora_lab.ui import budget_html, selection, train
from lora_lab.widgets.budget import Budget
from lora_lab.widgets.sweep import Sweep


def test_every_alpha_is_offered_and_an_address_writes_it_as_a_spec_reads_it() -> None:
    assert [label for label, _ in selection.ALPHAS] == [label for label, _ in Budget().alpha.options]
    assert [resolve_alpha(text, 8) for _, text in selection.ALPHAS] == [resolve_alpha(value, 8) for _, value in ALPHAS]


def test_a_sweep_offers_what_the_page_offers(tmp_path: Path) -> None:
    sweep = Sweep("digits", ll.SweepSpec(r=(1,), steps=1), runs=tmp_path / "runs")
    assert (sweep.r.options, sweep.seeds.options) == (RANKS, SEEDS) == (train.RANKS, train.SEEDS)
    assert [sweep.alpha.label(value) for value in sweep.alpha.options] == [label for label, _ in selection.ALPHAS]


def test_the_usual_targets_are_the_same_buttons() -> None:
    page = re.findall(r'data-pick="targets:([^"]+)">([^<]+)</button>', budget_html.targets(ll.budget("gpt2-medium")))
    widget = re.findall(
        r'data-pick="([^"]+)" role="checkbox" aria-checked="\w+" tabindex="0">([^<]+)</span>', Budget().targets.drawn
    )
    assert page == widget == [(",".join(names), label) for label, names in TARGETS]
