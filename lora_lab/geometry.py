"""The matrices of a model: their names, roles and shapes; and what targets name among them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from lora_lab.errors import SpecError, out_of_range
from lora_lab.roles import FUSED, ROLES, Role, head_module, is_task_head, layer_of, role_of, stack_of
from lora_lab.specs import ALL_LINEAR, unique

if TYPE_CHECKING:
    pass

T = TypeVar("T")
# own: a family's subclass of nn.Linear; kept: one that transformers never quantizes, as T5's wo
Kind = Literal["linear", "own_linear", "kept_linear", "conv1d", "experts"]


@dataclass(frozen=True, slots=True)
class Matrix:
    """One linear map of a model, weight (d_out, d_in) whatever way the framework stores it.

    `experts` maps of one shape may be stored as one 3-D parameter; they are one Matrix then.
    """

    name: str
    role: Role
    layer: int | None
    d_out: int
    d_in: int
    bias: bool = False
    kind: Kind = "linear"
    experts: int = 1
    tied: bool = False  # shares its weight with the embedding

    @property
    def short_name(self) -> str:
        """What it is called within its layer: its role, or its path where the role is not known."""
        return self.role if self.role != "other" else self.name.removeprefix(stack_of(self.name) + ".")

    @property
    def max_r(self) -> int:
        """The rank of a full update: min(d_out, d_in)."""
        return min(self.d_out, self.d_in)

    @property
    def is_quantizable(self) -> bool:
        """transformers hands nn.Linear and Conv1D to bitsandbytes: no head, no subclass (Falcon's), none it keeps, no experts."""
        return self.kind in ("linear", "conv1d") and self.role != "head"

    @property
    def weight_params(self) -> int:
        """Parameters of the weight, whether tied or not."""
        return self.experts * self.d_out * self.d_in

    @property
    def bias_params(self) -> int:
        """Parameters of the bias."""
        return self.experts * self.d_out if self.bias else 0

    @property
    def params(self) -> int:
        """Parameters that this matrix brings: a tied weight is the embedding's."""
        return self.bias_params + (0 if self.tied else self.weight_params)


@dataclass(frozen=True, slots=True)
class Table:
    """An embedding: (rows, width)."""

    name: str
    rows: int
    width: int

    @property
    def params(self) -> int:
        """Parameters of the table."""
        return self.rows * self.width


@dataclass(frozen=True, slots=True)
class Norm:
    """A normalisation with a learned gain, and a learned shift where `bias`."""

    name: str
    layer: int | None
    width: int
    bias: bool
    is_rms: bool

    @property
    def params(self) -> int:
        """Gain and shift."""
        return self.width * (2 if self.bias else 1)

    @property
    def bias_params(self) -> int:
        """The shift."""
        return self.width if self.bias else 0


@dataclass(frozen=True, slots=True)
class Loose:
    """A parameter of another kind: a class token, a convolution, a router's matrix."""

    name: str
    layer: int | None
    params: int

    @property
    def bias_params(self) -> int:
        """All of it where it is called a bias."""
        return self.params if "bias" in self.name.rsplit(".", 1)[-1] else 0


@dataclass(frozen=True, slots=True)
class Architecture:
    """What shapes do not tell: how the parts are put together."""

    model_type: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    activation: str = "silu"
    hidden_dropout: float = 0.0
    attention_dropout: float = 0.0
    experts_per_token: int = 0
    soft_cap: bool = False
    relative_positions: int = 0  # rows of DeBERTa's table of distances

    @property
    def kv_width(self) -> int:
        """Width of the keys, and of the values, of one token."""
        return self.kv_heads * self.head_dim

    @property
    def q_width(self) -> int:
        """Width of the queries of one token."""
        return self.heads * self.head_dim


@dataclass(frozen=True)
class Block:
    """One layer: its path and everything in it."""

    stack: str
    layer: int
    matrices: tuple[Matrix, ...]
    norms: tuple[Norm, ...]
    loose: tuple[Loose, ...]

    @cached_property
    def shape(self) -> tuple[object, ...]:
        """What two layers have in common that differ in their number alone."""
        start = len(self.stack)
        maps = tuple((m.name[start:], m.d_out, m.d_in, m.bias) for m in self.matrices)
        return (maps, tuple((n.name[start:], n.width) for n in self.norms))


@dataclass(frozen=True)
class Geometry:
    """Every parameter of a model, by kind, in the model's order."""

    matrices: tuple[Matrix, ...]
    tables: tuple[Table, ...] = ()
    norms: tuple[Norm, ...] = ()
    loose: tuple[Loose, ...] = ()
    architecture: Architecture | None = None

    @cached_property
    def total_params(self) -> int:
        """Parameters of the model, a tied weight counted once."""
        return sum(part.params for part in self.parts())

    def share_of(self, params: int) -> float:
        """So many parameters as a share of the model's."""
        return params / self.total_params

    def parts(self) -> Iterator[Matrix | Table | Norm | Loose]:
        """Everything that has parameters."""
        yield from self.matrices
        yield from self.tables
        yield from self.norms
        yield from self.loose

    @cached_property
    def layers(self) -> tuple[int, ...]:
        """The numbers of the layers. An encoder and a decoder count theirs apart, each from 0."""
        return tuple(sorted({m.layer for m in self.matrices if m.layer is not None}))

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """Every layer in the model's order, an encoder's and a decoder's both."""
        stacks = unique(stack_of(m.name) for m in self.matrices if m.layer is not None)
        parts: dict[str, tuple[list[Any], list[Any], list[Any]]] = {stack: ([], [], []) for stack in stacks}
        found: tuple[tuple[Matrix | Norm | Loose, ...], ...] = (self.matrices, self.norms, self.loose)
        for kind, own in enumerate(found):
            for part in own:
                if (stack := stack_of(part.name)) in parts:
                    parts[stack][kind].append(part)
        return tuple(Block(stack, layer_of(stack) or 0, *map(tuple, kinds)) for stack, kinds in parts.items())

    @cached_property
    def image_tokens(self) -> int | None:
        """Patches and class token of an image, where the model reads images: as many as it has positions."""
        if self.architecture is None or self.architecture.vocab or not self.architecture.hidden:
            return None
        positions = (part.params for part in self.loose if part.name.endswith("position_embeddings"))
        return next((params // self.architecture.hidden for params in positions), None)

    @cached_property
    def token_width(self) -> int:
        """Width of a token's embedding: the model's own but where the family projects it, as ALBERT does."""
        vocab, hidden = (self.architecture.vocab, self.architecture.hidden) if self.architecture else (0, 0)
        return next((table.width for table in self.tables if table.rows == vocab), hidden)

    @cached_property
    def is_encoder_decoder(self) -> bool:
        """Whether there are both an encoder's and a decoder's layers."""
        return {"encoder", "decoder"} <= {part for block in self.blocks for part in block.stack.split(".")}

    @cached_property
    def stacks(self) -> tuple[str, ...]:
        """The paths of the layers."""
        return tuple(block.stack for block in self.blocks)

    def block(self) -> tuple[Matrix, ...]:
        """The matrices of the first layer: what one block looks like."""
        return tuple(m for m in self.matrices if self.layers and m.layer == self.layers[0])

    def head_modules(self) -> tuple[str, ...]:
        """The outermost modules that make up the task head: `classifier`, `score`, or several."""
        return unique(head_module(m.name) for m in self.matrices if m.role == "head")

    @cached_property
    def task_heads(self) -> tuple[str, ...]:
        """`head_modules` without a language model's output: what fine-tuning trains in full beside an adapter."""
        return unique(head_module(m.name) for m in self.matrices if is_task_head(m.name))

    def matching(self, target: str) -> tuple[Matrix, ...]:
        """The matrices that one target names: by name ending as PEFT matches, by role, or as another family spells it.

        Where the family stores several roles as one matrix, a role names that matrix (`fused_targets` tells).
        """
        if target == ALL_LINEAR:
            return tuple(m for m in self.matrices if m.role != "head" and m.kind != "experts")
        by_name = tuple(m for m in self.matrices if m.name == target or m.name.endswith("." + target))
        role = _wanted_role(target)
        by_role = tuple(m for m in self.matrices if m.role == role != "other")
        return by_name or by_role or tuple(m for m in self.matrices if m.role == FUSED.get(role, ""))

    def targeted(self, targets: Iterable[str], layers: Sequence[int] | None = None) -> tuple[Matrix, ...]:
        """The matrices that the targets name together, in the model's order, kept to some layers or not.

        Raises:
            SpecError: a target names no matrix, or no layer is left.
        """
        key = tuple(targets)
        found = self.once(("targeted", key), lambda: self._find(key))
        if layers is None:
            return found
        kept = tuple(m for m in found if m.layer in layers)
        if not kept:
            raise self._no_such_layer(layers)
        return kept

    def toggled(self, targets: Iterable[str], picked: str) -> tuple[str, ...]:
        """The targets with what `picked` names among them, or without it where all of that was.

        `all-linear` becomes the matrices of a block, so that one of them can be taken away.
        """
        spelled = unique(name for target in targets for name in self._spelled_out(target))
        chosen = {m.name for target in spelled for m in self.matching(target)}
        here = {m.name for m in self.matching(picked)}
        kept = tuple(target for target in spelled if not here & {m.name for m in self.matching(target)})
        return kept if here <= chosen else (*kept, picked)

    def _spelled_out(self, target: str) -> tuple[str, ...]:
        if target != ALL_LINEAR:
            return (target,)
        return unique(m.short_name for m in self.block() if m in self.matching(ALL_LINEAR))

    def kept_stacks(self, layers: Sequence[int] | None) -> tuple[str, ...]:
        """The paths of these layers, or of all of them.

        Raises:
            SpecError: no layer is left.
        """
        kept = tuple(block.stack for block in self.blocks if layers is None or block.layer in layers)
        if not kept:
            raise self._no_such_layer(layers)
        return kept

    def top_layers(self, r: int, layers: Sequence[int] | None = None) -> tuple[str, ...]:
        """The paths of what training the top r layers trains: the last r, or `layers` where given.

        Raises:
            SpecError: no layer is left.
        """
        kept = self.kept_stacks(layers)
        return kept[-r:] if layers is None else kept

    def _no_such_layer(self, layers: Sequence[int] | None) -> SpecError:
        allowed = f"in 0..{max(self.layers, default=0)} and hold a target"
        return SpecError(out_of_range("layers_to_transform", "MethodSpec", allowed, layers))

    def once(self, key: object, make: Callable[[], T]) -> T:
        """What `make` gives, kept with this geometry: a thousand configurations of one model share what depends on it alone."""
        if key not in self._kept:
            self._kept[key] = make()
        found: T = self._kept[key]
        return found

    @cached_property
    def _kept(self) -> dict[object, Any]:
        return {}

    def _find(self, targets: tuple[str, ...]) -> tuple[Matrix, ...]:
        chosen: set[str] = set()
        for target in targets:
            found = self.matching(target)
            if not found:
                raise SpecError(out_of_range("target_modules", "MethodSpec", f"among {self._allowed()}", target))
            chosen.update(m.name for m in found)
        return tuple(m for m in self.matrices if m.name in chosen)

    def fused_targets(self, targets: Iterable[str]) -> dict[str, str]:
        """The targets that stand for a matrix holding more than they name, and that matrix's own name."""
        named = {target: self.matching(target) for target in targets if target != ALL_LINEAR}
        return {
            target: found[0].name.rsplit(".", 1)[-1]
            for target, found in named.items()
            if found and found[0].role == FUSED.get(_wanted_role(target))
        }

    def _allowed(self) -> str:
        found = {m.role for m in self.matrices}
        roles = [r for r in ROLES if r != "other" and (r in found or FUSED.get(r) in found)]
        names = unique(m.name.rsplit(".", 1)[-1] for m in self.matrices)
        return f"{ALL_LINEAR}, the roles {', '.join(roles)} or the modules {', '.join(names)}"


def _wanted_role(target: str) -> Role:
    return next((role for role in ROLES if role == target), role_of(target))


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
        raise SpecError(out_of_range("r", "MethodSpec", allowed, r))
    names = {m.name for m in chosen}
    return unique(_shortest_ending(geometry, m, names) for m in chosen)


def _shortest_ending(geometry: Geometry, matrix: Matrix, chosen: set[str]) -> str:
    parts = matrix.name.split(".")
    for length in range(1, len(parts)):
        ending = ".".join(parts[-length:])
        if not any(part.isdigit() for part in parts[-length:]) and {m.name for m in geometry.matching(ending)} <= chosen:
            return ending
    return matrix.name
