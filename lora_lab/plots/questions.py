"""The questions that the pictures answer, each with what is drawn: one wording for page and notebooks."""

from typing import NamedTuple


class Question(NamedTuple):
    """What stands above a plot."""

    title: str
    subtitle: str


SPECTRUM = Question(
    "How many directions does it use?",
    "singular values of ΔW; the dotted line is the rank, the grey ones what random matrices of its norm would have",
)
ENERGY = Question("How few would do?", "share of ‖ΔW‖² that the strongest directions keep")
OVERLAP = Question(
    "Do they find the same directions?",
    "φ(i, j): how much of the first i directions of run 1 lies in the first j of run 2; 0 none, 1 all",
)
AMPLIFICATION = Question(
    "What does it amplify?",
    "the paper's Table 7: ‖UᵀWVᵀ‖_F with U and V from ΔW, from W and at random; the factor is ‖ΔW‖_F over the first",
)
DIRECTIONS = Question(
    "Are its strong directions those of W?",
    "|cos| of left singular directions; a diagonal where nothing changed, ▸ an intruder",
)
INTRUDERS = Question(
    "How many are intruders?",
    "leading directions of W + ΔW whose |cos| with every direction of W stays below the threshold",
)
LOCATION = Question(
    "Where in W does it lie?",
    "share of ‖ΔW‖² in W's strongest directions, in its weakest where all are known, and in the others, beside chance",
)
WHERE = Question("Where did it learn?", "one number of every matrix, layers down and roles across")
MERGED = Question(
    "What is left of it after merging?",
    "W0, the strongest directions of ΔW = scaling · B A, and their sum; one cell an entry, or a block of them where they are many",
)
LOSS = Question("Does the loss fall?", "on the examples it trains on; a hue a method, a shade a rank, a dash a seed")
SCORE = Question("Does it generalise?", "the score on examples that it never trains on")
RANKS = Question("How much rank is enough?", "score on held-out examples, mean ± sd over the seeds (how many)")
SHAPE = Question("What shape does ΔW take?", "singular values of one matrix as they are now; the dotted lines are the ranks")
FLOW = Question("How do gradients flow?", "∂L/∂A and ∂L/∂B step by step; where B = 0 nothing reaches A at the first step")
RULE = Question("What does the chain rule say?", "W = W0 + s·B·A and G = ∂L/∂W; Frobenius norms on the run's own first batch")
GRADIENT = Question(
    "What did the first gradient know?",
    "∂L/∂W of every matrix of the base over eight batches, adapted or not, before a step is taken; some seconds",
)
