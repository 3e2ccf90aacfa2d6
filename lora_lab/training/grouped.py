"""Grouped training: runs that share base, data, batch size and steps in one forward and backward pass.

The base is frozen, so that K adapters of any rank, alpha, targets, learning rate or seed can share it: the batch is K blocks
of rows, and an adapted matrix adds scaling_k · B_k A_k x to the rows of run k by two batched products.
"""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lora_lab.benches import Bench, Split, Splits
from lora_lab.benches.task import on, without_labels
from lora_lab.live_geometry import read_geometry
from lora_lab.lowrank import LowRank, stacked_singular_values
from lora_lab.methods import quantize
from lora_lab.specs import RunSpec
from lora_lab.training.begin import row_batches
from lora_lab.training.devices import autocast, compute_dtype_on
from lora_lab.training.engine import Engine, Outcome, loss_or_lost
from lora_lab.training.evaluation import Score, evaluate, evaluate_heads
from lora_lab.training.grouped_layers import Company, GroupedHead, GroupedLora
from lora_lab.training.length_cuts import length_cuts
from lora_lab.training.optimizers import rate_share
from lora_lab.training.plain import stream_seed
from lora_lab.training.shells import Shell
from lora_lab.training.stack import Block, Stack, runs_of

SHARING_METHODS = ("lora", "rslora", "lora+", "qlora")
_NARROW_HEAD = 32
_MOST_MERGED = 100_000_000  # numbers in the copies of all adapted matrices
SHARING_STARTS = ("default", "gaussian", "orthogonal")


def may_share(spec: RunSpec) -> bool:
    """Whether grouped training knows what the run asks for: LoRA on linear maps, start values beside the base, AdamW."""
    tuning = spec.tuning
    knows = tuning.method in SHARING_METHODS and tuning.init_lora_weights in SHARING_STARTS and tuning.bias == "none"
    return knows and spec.optimizer == "AdamW"


def sharing_key(spec: RunSpec) -> Hashable:
    """Runs of one key can go through one pass."""
    common = (spec.bench, spec.base_sha256, spec.data, spec.quant, spec.steps, spec.batch_size, spec.eval_every_steps)
    return common if may_share(spec) else spec.run_id


def _attend_plainly(model: nn.Module, device: torch.device) -> None:
    """On a CPU torch's fused attention takes longer over narrow heads, backward above all, than the products that it is made of."""
    config: Any = model.config
    heads = getattr(config, "num_attention_heads", 0)
    if device.type == "cpu" and heads and config.hidden_size // heads <= _NARROW_HEAD and config._attn_implementation == "sdpa":
        model.set_attn_implementation("eager")  # type: ignore[operator]


class GroupedEngine(Engine):
    """K runs' moving parts.

    Args:
        specs: runs of one `sharing_key`.
        bench: their bench.
        splits: of the bench.
        device: where to train.

    Raises:
        SpecError: the base cannot take a method, or what it adapts are not linear maps.
    """

    def __init__(self, specs: Sequence[RunSpec], bench: Bench, splits: Splits, device: torch.device) -> None:
        self.specs, self.bench, self.device, self.train = tuple(specs), bench, device, splits.train
        base = bench.build()
        geometry = read_geometry(base)
        self.total_params, self.heads = geometry.total_params, bench.head_modules(geometry)
        self._shells: dict[object, Shell] = {}
        for spec in self.specs:
            if spec.tuning not in self._shells:
                self._shells[spec.tuning] = Shell(bench, base, spec.tuning, self.heads)
        self.company = Company(len(self.specs))
        self.model = quantize(base, specs[0].quant, compute_dtype=compute_dtype_on(device)).eval().requires_grad_(False)
        _attend_plainly(self.model, device)
        self._layers, self._grouped_heads = self._put_in_layers()
        self.model.to(device)
        self.stack = Stack(self._blocks(), self.specs, device)
        mask = self.train.columns.get("attention_mask")
        self._lengths = None if mask is None else mask.sum(1)
        self._orders = [row_batches(len(self.train), s.batch_size, steps=s.steps, seed=s.seed) for s in self.specs]
        self._streams = [torch.Generator(device) for _ in self.specs]
        self._shares: Sequence[float] = [0.0] * len(self.specs)
        self._total = torch.zeros(len(self.specs), device=device)
        for run, spec in enumerate(self.specs):
            self._draw(run, spec)
        self._bind()

    def _put_in_layers(self) -> tuple[dict[str, GroupedLora], dict[str, GroupedHead]]:
        names = dict.fromkeys(name for shell in self._shells.values() for name in shell.factors)
        layers = {name: GroupedLora(name, self.model.get_submodule(name), self.company) for name in names}
        heads = {name: GroupedHead(self.model.get_submodule(name), self.company) for name in self.heads}
        for name, module in {**layers, **heads}.items():
            self.model.set_submodule(name, module)
        for layer in layers.values():
            layer.training = True  # its dropout; what lies beneath stays in eval mode
        return layers, heads

    def _blocks(self) -> list[Block]:
        blocks = []
        for name in self._layers:
            those = [shell.factors[name] for shell in self._shells.values() if name in shell.factors]
            r, d_in, d_out = max(f.r for f in those), those[0].lora_a.shape[1], those[0].lora_b.shape[0]
            blocks += [Block(f"{name} lora_a", "lora_a", (r, d_in)), Block(f"{name} lora_b", "lora_b", (r, d_out))]
        head = next(iter(self._shells.values())).head
        return [*blocks, *(Block(n, "head_weight" if p.ndim > 1 else "head_bias", tuple(p.shape)) for n, p in head.items())]

    def _draw(self, run: int, spec: RunSpec) -> None:
        shell = self._shells[spec.tuning]
        shell.draw(spec.seed)
        for name, factors in shell.factors.items():
            self.stack.row(f"{name} lora_a", run)[: factors.r].copy_(factors.lora_a.detach())
            self.stack.row(f"{name} lora_b", run)[: factors.r].copy_(factors.lora_b.detach().mT)
        for name, parameter in shell.head.items():
            self.stack.row(name, run).copy_(parameter.detach())

    def _bind(self) -> None:
        """Every layer computes with the stack as it is now."""
        leaves, shells = self.stack.leaves, [self._shells[spec.tuning] for spec in self.specs]
        for name, layer in self._layers.items():
            those = [shell.factors.get(name) for shell in shells]
            layer.bind(
                leaves[f"{name} lora_a"],
                leaves[f"{name} lora_b"],
                ranks=[f.r if f else 0 for f in those],
                scalings=[f.scaling if f else 0.0 for f in those],
                dropouts=[f.dropout if f else 0.0 for f in those],
            )
        for name, head in self._grouped_heads.items():
            begin = f"{name} "
            head.bind({block.removeprefix(begin): leaf for block, leaf in leaves.items() if block.startswith(begin)})
        self.company.runs, self.company.streams = len(self.specs), self._streams

    def counts(self, spec: RunSpec) -> tuple[int, int]:
        return self._shells[spec.tuning].counts

    def backward(self, step: int) -> Sequence[Outcome]:
        rows = torch.stack([next(order) for order in self._orders])
        for stream, spec in zip(self._streams, self.specs, strict=True):
            stream.manual_seed(stream_seed(spec, step))
        sums, items = torch.zeros(2, len(self.specs), device=self.device)
        for part in self._passes(rows):
            losses, counts = self._sums(part)
            losses.sum().backward()  # type: ignore[no-untyped-call]
            sums, items = sums + losses.detach(), items + counts
        self.stack.gather()
        self.stack.gradients.div_(items[:, None])  # the losses of a run are in its own gradient alone
        self._shares = [rate_share(step - 1, warmup_steps=spec.warmup_steps, steps=spec.steps) for spec in self.specs]
        tokens = [] if self._lengths is None else self._lengths[rows].amax(1).tolist()
        return self._outcomes(sums / items, tokens)

    def _passes(self, rows: Int[Tensor, "runs batch"]) -> list[Int[Tensor, "runs part"]]:
        """The step's rows: on a CPU short ones apart from long ones. A run that drops draws for its batch as it is."""
        drops = any(spec.tuning.lora_dropout for spec in self.specs)
        if self._lengths is None or self.device.type != "cpu" or drops:
            return [rows]
        lengths, order = self._lengths[rows].sort(dim=1, stable=True)
        cuts = length_cuts(lengths.amax(0).tolist(), runs=len(self.specs))
        return [rows.gather(1, order)[:, begin:end] for begin, end in cuts]

    def _sums(self, rows: Int[Tensor, "runs part"]) -> tuple[Float[Tensor, " runs"], Int[Tensor, " runs"]]:
        """Every run's loss summed over what counts in its own rows, and how much that is."""
        batch, a_run = self.train.batch(rows.flatten()), rows.shape[1]
        self.company.rows = a_run
        self.company.tokens = [] if self._lengths is None else self._lengths[rows].amax(1).tolist()
        with autocast(self.device):
            logits = self.model(**on(self.device, without_labels(batch))).logits
        losses, of_row = self.train.task.item_losses(logits, batch)
        runs, zeros = runs_of(of_row, a_run), torch.zeros(len(self.specs), device=losses.device)
        return zeros.index_add(0, runs, losses), torch.bincount(runs, minlength=len(self.specs))

    def _outcomes(self, losses: Tensor, tokens: Sequence[int]) -> list[Outcome]:
        kinds = self.stack.norms()
        self._total = torch.stack(list(kinds.values())).norm(dim=0)
        table = torch.stack([losses, self._total, kinds["lora_a"], kinds["lora_b"]]).tolist()
        found = []
        for run, spec in enumerate(self.specs):
            loss, norm, norm_a, norm_b = (column[run] for column in table)
            rate = spec.learning_rate * self._shares[run]
            found.append(
                Outcome(spec.run_id, loss_or_lost(loss, norm), rate, norm, norm_a, norm_b, tokens[run] if tokens else None)
            )
        return found

    def update(self) -> None:
        self.stack.clip(self._total)
        self.stack.step(torch.tensor(self._shares, device=self.device))

    def drop(self, run_ids: Iterable[str]) -> None:
        gone = set(run_ids)
        kept = [spec.run_id not in gone for spec in self.specs]
        chosen = torch.tensor(kept, dtype=torch.bool)
        self.stack.keep(chosen)
        for name in ("specs", "_orders", "_streams", "_shares"):
            setattr(self, name, tuple(one for one, keep in zip(getattr(self, name), kept, strict=True) if keep))
        self._total = self._total[chosen.to(self.device)]
        self._bind()

    def model_of(self, spec: RunSpec) -> AbstractContextManager[nn.Module]:
        return self._alone(spec)

    def base(self) -> AbstractContextManager[nn.Module]:
        return self._alone(self.specs[0])

    def base_scores(self, split: Split) -> Mapping[str, Score]:
        """Where there are heads the base passes the rows once, and every run's head reads what it makes of them."""
        if not self.heads:
            with self.base() as base:
                return dict.fromkeys((spec.run_id for spec in self.specs), evaluate(base, split))
        with self.company.all_heads():
            scores = evaluate_heads(self.model, split, heads=len(self.specs))
        return dict(zip((spec.run_id for spec in self.specs), scores, strict=True))

    @contextmanager
    def _alone(self, spec: RunSpec) -> Iterator[nn.Module]:
        """Merged where the copies are small: a matrix then costs one product, and writing answers asks for many."""
        run = self.specs.index(spec)
        numbers = sum(layer.lora_a.shape[2] * layer.lora_b.shape[2] for layer in self._layers.values())
        try:
            for layer in self._layers.values() if numbers <= _MOST_MERGED else ():
                layer.merge(run)
            with self.company.only(run):
                yield self.model
        finally:
            for layer in self._layers.values():
                layer.unmerge()

    @torch.no_grad()
    def spectra(self) -> Mapping[str, Mapping[str, tuple[float, ...]]]:
        found: dict[str, dict[str, tuple[float, ...]]] = {spec.run_id: {} for spec in self.specs}
        for name, layer in self._layers.items():
            a, b = layer.lora_a.detach().cpu(), layer.lora_b.detach().mT.cpu()
            values = stacked_singular_values(b, a, torch.tensor(layer.scalings)).tolist()
            for spec, row, r in zip(self.specs, values, layer.ranks, strict=True):
                if r:
                    found[spec.run_id][name] = tuple(row[: min(r, b.shape[1], a.shape[2])])
        return found

    def factors(self, spec: RunSpec) -> Mapping[str, LowRank]:
        run = self.specs.index(spec)
        return {name: delta for name, layer in self._layers.items() if (delta := layer.delta(run)) is not None}

    @property
    def spectra_are_cheap(self) -> bool:
        return True

    def save(self, spec: RunSpec, folder: Path, *, step: int) -> None:
        run, shell = self.specs.index(spec), self._shells[spec.tuning]
        names = [block.name for block in self.stack.blocks if self._has(shell, block)]
        shell.fill({name: self.stack.row(name, run).cpu() for name in names})
        shell.save(folder, step=step)

    def _has(self, shell: Shell, block: Block) -> bool:
        return block.kind.startswith("head") or block.name.rpartition(" ")[0] in shell.factors
