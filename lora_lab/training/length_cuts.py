"""Where to cut a step's rows into passes, so that little of what is computed is padding."""

from collections.abc import Sequence

_PASS_TOKENS = 64  # what a further pass costs a CPU besides its tokens, in tokens: its calls, and products that are less full


def length_cuts(lengths: Sequence[int], *, runs: int) -> list[tuple[int, int]]:
    """Begin and end of the passes, over rows sorted by length, that cost least when each is padded to its longest row.

    Args:
        lengths: of the n-th shortest rows of all runs the longest, in tokens; never falling.
        runs: that share the passes.

    >>> length_cuts([10, 10, 10, 60], runs=8), length_cuts([10, 11, 12, 13], runs=2)
    ([(0, 3), (3, 4)], [(0, 4)])
    """
    least, begins = [0.0], [0]  # of the first n rows: the cost, and where their last pass begins
    for end in range(1, len(lengths) + 1):
        costs = [least[begin] + runs * (end - begin) * lengths[end - 1] + _PASS_TOKENS for begin in range(end)]
        least.append(min(costs))
        begins.append(costs.index(least[end]))
    cuts = []
    end = len(lengths)
    while end:
        cuts.append((begins[end], end))
        end = begins[end]
    return cuts[::-1]
