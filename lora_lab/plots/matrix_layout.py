"""Where the matrices of a model stand in a picture of all: layers down, roles across."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from lora_lab.roles import ROLES, layer_of, role_of, stack_of
from lora_lab.specs import unique


@dataclass(frozen=True, slots=True)
class MatrixLayout:
    """Titles of rows and columns, and the (row, column) of every matrix by its name."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    places: dict[str, tuple[int, int]]

    @property
    def names(self) -> list[str]:
        """The matrices row by row."""
        return sorted(self.places, key=self.places.__getitem__)

    @property
    def deepest(self) -> str:
        """The last of them, which is looked at where nobody chose another; empty where there is none."""
        return next(reversed(self.names), "")


def matrix_layout(names: Sequence[str]) -> MatrixLayout:
    """One place a matrix.

    >>> matrix_layout(["vit.layers.0.attention.v_proj", "vit.layers.0.attention.q_proj", "vit.layers.1.attention.q_proj"])
    MatrixLayout(rows=('layer 0', 'layer 1'), columns=('q', 'v'), places={'vit.layers.0.attention.v_proj': (0, 1), \
'vit.layers.0.attention.q_proj': (0, 0), 'vit.layers.1.attention.q_proj': (1, 0)})
    """
    stacks = _in_order(unique(stack_of(name) for name in names))
    short = _short_names(names)
    order = [*ROLES, *short.values()]
    columns = tuple(sorted(set(short.values()), key=order.index))
    places = {name: (stacks.index(stack_of(name)), columns.index(short[name])) for name in names}
    return MatrixLayout(tuple(_row_title(stack, stacks) for stack in stacks), columns, places)


def _in_order(stacks: Sequence[str]) -> list[str]:
    """By their numbers, 2 before 10 as no file has them, each stack where its first layer is."""
    prefixes = [stack.rpartition(".")[0] for stack in stacks]
    return sorted(stacks, key=lambda stack: (prefixes.index(stack.rpartition(".")[0]), layer_of(stack) or 0))


def _short_names(names: Sequence[str]) -> dict[str, str]:
    """Within its layer each by its role; by its path where the role is not known or another there has it too."""
    having = Counter((stack_of(name), role_of(name)) for name in names)
    return {
        name: role
        if (role := role_of(name)) != "other" and having[stack_of(name), role] == 1
        else name.removeprefix(f"{stack_of(name)}.")
        for name in names
    }


def _row_title(row: str, rows: Sequence[str]) -> str:
    if not row:
        return ""
    prefixes = {other.rsplit(".", 1)[0] for other in rows if other}
    prefix, layer = row.rsplit(".", 1)
    return f"layer {layer}" if len(prefixes) == 1 else f"{prefix.split('.')[0]} {layer}"
