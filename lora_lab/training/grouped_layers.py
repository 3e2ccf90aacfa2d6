"""Layers that give every run's rows the run's own adapter: the batch is K blocks of rows, one a run."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from lora_lab.errors import TrainingError
from lora_lab.lowrank import LowRank


@dataclass
class Company:
    """Whose rows a forward pass is made of; every grouped layer of a model shares one.

    Attributes:
        runs: K; the rows of a batch are K blocks, a run each.
        rows: of one block.
        alone: the run that all rows belong to, in place of that.
        heads_alone: every row is every run's, and no adapter's: heads give K answers, a block for each run.
        tokens: how long each run's own batch is, where the rows are text; what lies beyond is padding for the longest.
        streams: each run's random numbers; none where nothing is dropped.
    """

    runs: int
    rows: int = 1
    alone: int | None = None
    heads_alone: bool = False
    tokens: Sequence[int] = ()
    streams: Sequence[torch.Generator] = field(default_factory=tuple)

    @contextmanager
    def only(self, run: int) -> Iterator[None]:
        """A block in which every row belongs to one run."""
        self.alone = run
        try:
            yield
        finally:
            self.alone = None

    @contextmanager
    def all_heads(self) -> Iterator[None]:
        """A block in which every head reads every row of the base."""
        self.heads_alone = True
        try:
            yield
        finally:
            self.heads_alone = False

    def blocks(self, x: Tensor, name: str) -> Float[Tensor, "runs rows d"]:
        """The run's rows, tokens and all, in a dimension of their own.

        Raises:
            TrainingError: what the module is given are not the rows of the batch.
        """
        if x.shape[0] % (self.runs * self.rows) or x.ndim < 2:
            wanted = f"The rows that {name} is given must be those of the batch, {self.runs} blocks of {self.rows}."
            raise TrainingError(f"{wanted} Got {x.shape[0]}.")
        return x.reshape(self.runs, -1, x.shape[-1])


class GroupedLora(nn.Module):
    """W0 x + scaling_k · B_k A_k x for the rows of run k.

    Args:
        name: of the matrix.
        base: the layer beneath, frozen.
        company: whose rows there are.
    """

    lora_a: Tensor
    lora_b: Tensor

    def __init__(self, name: str, base: nn.Module, company: Company) -> None:
        super().__init__()
        self.name, self.company = name, company
        self.base_layer: Any = base
        self.ranks: tuple[int, ...] = ()
        self._merged: Tensor | None = None

    def bind(
        self,
        lora_a: Float[Tensor, "runs r d_in"],
        lora_b: Float[Tensor, "runs r d_out"],
        *,
        ranks: Sequence[int],
        scalings: Sequence[float],
        dropouts: Sequence[float],
    ) -> None:
        """Compute with these factors from now on; a run that has no adapter here has rank and scaling 0.

        B lies transposed, as A does: products with a side of r are several times faster when that is not the inner one in memory.
        """
        self.__dict__.update(lora_a=lora_a, lora_b=lora_b)  # not as parameters: they are the stack's
        self.ranks, self.scalings, self.dropouts = tuple(ranks), tuple(scalings), tuple(dropouts)
        self._scaling = torch.tensor(scalings, device=lora_a.device)[:, None, None]

    def delta(self, run: int) -> LowRank | None:
        """A copy of the run's ΔW on the CPU; None where the run does not adapt this matrix."""
        r = self.ranks[run]
        if not r:
            return None
        a, b = (stacked[run, :r].detach().cpu().clone() for stacked in (self.lora_a, self.lora_b))
        return LowRank(b.mT, a, self.scalings[run])

    @torch.no_grad()
    def merge(self, run: int) -> None:
        """Answer for this run alone with W0 + ΔW in one product, where the base is a plain linear map."""
        if type(self.base_layer) is nn.Linear and self.ranks[run]:
            self._merged = torch.addmm(self.base_layer.weight, self.lora_b[run].mT * self.scalings[run], self.lora_a[run])

    def unmerge(self) -> None:
        """Answer with the base and the factors again; the base was never touched."""
        self._merged = None

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self._merged is not None:
            return nn.functional.linear(x, self._merged, self.base_layer.bias)
        y: Tensor = self.base_layer(x, *args, **kwargs)
        if self.company.heads_alone:
            return y
        if self.company.alone is not None:
            return self._alone(x, y, self.company.alone)
        blocks = self.company.blocks(x, self.name)
        if self.training and any(self.dropouts):
            blocks = blocks * self._kept(x)
        low = torch.bmm(blocks, self.lora_a.mT) * self._scaling.to(x.dtype)
        return torch.baddbmm(y.reshape(*blocks.shape[:2], -1), low, self.lora_b).view_as(y)

    def _alone(self, x: Tensor, y: Tensor, run: int) -> Tensor:
        r = self.ranks[run]
        if not r:
            return y
        low = nn.functional.linear(x, self.lora_a[run, :r])
        return y + nn.functional.linear(low, self.lora_b[run, :r].mT) * self.scalings[run]

    @torch.no_grad()
    def _kept(self, x: Tensor) -> Float[Tensor, "runs rows d"]:
        """What dropout leaves, scaled: drawn for each run from its own stream, in the shape that it has alone."""
        kept = torch.ones(self.company.runs, x.shape[0] // self.company.runs, *x.shape[1:], dtype=x.dtype, device=x.device)
        for run, (p, r) in enumerate(zip(self.dropouts, self.ranks, strict=True)):
            if p and r:
                own = kept[run, :, : self.company.tokens[run]] if self.company.tokens and x.ndim == 3 else kept[run]
                drawn = torch.empty(own.shape, dtype=x.dtype, device=x.device)
                own.copy_(drawn.bernoulli_(1 - p, generator=self.company.streams[run]).div_(1 - p))
        return kept.reshape(self.company.runs, -1, x.shape[-1])


class GroupedHead(nn.Module):
    """A task head that every run trains in full: each run's rows pass through its own values of the one module."""

    values: dict[str, Tensor]

    def __init__(self, head: nn.Module, company: Company) -> None:
        super().__init__()
        self.head, self.company = head, company

    def bind(self, values: dict[str, Tensor]) -> None:
        """Compute with these from now on, by parameter name, (runs, …) each."""
        self.__dict__["values"] = values  # not as parameters: they are the stack's

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self.company.alone is not None:
            own = {name: value[self.company.alone] for name, value in self.values.items()}
            alone: Tensor = functional_call(self.head, own, (x, *args), kwargs)
            return alone
        by_name = {name: value.unbind(0) for name, value in self.values.items()}
        chunks = [x] * self.company.runs if self.company.heads_alone else x.chunk(self.company.runs)
        outputs = [
            functional_call(self.head, {name: values[run] for name, values in by_name.items()}, (chunk, *args), kwargs)
            for run, chunk in enumerate(chunks)
        ]
        return torch.cat(outputs)
