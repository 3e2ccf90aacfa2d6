"""What the widgets that look at ΔW are shown: two seeds, a third rank, matrices made by hand, and a change that is zero."""

import re
from collections.abc import Callable
from html import unescape

import pytest
import torch

import lora_lab as ll
from lora_lab import LowRank, Run

Q, V = "vit.layers.0.attention.q_proj", "vit.layers.3.attention.v_proj"


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run, Run]:
    """r = 4 in two seeds, and r = 2."""
    store = tmp_path_factory.mktemp("runs")
    first, second, small = (ll.train("digits", ll.LoraSpec(r=r), steps=12, seed=s, runs=store) for r, s in ((4, 0), (4, 1), (2, 0)))
    return first, second, small


@pytest.fixture(scope="session")
def by_hand() -> Callable[..., dict[str, LowRank]]:
    """Matrices of normal factors."""

    def made(seed: int = 0, *, d_out: int = 12, d_in: int = 8, r: int = 3, scaling: float = 0.5) -> dict[str, LowRank]:
        draws = torch.Generator().manual_seed(seed)
        names = ("layers.0.q_proj", "layers.1.q_proj")
        factors = ((torch.randn(d_out, r, generator=draws), torch.randn(r, d_in, generator=draws)) for _ in names)
        return {name: LowRank(b, a, scaling) for name, (b, a) in zip(names, factors, strict=True)}

    return made


@pytest.fixture(scope="session")
def text() -> Callable[[object], str]:
    """What a reader sees of an answer's sentence, or of any HTML."""

    def read(html: object) -> str:
        return unescape(re.sub(r"<[^>]+>", "", str(getattr(html, "sentence", html))))

    return read
