"""Curves of drift draw every φ that there is, with gaps and chance; the sentence is computed from them."""

import pytest

from lora_lab import plots
from lora_lab.analysis.records import Drift, DriftPoint
from lora_lab.plots import PALETTE


def drift(name: str, *phis: float | None, k: int = 2, chance: float = 0.1) -> Drift:
    points = tuple(DriftPoint(10 * i, k, phi, None if phi is None else chance) for i, phi in enumerate(phis, 1))
    return Drift(name, "in", k, points)


Q = drift("h.0.attn.q_proj", 0.3, 0.8, 1.0)
V = drift("h.3.attn.v_proj", None, 0.96, 1.0, chance=0.2)
ZERO = Drift("h.1.attn.q_proj", "in", 0, (DriftPoint(10, 0, None, None),))


def test_every_matrix_is_a_line_with_gaps_where_there_was_no_direction() -> None:
    fig = plots.drift_curves([Q, V, ZERO])
    assert [(line.name, tuple(line.x), tuple(line.y)) for line in fig.data] == [
        ("layer 0 · q", (10, 20, 30), (0.3, 0.8, 1.0)),
        ("layer 3 · v", (10, 20, 30), (None, 0.96, 1.0)),
    ]
    one, other = (line.line for line in fig.data)
    assert (one.color != other.color, one.dash != other.dash) == (True, True)
    (chance,) = fig.layout.shapes
    assert (chance.y0, chance.line.color) == (pytest.approx(0.15), PALETTE["W0"])


@pytest.mark.parametrize(
    ("drifts", "of", "phi", "when"),
    [
        ([Q], "1 matrix", "0.30", "it is below 0.9 until the end"),
        (
            [drift("a.q_proj", 0.4, 0.9, 1.0), drift("a.v_proj", 0.2, 0.95, 1.0), ZERO],
            "2 matrices",
            "0.30",
            "from step 20 of 30 on it is at least 0.9",
        ),
        (
            [drift("a.q_proj", 0.3, 0.95, 1.0), drift("a.v_proj", None, 0.95, 1.0)],  # what is not there is not a 0
            "2 matrices",
            "0.30",
            "from step 20 of 30 on it is at least 0.9",
        ),
        ([drift("a.q_proj", 0.95, 0.5, 0.92, 1.0)], "1 matrix", "0.95", "from step 30 of 40 on it is at least 0.9"),
    ],
    ids=["late", "early", "one begins at zero", "lost and found"],
)
def test_the_sentence_says_how_early_the_directions_were_there(drifts: list[Drift], of: str, phi: str, when: str) -> None:
    first = f"the leading directions of ΔW at step 10 have φ = {phi} with the final ones, where chance gives 0.100"
    assert plots.drift_caption(drifts) == f"In the mean over {of}, {first}; {when}."


def test_where_nothing_was_learned_plot_and_sentence_say_so() -> None:
    assert plots.drift_caption([ZERO]) == plots.drift_curves([ZERO]).layout.annotations[0].text
