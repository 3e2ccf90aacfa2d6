"""What was cut and what was trained stand on one axis, each with its own numbers."""

from lora_lab import plots
from lora_lab.inference import TruncatedScore
from lora_lab.metrics import METRICS
from lora_lab.report.records import ScoreCell

CUT = {"r 32": (TruncatedScore(1, 0.3), TruncatedScore(4, 0.8), TruncatedScore(32, 0.9))}
TRAINED = (ScoreCell("q,v", 4, (0.70, 0.80)), ScoreCell("q,v", 1, (0.60, 0.62)), ScoreCell("q,v", 8, (0.5, None)))


def test_a_line_a_run_and_a_point_a_rank_that_was_trained() -> None:
    fig = plots.truncation_curve(CUT, METRICS["accuracy"], trained=TRAINED)
    assert [(trace.name, list(trace.x), list(trace.y)) for trace in fig.data] == [
        ("r 32, cut after training", [1, 4, 32], [0.3, 0.8, 0.9]),
        ("trained at that rank", [1, 4], [0.61, 0.75]),  # a seed of r = 8 is missing: it has no mean
    ]
    assert list(fig.layout.xaxis.tickvals) == [1, 4, 32]


def test_without_a_score_it_says_so() -> None:
    fig = plots.truncation_curve({"r 2": (TruncatedScore(1, None),)}, METRICS["accuracy"])
    assert (len(fig.data), fig.layout.annotations[0].text) == (0, "No run was cut.")
