"""The parameters of K runs side by side: one row a run, so that norms, clipping and AdamW cost what they cost for one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lora_lab.specs import RunSpec

Kind = Literal["lora_a", "head_weight", "lora_b", "head_bias"]
KINDS: tuple[Kind, ...] = ("lora_a", "head_weight", "lora_b", "head_bias")
_BETA_1, _BETA_2, _EPS = 0.9, 0.999, 1e-8  # torch.optim.AdamW's own


@dataclass(frozen=True, slots=True)
class Block:
    """One parameter that every run has a value of: its shape without the runs, padded to the largest rank among them."""

    name: str
    kind: Kind
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        """Numbers of one run."""
        return math.prod(self.shape)


class Stack:
    """K runs' values, gradients and AdamW moments, (K, P) each; the blocks are leaves of autograd that look into the values.

    Values of a block's padding are zero and stay so: a row of A beyond a run's rank and the column of B that it meets (a
    row here: B lies transposed) give each other no gradient.

    Args:
        blocks: what every run trains.
        specs: the runs, of which rates, decay and clipping are taken.
        device: where to.
    """

    def __init__(self, blocks: Sequence[Block], specs: Sequence[RunSpec], device: torch.device) -> None:
        self.blocks = tuple(block for kind in KINDS for block in blocks if block.kind == kind)
        ends = torch.tensor([0, *(block.numel for block in self.blocks)]).cumsum(0).tolist()
        self._spans = dict(zip((block.name for block in self.blocks), pairwise(ends), strict=True))
        self._sections = {kind: self._section(kind) for kind in KINDS}
        shape = (len(specs), ends[-1])
        self.values, self.gradients, self._first, self._second = (torch.zeros(shape, device=device) for _ in range(4))
        self._specs, self._steps = tuple(specs), 0
        self._bind()

    def _section(self, kind: Kind) -> slice:
        spans = [self._spans[block.name] for block in self.blocks if block.kind == kind]
        return slice(spans[0][0], spans[-1][1]) if spans else slice(0, 0)

    def _bind(self) -> None:
        """Leaves over the memory of the values."""
        self.leaves = {block.name: nn.Parameter(self._of(self.values, block)) for block in self.blocks}
        self._rates = torch.tensor([_rates(spec) for spec in self._specs], device=self.values.device)
        self._decays = torch.tensor([_decays(spec) for spec in self._specs], device=self.values.device)
        self._most = torch.tensor([spec.max_grad_norm for spec in self._specs], device=self.values.device)

    def _of(self, numbers: Float[Tensor, "runs params"], block: Block) -> Tensor:
        begin, end = self._spans[block.name]
        return numbers[:, begin:end].view(len(numbers), *block.shape)

    def __len__(self) -> int:
        return len(self._specs)

    def row(self, name: str, run: int) -> Tensor:
        """One run's values of a block; writing to it changes them."""
        return self.leaves[name].detach()[run]

    def gather(self) -> None:
        """Take the gradients that backward has left at the leaves."""
        found = [leaf.new_zeros(leaf.shape) if leaf.grad is None else leaf.grad for leaf in self.leaves.values()]
        self.gradients = torch.cat([gradient.flatten(1) for gradient in found], dim=1)
        for leaf in self.leaves.values():
            leaf.grad = None

    def norms(self) -> dict[Kind, Float[Tensor, " runs"]]:
        """Frobenius norm of every run's gradient, by kind."""
        return {kind: self.gradients[:, section].norm(dim=1) for kind, section in self._sections.items()}

    def clip(self, norms: Float[Tensor, " runs"]) -> None:
        """Scale every run's gradient down to its own largest norm, as `clip_grad_norm_` does."""
        self.gradients.mul_((self._most / (norms + 1e-6)).clamp(max=1.0)[:, None])

    def step(self, shares: Float[Tensor, " runs"]) -> None:
        """One step of AdamW for every run, by the gradients that were gathered.

        Args:
            shares: of each run's learning rate, as its schedule has it.

        Source: Loshchilov & Hutter 2019 (arXiv 1711.05101), algorithm 2, as torch.optim.AdamW has it.
        """
        self._steps += 1
        self._first.lerp_(self.gradients, 1 - _BETA_1)
        self._second.mul_(_BETA_2).addcmul_(self.gradients, self.gradients, value=1 - _BETA_2)
        update = self._second.sqrt().div_(math.sqrt(1 - _BETA_2**self._steps)).add_(_EPS).reciprocal_().mul_(self._first)
        rates = self._rates * shares[:, None]
        for column, section in enumerate(self._sections.values()):
            rate, decay = rates[:, column : column + 1], self._decays[:, column : column + 1]
            values = self.values[:, section]
            if bool((self._decays[:, column] > 0).any()):
                values.mul_(1 - rate * decay)
            values.sub_(update[:, section].mul_(rate / (1 - _BETA_1**self._steps)))

    def keep(self, runs: Bool[Tensor, " runs"]) -> None:
        """Only these runs from now on; their values and moments are as they were."""
        for name in ("values", "gradients", "_first", "_second"):
            setattr(self, name, getattr(self, name)[runs.to(self.values.device)].contiguous())
        self._specs = tuple(spec for spec, kept in zip(self._specs, runs.tolist(), strict=True) if kept)
        self._bind()


def _rates(spec: RunSpec) -> list[float]:
    """The learning rate of each kind; LoRA+ gives B, and what has one dimension, its own, as PEFT's optimizer does."""
    of_b = spec.learning_rate * (spec.loraplus_lr_ratio if spec.tuning.method == "lora+" else 1.0)
    return [spec.learning_rate, spec.learning_rate, of_b, of_b]


def _decays(spec: RunSpec) -> list[float]:
    """The weight decay of each kind; with LoRA+ a bias decays in nothing, as in PEFT."""
    return [spec.weight_decay] * 3 + [0.0 if spec.tuning.method == "lora+" else spec.weight_decay]


def runs_of(items: Int[Tensor, " items"], rows_a_run: int) -> Int[Tensor, " items"]:
    """Which run each item's row belongs to, where every run has so many rows."""
    return items // rows_a_run
