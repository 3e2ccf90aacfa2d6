"""What page and notebooks offer to choose from: one list of each."""

RANKS = (1, 2, 4, 8, 16, 32, 64)
SEEDS = (0, 1, 2, 3)
ALPHAS: tuple[tuple[str, float | str], ...] = (  # what they are called; as a spec has them, `2r` being twice the rank
    ("8", 8.0),
    ("16", 16.0),
    ("32", 32.0),
    ("64", 64.0),
    ("r", "1r"),
    ("2 r", "2r"),
)
TARGETS = (
    ("q v", ("q", "v")),
    ("q k v o", ("q", "k", "v", "o")),
    ("MLP", ("gate", "up", "down")),
    ("all", ("all-linear",)),
)


def alpha_label(alpha: float | str) -> str:
    """What a choice of alpha is called; any other as it is written.

    >>> alpha_label("2r"), alpha_label(16.0), alpha_label(12.5)
    ('2 r', '16', '12.5')
    """
    other = alpha if isinstance(alpha, str) else f"{alpha:g}"
    return next((label for label, value in ALPHAS if value == alpha), other)
