"""The matrices of a model: their names, roles and shapes. Reads a live model by its attributes; loads no framework."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lora_lab.errors import SpecError, out_of_range
from lora_lab.specs import ALL_LINEAR, unique

if TYPE_CHECKING:
    from torch import nn

Role = Literal["q", "k", "v", "o", "gate", "up", "down", "pooler", "head", "other"]

# Endings of module names, most telling first: BERT calls three different matrices "dense".
_ROLE_OF_ENDING: tuple[tuple[str, Role], ...] = (
    ("attention.output.dense", "o"),
    ("intermediate.dense", "up"),
    ("output.dense", "down"),
    ("pooler.dense", "pooler"),
    *((name, "q") for name in ("q_proj", "query", "query_proj", "q_lin")),
    *((name, "k") for name in ("k_proj", "key", "key_proj", "k_lin")),
    *((name, "v") for name in ("v_proj", "value", "value_proj", "v_lin")),
    *((name, "o") for name in ("o_proj", "out_proj", "out_lin")),
    ("gate_proj", "gate"),
    *((name, "up") for name in ("up_proj", "fc1", "lin1")),
    *((name, "down") for name in ("down_proj", "fc2", "lin2")),
)
# A head is such a module, or lies in one.
_HEADS = {
    "classifier",
    "classification_head",
    "logits_proj",
    "score",
    "lm_head",
    "pre_classifier",
}  # a head is such a module, or lies in one
ROLES: tuple[Role, ...] = ("q", "k", "v", "o", "gate", "up", "down", "pooler", "head", "other")


@dataclass(frozen=True, slots=True)
class Matrix:
    """One linear map of a model, weight (d_out, d_in) whatever way the framework stores it."""

    name: str
    role: Role
    layer: int | None
    d_out: int
    d_in: int
    bias: bool = False

    @property
    def max_r(self) -> int:
        """The rank of a full update: min(d_out, d_in)."""
        return min(self.d_out, self.d_in)


@dataclass(frozen=True, slots=True)
class Geometry:
    """Every linear map of a model in the model's order, and its parameter count."""

    matrices: tuple[Matrix, ...]
    total_params: int

    def block(self) -> tuple[Matrix, ...]:
        """The matrices of the first layer: what one block looks like."""
        layers = [m.layer for m in self.matrices if m.layer is not None]
        return tuple(m for m in self.matrices if layers and m.layer == min(layers))

    def head_modules(self) -> tuple[str, ...]:
        """The outermost modules that make up the task head: `classifier`, `score`, or several."""
        return unique(_head_module(m.name) for m in self.matrices if m.role == "head")

    def matching(self, target: str) -> tuple[Matrix, ...]:
        """The matrices that one target names: by name ending as PEFT matches, by role, or as another family spells it."""
        if target == ALL_LINEAR:
            return tuple(m for m in self.matrices if m.role != "head")
        by_name = tuple(m for m in self.matrices if m.name == target or m.name.endswith("." + target))
        role = target if target in ROLES else role_of(target)
        return by_name or tuple(m for m in self.matrices if m.role == role != "other")

    def targeted(self, targets: Iterable[str]) -> tuple[Matrix, ...]:
        """The matrices that the targets name together, in the model's order.

        Raises:
            SpecError: a target names no matrix.
        """
        chosen: set[str] = set()
        for target in targets:
            found = self.matching(target)
            if not found:
                raise SpecError(out_of_range("target_modules", "LoraSpec", f"among {self._allowed()}", target))
            chosen.update(m.name for m in found)
        return tuple(m for m in self.matrices if m.name in chosen)

    def _allowed(self) -> str:
        roles = unique(m.role for m in self.matrices if m.role != "other")
        names = unique(m.name.rsplit(".", 1)[-1] for m in self.matrices)
        return f"{ALL_LINEAR}, the roles {', '.join(roles)} or the modules {', '.join(names)}"


def role_of(name: str) -> Role:
    """What a module does, from how its name ends.

    >>> role_of("bert.encoder.layer.0.attention.output.dense"), role_of("model.layers.3.self_attn.q_proj")
    ('o', 'q')
    """
    if _HEADS & set(name.split(".")):
        return "head"
    for ending, role in _ROLE_OF_ENDING:
        if name == ending or name.endswith("." + ending):
            return role
    return "other"


def _head_module(name: str) -> str:
    parts = name.split(".")
    return ".".join(parts[: next(i for i, part in enumerate(parts) if part in _HEADS) + 1])


def layer_of(name: str) -> int | None:
    """The first number in a module's path is its layer.

    >>> layer_of("vit.layers.2.attention.v_proj"), layer_of("classifier")
    (2, None)
    """
    numbers = [part for part in name.split(".") if part.isdigit()]
    return int(numbers[0]) if numbers else None


def label_of(name: str) -> str:
    """How people call a matrix.

    >>> label_of("vit.layers.2.attention.v_proj")
    'layer 2 · v'
    """
    role, layer = role_of(name), layer_of(name)
    short = role if role != "other" else name.rsplit(".", 1)[-1]
    return short if layer is None else f"layer {layer} · {short}"


def read_geometry(model: "nn.Module") -> Geometry:
    """The geometry of a live model, on any device, `meta` included."""
    matrices = []
    for name, module in model.named_modules():
        shape = _linear_shape(module)
        if shape is not None:
            bias = getattr(module, "bias", None) is not None
            matrices.append(Matrix(name, role_of(name), layer_of(name), *shape, bias))
    return Geometry(tuple(matrices), sum(p.numel() for p in model.parameters()))


def _linear_shape(module: "nn.Module") -> tuple[int, int] | None:
    """(d_out, d_in) of a linear map; transformers' Conv1D stores its weight the other way round."""
    kind = type(module).__name__
    if kind == "Conv1D":
        return int(module.nf), int(module.nx)  # type: ignore[arg-type]
    if "Linear" in kind and hasattr(module, "in_features"):
        return int(module.out_features), int(module.in_features)  # type: ignore[arg-type]
    return None


def resolve_targets(geometry: Geometry, targets: Iterable[str], *, r: int) -> tuple[str, ...]:
    """Targets as the shortest module-name endings that PEFT matches to the same matrices.

    Roles and other families' names become this model's, so that two ways to say one thing are one spec. `all-linear`
    stays as it is; any other target was named on purpose, and r may not exceed its rank.

    Raises:
        SpecError: a target names no matrix, or r exceeds the rank of a named one.
    """
    targets = tuple(targets)
    if ALL_LINEAR in targets:
        return (ALL_LINEAR,)
    chosen = geometry.targeted(targets)
    smallest = min(chosen, key=lambda m: m.max_r)
    if r > smallest.max_r:
        allowed = f"an int in 1..min(d_in, d_out)={smallest.max_r} of {smallest.name}"
        raise SpecError(out_of_range("r", "LoraSpec", allowed, r))
    names = {m.name for m in chosen}
    return unique(_shortest_ending(geometry, m, names) for m in chosen)


def _shortest_ending(geometry: Geometry, matrix: Matrix, chosen: set[str]) -> str:
    parts = matrix.name.split(".")
    for length in range(1, len(parts)):
        ending = ".".join(parts[-length:])
        if not any(part.isdigit() for part in parts[-length:]) and {m.name for m in geometry.matching(ending)} <= chosen:
            return ending
    return matrix.name
