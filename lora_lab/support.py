"""`python -m lora_lab.support`: which model takes which method, each cell tried whole on a tiny random model.

It writes `data/support.json`, {row: {family: "" or why not}}, and the same as a table in `docs/support.md`: on the CPU, as they
are on a machine without CUDA.
"""

import copy
import functools
import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from safetensors.torch import save_file
from torch import Tensor, nn

from lora_lab.adapters import (
    VIRTUAL_TOKENS,
    Adapter,
    from_model,
    load_adapter,
    load_trained,
    save,
    save_initial,
    save_trained,
)
from lora_lab.assets import DATA_DIR
from lora_lab.budget import method_params
from lora_lab.errors import ClaimError, MergeError, SpecError
from lora_lab.geometry import Matrix
from lora_lab.inference import merge, unload_merged
from lora_lab.live_geometry import read_geometry
from lora_lab.methods import attach_method, beneath, quantize, quiet_peft, refuse_unfit, trainable_params
from lora_lab.methods.quantized import bits_of, dequantize
from lora_lab.methods.tiny import TINY, tiny_model
from lora_lab.specs import COMBINED, IN_PLACE, METHODS, MOVING_INITS, Init, MethodSpec, Quant, RunSpec, unique
from lora_lab.training.optimizers import make_optimizer
from lora_lab.weights import BaseWeights

SUPPORT_JSON = DATA_DIR / "support.json"
SUPPORT_MD = DATA_DIR.parent / "docs" / "support.md"
CLOSE = 1e-5  # relative, in float32
INT8_ROUNDING = 0.03  # relative: of LLM.int8's activations in 8 bits, the largest found being half of it
_ROUNDING = 1e-6  # of a weight, relative to its norm
_LEAST_EFFECT = 1e-3  # of two steps on the outputs, relative: less would leave the other claims empty
_STEPS = 2
_STARTS: tuple[Init, ...] = ("gaussian", "orthogonal", "pissa", "olora", "eva", "loftq")
_RATES = {
    "lora+": 0.01,
    "adalora": 0.3,
}  # B takes 16 times the one; the other's A and B begin small, and its ΔW would drown in rounding
_QUANTS: tuple[Quant, ...] = ("nf4", "nf4-dq", "int8")


@dataclass(frozen=True, slots=True)
class Row:
    """A method as the matrix tries it."""

    title: str
    spec: MethodSpec
    quant: Quant = "none"
    learning_rate: float = 0.05

    @property
    def start(self) -> Literal["exact", "rounding", "none"]:
        """How the outputs at step 0 are the base's: bit for bit, to rounding, or not at all."""
        if self.spec.method in ("prefix", "preembed"):
            return "none"
        return "rounding" if self.spec.init_lora_weights in ("orthogonal", *MOVING_INITS) else "exact"


def _rows_of(method: str) -> Iterator[Row]:
    if method == "qlora":
        yield from (Row(f"qlora ({quant})", MethodSpec(method=method, r=2), quant) for quant in _QUANTS)
        return
    yield Row(method, MethodSpec(method=method, r=2), learning_rate=_RATES.get(method, 0.05))
    if method == "lora":
        yield from (Row(f"lora ({init})", MethodSpec(r=2, init_lora_weights=init)) for init in _STARTS)


ROWS: dict[str, Row] = {row.title: row for method in METHODS for row in _rows_of(method)}


@dataclass(frozen=True, slots=True)
class Cell:
    """What came of a cell: why it is refused, or how far merged outputs lie from unmerged ones, None where nothing merges."""

    refusal: str = ""
    merge_error: float | None = None


def check_cell(family: str, row: Row) -> Cell:
    """Try a row on a family whole.

    Raises:
        ClaimError: a claim does not hold.
    """
    refusal = _refusal(family, row)
    if refusal:
        return Cell(refusal)
    with TemporaryDirectory() as folder:
        trial = _Trial(family, row, Path(folder))
        check_count(trial)
        check_start(trial)
        check_training(trial)
        trial.save()
        adapter = trial.adapter()
        if row.quant == "none":  # int8 rounds what goes in: there the merged weight tells
            check_delta(trial, adapter)
        error = check_merge(trial, adapter)
        check_file(trial, adapter)
    return Cell(merge_error=error)


def _require(ok: bool, sentence: str) -> None:
    if not ok:
        raise ClaimError(sentence)


# What a cell begins with.


@functools.cache
def _saved_base(family: str) -> tuple[nn.Module, TemporaryDirectory[str]]:
    """A family's random base, biases and norms random too, and its weights in a folder; the same in every process."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        base = tiny_model(family, device="cpu").eval()
        with torch.no_grad():
            for parameter in base.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
    folder: TemporaryDirectory[str] = TemporaryDirectory()
    save_file({name: tensor.clone() for name, tensor in base.state_dict().items()}, Path(folder.name) / "model.safetensors")
    base.config.save_pretrained(folder.name)  # type: ignore[operator,union-attr]
    return base, folder


def _fresh(family: str, quant: Quant) -> nn.Module:
    return quantize(copy.deepcopy(_saved_base(family)[0]), quant)


@functools.cache
def _base_of(family: str, quant: Quant) -> nn.Module:
    """A base that nothing is attached to, to compare with."""
    return _fresh(family, quant)


@functools.cache
def _base_logits(family: str, quant: Quant) -> Tensor:
    return _logits(_base_of(family, quant), family)


@functools.cache
def _base_maps(family: str, quant: Quant) -> dict[str, Tensor]:
    base = _base_of(family, quant)
    return _maps(base, read_geometry(base).matrices)


@functools.cache
def _base_state(family: str, quant: Quant) -> dict[str, dict[str, Tensor]]:
    """{module: what it holds itself}."""
    return {name: _own_state(module) for name, module in _base_of(family, quant).named_modules() if module._parameters}


@functools.cache
def _weights(family: str) -> BaseWeights:
    base, folder = _saved_base(family)
    return BaseWeights(folder.name, read_geometry(base).matrices)


def _batch(family: str) -> dict[str, Tensor]:
    """Three rows of seven tokens, or three pictures, and what to learn of them."""
    generator = torch.Generator().manual_seed(1)
    classes = torch.tensor([0, 1, 0])
    if family == "vit":
        return {"pixel_values": torch.randn(3, 1, 8, 8, generator=generator), "labels": classes}
    tokens = torch.randint(3, 40, (3, 7), generator=generator)
    labels = classes if TINY[family][0].endswith("SequenceClassification") else tokens
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": labels}


class _Trial:
    """A row attached to a family's base, and what goes with it."""

    def __init__(self, family: str, row: Row, folder: Path) -> None:
        self.family, self.row, self.folder = family, row, folder
        self.initial = folder / "initial"
        base = _fresh(family, row.quant)
        self.matrices = {matrix.name: matrix for matrix in read_geometry(base).matrices}
        self.own = {name: module for name, module in base.named_modules() if module._parameters}
        data = (_batch(family),) if row.spec.init_lora_weights == "eva" else ()
        self.live = attach_method(base, row.spec, seed=0, batches=data, total_steps=_STEPS)
        self.carrier: Any = beneath(self.live) or self.live
        self.start = self._kept_start()
        self.originals = self._originals() if row.spec.method in IN_PLACE else {}

    def _kept_start(self) -> Adapter | None:
        if self.row.spec.init_lora_weights not in MOVING_INITS:
            return None
        save_initial(self.carrier, self.initial)
        return load_adapter(self.initial)

    def _originals(self) -> dict[str, Tensor]:
        """W0 of each matrix, as `from_model` wants it."""
        original = _saved_base(self.family)[0]
        return {name: _stored(original, matrix) for name, matrix in self.matrices.items() if not matrix.tied}

    @property
    def trained(self) -> set[str]:
        """The names of what is trained, a tied parameter under each of its names."""
        return {name for name, p in self.live.named_parameters(remove_duplicate=False) if p.requires_grad}

    @property
    def is_mergeable(self) -> bool:
        """Whether the method can be merged into weights."""
        return isinstance(getattr(self.carrier, "base_model", None), BaseTuner)

    @property
    def inner(self) -> nn.Module:
        """The base's own class, with whatever is on it."""
        found: nn.Module = self.carrier.get_base_model() if isinstance(self.carrier, PeftModel) else self.carrier
        return found

    @property
    def original_maps(self) -> dict[str, Tensor]:
        """What every linear map of the base was, before anything was attached."""
        return _base_maps(self.family, self.row.quant)

    def adapter(self) -> Adapter:
        """ΔW of the live model."""
        return from_model(self.carrier, originals=self.originals, start=self.start)

    def logits(self, model: nn.Module | None = None) -> Tensor:
        """What the live model, or another, answers."""
        return _logits(model or self.live, self.family)

    def save(self) -> None:
        """Save as a run does."""
        if not isinstance(self.live, PeftModel):
            save_trained(self.live, self.folder / "adapter", record=asdict(self.row.spec), step=_STEPS)
            return
        save(
            self.carrier,
            self.folder / "adapter",
            base_name="base",
            step=_STEPS,
            initial=self.initial if self.start is not None else None,
            virtual_tokens=self.live if self.carrier is not self.live else None,
        )

    def load(self, base: nn.Module) -> nn.Module:
        """What was saved on another base: in plain PEFT, or by `load_trained` where PEFT lacks the method."""
        folder = self.folder / "adapter"
        if not isinstance(self.live, PeftModel):
            model = attach_method(base, self.row.spec)
            load_trained(model, folder)
            return model
        with quiet_peft():
            loaded = PeftModel.from_pretrained(base, str(folder))
            if self.row.spec.method in COMBINED:
                loaded = PeftModel.from_pretrained(loaded.get_base_model(), str(folder / VIRTUAL_TOKENS))
        opened: nn.Module = loaded
        return opened


def _logits(model: nn.Module, family: str) -> Tensor:
    with torch.no_grad():
        found: Tensor = model.eval()(**_batch(family)).logits
    return found


def _state(model: nn.Module) -> dict[str, Tensor]:
    """Copies of every tensor that the model would save: packed bytes and their scales too."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items() if isinstance(tensor, Tensor)}


def _apart(found: Tensor, expected: Tensor) -> float:
    """‖found − expected‖ / ‖expected‖; infinite where the shapes differ or a number is none."""
    if found.shape != expected.shape or not bool(found.isfinite().all()):
        return float("inf")
    difference, size = (found.double() - expected.double()).norm(), expected.double().norm()
    return float(difference / size) if bool(difference) else 0.0


# A refusal.


def _refusal(family: str, row: Row) -> str:
    """Why the family cannot take the row, said before anything is attached; empty where it can."""
    try:
        base = _base_of(family, row.quant)
        refuse_unfit(base, read_geometry(base), row.spec)
    except SpecError as err:
        for model in (_fresh(family, "none"), tiny_model(family)):
            _check_refused(model, row, str(err))
        return str(err)
    return ""


def _check_refused(model: nn.Module, row: Row, sentence: str) -> None:
    """The model is refused in the same words when it is really tried, and is left as it was."""
    before = {name: (id(p), p.requires_grad) for name, p in model.named_parameters()}
    try:
        attach_method(quantize(model, row.quant), row.spec)
    except SpecError as err:
        _require(str(err) == sentence, f"It is refused with {str(err)!r} when it is attached.")
    else:
        raise ClaimError("It is refused, and attaches nevertheless.")
    _require({name: (id(p), p.requires_grad) for name, p in model.named_parameters()} == before, "A refusal has changed the base.")


# The claims, one a function.


def check_count(trial: _Trial) -> None:
    """It attaches on the meta device as on the CPU, and trains as many parameters as the closed form counts."""
    on_meta = tiny_model(trial.family)
    expected = method_params(read_geometry(on_meta), trial.row.spec)
    on_meta = attach_method(on_meta, trial.row.spec)
    for model in (on_meta, trial.live):
        found = trainable_params(model)[0]
        _require(found == expected, f"It trains {found} parameters, and the formula counts {expected}.")
    alike = trial.row.quant != "none" or _shapes(on_meta) == _shapes(trial.live)
    _require(alike, "The meta device attaches other parameters than the CPU.")


def _shapes(model: nn.Module) -> dict[str, tuple[torch.Size, torch.dtype, bool]]:
    return {name: (p.shape, p.dtype, p.requires_grad) for name, p in model.named_parameters()}


def check_start(trial: _Trial) -> None:
    """ΔW is 0 at step 0 and the outputs are the base's: bit for bit, or to rounding where the start values meet W0 by rounding."""
    promise = trial.row.start
    for name, delta in trial.adapter().items():
        bound = 0.0 if promise == "exact" else _ROUNDING * float(trial.original_maps[name].norm())
        _require(delta.frobenius() <= bound, f"ΔW of {name} is not 0 at step 0.")
    for name, first in (trial.start or {}).items():
        back = _effective(trial.own[name], trial.matrices[name]) + first.dense().double()
        _require(_apart(back, trial.original_maps[name]) <= _ROUNDING, f"The moved {name} and its start do not make up W0.")
    if promise != "none":
        error = _apart(trial.logits(trial.carrier), _base_logits(trial.family, trial.row.quant))
        _require(error <= (0.0 if promise == "exact" else CLOSE), f"The outputs at step 0 are {error:.1e} from the base's.")


def check_training(trial: _Trial) -> None:
    """Two steps reach and change all that is trained, and leave everything else as it is to the bit, the base as it came."""
    before, first = _state(trial.live), trial.logits()
    reached = _two_steps(trial)
    after, trained = _state(trial.live), trial.trained
    unreached = {name for name, p in trial.live.named_parameters() if p.requires_grad} - reached
    _require(not unreached, f"No gradient reaches {min(unreached, default='')}.")
    changed = {name for name in after if name not in before or not torch.equal(before[name], after[name])}
    _require(
        after.keys() == before.keys() and changed <= trained, f"Training has changed {min(changed - trained, default='keys')}."
    )
    # AdaLoRA's last cut sets a singular value back to 0, where all of them began
    idle = {name for name in trained - changed if ".lora_E." not in name}
    _require(not idle, f"Training has not changed {min(idle, default='')}.")
    _check_base(trial)
    effect = _apart(trial.logits(), first)
    _require(effect != float("inf") and effect >= _LEAST_EFFECT, f"Training has moved the outputs by {effect:.1e}.")


def _two_steps(trial: _Trial) -> set[str]:
    """Two steps of AdamW on one batch; what a gradient other than 0 has reached."""
    row, reached = trial.row, set()
    spec = RunSpec(bench="", base_sha256="", tuning=row.spec, learning_rate=row.learning_rate)
    optimizer = make_optimizer(trial.live, spec)
    trial.live.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for step in range(_STEPS):
            optimizer.zero_grad()
            trial.live(**_batch(trial.family)).loss.backward()
            reached |= {name for name, p in trial.live.named_parameters() if p.grad is not None and bool(p.grad.any())}
            optimizer.step()
            if row.spec.method == "adalora":
                trial.carrier.base_model.update_and_allocate(step)
    trial.live.eval()
    return reached


def _check_base(trial: _Trial) -> None:
    """The base's own modules hold what a fresh base does, but for what is trained in place or was moved by the start values."""
    in_place = trial.trained if trial.row.spec.method in IN_PLACE else set()
    moved = {f"{name}.weight" for name in trial.start or ()}
    for owner, held in _base_state(trial.family, trial.row.quant).items():
        now = _own_state(trial.own[owner])
        for key, original in held.items():
            name = f"{owner}.{key}" if owner else key
            same = name in in_place | moved or torch.equal(now[key], original)
            _require(same, f"The base's {name} is not what it was.")


def _own_state(module: nn.Module) -> dict[str, Tensor]:
    """What the module holds beside its children."""
    children = {name for name, _ in module.named_children()}
    return {key: tensor for key, tensor in _state(module).items() if key.split(".")[0] not in children}


def check_delta(trial: _Trial, adapter: Adapter) -> None:
    """ΔW is (d_out, d_in), and what the layers now do to the unit vectors less what they did; no other matrix changes."""
    if not (trial.is_mergeable or trial.row.spec.method in IN_PLACE):
        return _require(not adapter, "It changes no matrix, and has a ΔW.")
    now = _maps(trial.inner, trial.matrices.values())
    strays = adapter.keys() - now.keys()
    _require(not strays, f"There is a ΔW of {min(strays, default='')}, which is no matrix.")
    for name, original in trial.original_maps.items():
        change = now[name] - original
        if name in adapter and adapter[name].frobenius():
            error = _apart(adapter[name].dense(), change)
            _require(error <= CLOSE, f"ΔW of {name} is {error:.1e} from the change of its weight.")
        else:
            _require(float(change.norm()) <= _ROUNDING * float(original.norm()), f"{name} has changed, and has no ΔW.")


def check_merge(trial: _Trial, adapter: Adapter) -> float | None:
    """Merged outputs are the unmerged ones, the weights have changed by ΔW, and undoing it brings back every bit.

    An int8 base rounds what goes into its layers to 8 bits, a merged one no longer does: its merged weights are held
    against unmerged layers of the same values that do not round either, in `check_file`.

    Returns:
        How far they lie apart, relative; None where the method has nothing to merge, and is refused.
    """
    if not trial.is_mergeable:
        _require_unmergeable(trial)
        return None
    before, unmerged = _state(trial.live), trial.logits()
    with merge(trial.carrier, dtype=torch.float32):
        error = _apart(trial.logits(), unmerged)
        bound = INT8_ROUNDING if trial.row.quant == "int8" else CLOSE
        _require(error <= bound, f"Merged outputs are {error:.1e} from unmerged ones.")
        check_delta(trial, adapter)
    after = _state(trial.live)
    same = after.keys() == before.keys() and all(torch.equal(after[name], tensor) for name, tensor in before.items())
    _require(same and torch.equal(trial.logits(), unmerged), "Undoing the merge does not bring back what was there.")
    return error


def _require_unmergeable(trial: _Trial) -> None:
    try:
        merge(trial.carrier)
    except MergeError as err:
        _require("must be a PEFT model whose adapter changes weights" in str(err), f"Merging is refused with {str(err)!r}.")
    else:
        raise ClaimError("It has nothing to merge, and merges.")


def check_file(trial: _Trial, adapter: Adapter) -> None:
    """What was saved, on a fresh base in plain PEFT, gives the same logits; its file holds the same ΔW; unloaded, it is merged."""
    expected = trial.logits()
    loaded = trial.load(_fresh(trial.family, trial.row.quant))
    error = _apart(trial.logits(loaded), expected)
    _require(error <= (0.0 if trial.start is None else CLOSE), f"Loaded, its outputs are {error:.1e} from those saved.")
    _check_same(load_adapter(trial.folder / "adapter", base=_weights(trial.family)), adapter)
    if trial.is_mergeable and trial.carrier is trial.live:
        if trial.row.quant == "int8":
            expected = trial.logits(trial.load(_dequantized(_fresh(trial.family, trial.row.quant))))
        merged = unload_merged(loaded)
        left = [name for name, module in merged.named_modules() if isinstance(module, BaseTunerLayer) or bits_of(module)]
        _require(not left, f"Unloaded, it still has PEFT's or a quantized layer: {min(left, default='')}.")
        error = _apart(trial.logits(merged), expected)
        _require(error <= CLOSE, f"Unloaded, its outputs are {error:.1e} from unmerged ones.")


def _check_same(found: Adapter, expected: Adapter) -> None:
    _require(found.keys() == expected.keys(), "The file holds the ΔW of other matrices than the live model.")
    for name, delta in expected.items():
        error = _apart(found[name].dense(), delta.dense())
        _require(error <= CLOSE, f"ΔW of {name} in the file is {error:.1e} from the live one.")


# What a linear map does.


def _maps(model: nn.Module, matrices: Iterable[Matrix]) -> dict[str, Tensor]:
    """Each map as (d_out, d_in) in float64, an expert as name[i]; tied ones left out, as they are the embedding."""
    found: dict[str, Tensor] = {}
    for matrix in matrices:
        if matrix.kind == "experts":
            found |= {f"{matrix.name}[{i}]": weight.double() for i, weight in enumerate(_stored(model, matrix))}
        elif not matrix.tied:
            found[matrix.name] = _effective(model.get_submodule(matrix.name), matrix)
    return found


def _effective(layer: Any, matrix: Matrix) -> Tensor:
    """What a layer does to each unit vector, whichever way it keeps its weight and whatever PEFT has put on it."""
    if bits_of(layer):
        layer = dequantize(layer, torch.float32)
    with torch.no_grad():
        answers = layer(torch.cat([torch.eye(matrix.d_in), torch.zeros(1, matrix.d_in)]))
    effective: Tensor = (answers[:-1] - answers[-1:]).T.double()
    return effective


def _stored(base: nn.Module, matrix: Matrix) -> Tensor:
    """A weight as (d_out, d_in), or a stack of experts as (experts, d_out, d_in)."""
    if matrix.kind != "experts":
        weight: Tensor = base.get_parameter(f"{matrix.name}.weight").detach()
        return weight.mT if matrix.kind == "conv1d" else weight
    owner, _, name = matrix.name.rpartition(".")
    module: Any = base.get_submodule(owner)
    stack: Tensor = getattr(module, name).detach()
    return stack.mT if getattr(module, "is_transposed", False) else stack


def _dequantized(base: nn.Module) -> nn.Module:
    """Plain layers of the same values in the place of quantized ones."""
    for name, layer in [(name, layer) for name, layer in base.named_modules() if bits_of(layer)]:
        base.set_submodule(name, dequantize(layer, torch.float32))
    return base


# The table.


def support_table() -> dict[str, dict[str, str]]:
    """{row: {family: why not, or empty}}, every cell tried.

    Raises:
        ClaimError: a claim does not hold.
    """
    return {title: {family: _cell_or_place(family, row).refusal for family in TINY} for title, row in ROWS.items()}


def _cell_or_place(family: str, row: Row) -> Cell:
    try:
        return check_cell(family, row)
    except ClaimError as err:
        raise ClaimError(f"{row.title} on {family}: {err}") from err


def as_json(table: dict[str, dict[str, str]]) -> str:
    """The text of `data/support.json`."""
    return json.dumps(table, indent=1, ensure_ascii=False) + "\n"


def as_markdown(table: dict[str, dict[str, str]]) -> str:
    """The text of `docs/support.md`: families by rows, the reasons numbered beneath."""
    reasons = unique(why for cells in table.values() for why in cells.values() if why)
    rows = [
        [family, *("✓" if not table[title][family] else f"– {reasons.index(table[title][family]) + 1}" for title in table)]
        for family in TINY
    ]
    header = ["family", *table]
    lines = [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)]
    notes = [f"{number}. {why}" for number, why in enumerate(reasons, start=1)]
    taken = sum(not why for cells in table.values() for why in cells.values())
    counts = {"cells": len(table) * len(TINY), "taken": taken, "refused": len(table) * len(TINY) - taken}
    return "\n".join([_PREAMBLE.format(**counts), *lines, "", *notes, "", _CLAIMS])


_PREAMBLE = """\
# Which model takes which method

Each method is tried whole on a tiny random model of each family, with the method's own targets: LoRA with each of its start
values, QLoRA in each of its formats. ✓ means that every claim below the table holds; a number is the reason why it is refused,
in the sentence that says so before anything is attached. Of {cells} cells {taken} pass and {refused} are refused; none is left out.
`python -m lora_lab.support` writes this page and `data/support.json`, on the CPU; the tests try every cell anew.
"""

_CLAIMS = f"""\
What ✓ says, in float32:

- **Attached.** It attaches on the meta device as on the CPU, the same parameters, and the closed form counts them to the last.
- **Step 0.** ΔW = 0 and the outputs are the base's, bit for bit; with orthogonal, PiSSA and OLoRA start values, which meet W0 by
  rounding, to 1e-5 relative, and the base that PiSSA and OLoRA moved makes up W0 together with their start. A prefix and a prompt
  change the outputs from the start and promise nothing.
- **Trained.** Two steps of AdamW reach every trained parameter with a gradient and change it, without NaN (AdaLoRA's cut may set a
  singular value back to 0). All else is as it was to the bit: the base's weights, its buffers, a quantized base's packed bytes
  and scales.
- **ΔW.** It is (d_out, d_in) and, to 1e-5 relative, what the layer does to the unit vectors less what the base's layer does to
  them; no other matrix changes.
- **Merged.** Outputs are the unmerged ones to 1e-5 relative in every cell that merges, DoRA's among them, and undoing the merge
  brings back every bit. A quantized base is dequantized to merge. LLM.int8 rounds what goes into its layers to 8 bits and merged
  layers do not: the two differ by up to {100 * INT8_ROUNDING:.0f} %, and the 1e-5 holds against unmerged layers of the same
  values that do not round. What changes no weight through PEFT (prefix, prompt, bottlenecks, methods in place) has nothing to
  merge and says so.
- **Saved.** On a fresh original base `peft.PeftModel.from_pretrained` gives the same logits, bit for bit (PiSSA and OLoRA, saved as
  plain LoRA of twice the rank, to 1e-5). BitFit, bottlenecks, top layers and full fine-tuning, which PEFT lacks, are loaded by
  `load_trained`. The file holds the ΔW that the live model has.
"""


if __name__ == "__main__":
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it tells each layer that int8 rounds
    found = support_table()
    SUPPORT_JSON.write_text(as_json(found))
    SUPPORT_MD.write_text(as_markdown(found))
